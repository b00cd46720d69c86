"""Weights from files: our own checkpoints, plain state dicts, and the official STDC files
(Fan et al., CVPR 2021).

A file is read without running code from it, and either fits and is loaded, or is refused with the
network left as it was.
"""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model.model_stages import BACKBONE_PREFIX, BiSeNet
from model.stdcnet import BACKBONES, STDCNet
from utils.errors import UserError, check_is_file

STATE_DICT_KEYS = ("network", "method", "state_dict", "model_state_dict", "model")
"""Where a checkpoint keeps its state dict; the first two are our own best.pth and latest.pth."""

WRAPPERS = r"^(module\.|_orig_mod\.)+"
"""What DistributedDataParallel and torch.compile put in front of every name."""

FIRST_LAYER = "features.0.conv.weight"
"""A name that every backbone of ours has: it tells a backbone from a network."""

STEM_SHARE = 2
"""The first layer's channels are the base width divided by this."""

NETWORK_PREFIX = "network."
COUNTER = "num_batches_tracked"
INPLACE_ABN_EPSILON = 1e-5
NAMES_SHOWN = 3

AUXILIARY_HEADS = r"conv_out(16|32)\."
"""Names of the tensors that training alone uses."""

NOTHING = r"(?!)"

OUTSIDE_BACKBONE = rf"(?!{re.escape(BACKBONE_PREFIX)})"
"""Names of all tensors of a `BiSeNet` but its backbone's."""

# Tensors of the official files that this network does without: the backbone's layers once more
# under the names of their strides, its ImageNet classifier, and the detail heads.
BACKBONE_SURPLUS = r"(x(2|4|8|16|32)|conv_last|fc|bn|linear)\."
NETWORK_SURPLUS = rf"{re.escape(BACKBONE_PREFIX)}{BACKBONE_SURPLUS}|conv_out_sp(2|4|8|16)\."


class LoadReport(NamedTuple):
    """How many tensors were loaded, and the names that the file lacks or has too many."""

    loaded: int
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        counts = f"missing {len(self.missing)}, unexpected {len(self.unexpected)}"
        names = f"; missing: {_first(self.missing)}" if self.missing else ""
        return f"loaded {self.loaded}, {counts}{names}"


def load_backbone(network: BiSeNet, path: str | Path) -> LoadReport:
    """Load ImageNet weights, in the official naming, into the backbone.

    Raises:
        UserError: the file cannot be read, lacks a tensor of the backbone, has one that cannot be
            used (see `_check_tensors`), or belongs to another network.
    """
    tensors = read_state_dict(path)
    if BACKBONE_PREFIX + FIRST_LAYER in tensors:
        raise UserError(
            f"{path} holds a whole segmentation network, not an ImageNet backbone: "
            "use --load_model_path for it"
        )
    _check_tensors(network.cp.backbone, tensors, path)
    return _load(network.cp.backbone, tensors, path, BACKBONE_SURPLUS)


def load_network(network: BiSeNet, path: str | Path, *, to_train: bool = False) -> LoadReport:
    """Load a checkpoint of ours, a plain state dict or an official STDC-Seg one into the network.

    The auxiliary heads may be missing, since only training uses them. A network that is going
    `to_train` may start from the backbone alone.

    Raises:
        UserError: the file cannot be read, lacks another tensor, has one that cannot be used (see
            `_check_tensors`), or belongs to another network.
    """
    tensors = read_state_dict(path)
    if FIRST_LAYER in tensors:
        raise UserError(
            f"{path} holds a backbone alone, not a segmentation network: use --pretrain_path for it"
        )
    _check_tensors(network, tensors, path)
    if _comes_from_inplace_abn(tensors):
        tensors = _from_inplace_abn(tensors)
    may_lack = OUTSIDE_BACKBONE if to_train else AUXILIARY_HEADS
    return _load(network, tensors, path, NETWORK_SURPLUS, may_lack)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a network in a file, on the CPU, under their names without wrappers.

    Of a checkpoint that holds a whole method only its network is taken.

    Raises:
        UserError: no such file, not a file of PyTorch, objects in it that could run code, or no
            tensors.
    """
    content = _read(path)
    tensors = _find_tensors(content)
    if not tensors:
        found = _first(list(content)) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{path} holds no weights (found: {found}): "
            f"give a state dict, plain or under {', '.join(STATE_DICT_KEYS)}"
        )
    return _unwrap(tensors)


def _read(path: str | Path) -> Any:
    check_is_file(Path(path))
    try:
        _check_sums(Path(path))
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} was not found: give the path of a checkpoint") from None
    except UnpicklingError as error:
        raise UserError(f"{path} {_pickle_problem(error)}") from error
    except Exception as error:
        # A damaged file fails with whatever its bytes happen to spell: RuntimeError, EOFError,
        # OSError, KeyError and IndexError have all been seen.
        raise UserError(f"{path} {_unreadable(error)}") from error


def _check_sums(path: Path) -> None:
    """Raises BadZipFile where a part of a zip, as torch writes them, is not what was written; torch
    itself compares no sums, and unpacks whatever size a part claims."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
                raise zipfile.BadZipFile("torch packs nothing, this is packed")
            if damaged := parts.testzip():
                raise zipfile.BadZipFile(f"{damaged} in it is damaged")


def _numpy_scalars() -> list[Callable | tuple[Callable, str]]:
    """What numpy's numbers are pickled with, under the names of numpy before 2.0 and since."""
    reconstruct = np.float64(0).__reduce__()[0]
    codes = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    return [
        (reconstruct, "numpy.core.multiarray.scalar"),
        (reconstruct, "numpy._core.multiarray.scalar"),
        np.dtype,
        *{type(np.dtype(code)) for code in codes},
    ]


def _pickle_problem(error: UnpicklingError) -> str:
    forbidden = re.search(r"GLOBAL (\S+)", str(error))
    if forbidden is None:
        return _unreadable(error)
    return (
        f"holds {forbidden.group(1)}, which is not loaded because it could run code: "
        "save the state dict alone, torch.save(network.state_dict(), path)"
    )


def _unreadable(error: Exception) -> str:
    return (
        f"is not a readable PyTorch checkpoint ({type(error).__name__}): "
        "it may be cut short or of another kind, copy or save it again"
    )


def _find_tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    nested = (content.get(key) for key in STATE_DICT_KEYS)
    for candidate in (*nested, content):
        if isinstance(candidate, Mapping):
            tensors = {
                name: value
                for name, value in candidate.items()
                if isinstance(name, str) and isinstance(value, Tensor)
            }
            if tensors:
                return tensors
    return {}


def _unwrap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = _without_wrappers(tensors)
    network = {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(NETWORK_PREFIX)
    }
    return _without_wrappers(network or tensors)


def _without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(WRAPPERS, "", name): tensor for name, tensor in tensors.items()}


def _comes_from_inplace_abn(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the norms outside the backbone are InPlaceABN's: those count no batches, the
    backbone's ordinary ones do."""
    counters = [name for name in tensors if name.endswith(COUNTER)]
    return bool(counters) and all(name.startswith(BACKBONE_PREFIX) for name in counters)


def _from_inplace_abn(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Batch norm scales by w, InPlaceABN by |w| + epsilon."""
    statistics = (name for name in tensors if name.endswith("running_var"))
    norm_weights = {name.removesuffix("running_var") + "weight" for name in statistics}
    return {
        name: tensor.abs() + INPLACE_ABN_EPSILON
        if name in norm_weights and not name.startswith(BACKBONE_PREFIX)
        else tensor
        for name, tensor in tensors.items()
    }


def _check_tensors(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UserError that names the module's tensors which no network can compute with."""
    problems = (
        (name, _problem(name, tensors[name])) for name in module.state_dict() if name in tensors
    )
    if bad := [f"{name} {problem}" for name, problem in problems if problem]:
        raise UserError(
            f"{path}: {_first(bad)}: give a checkpoint whose tensors hold finite real numbers"
        )


def _problem(name: str, tensor: Tensor) -> str | None:
    """Why a network cannot compute with a tensor, if so."""
    if tensor.device.type != "cpu":  # every other device was mapped to it
        return f"has no values (device {tensor.device})"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "is sparse or nested"
    if tensor.is_quantized:
        return "is quantised"
    if name.endswith(COUNTER):
        return None
    if not tensor.is_floating_point():
        return f"is of {tensor.dtype}".replace("torch.", "")
    values = tensor.float()  # what float32 cannot hold becomes infinite
    if not values.isfinite().all():
        return "holds NaN or infinity"
    if name.endswith("running_var") and (values < 0).any():
        return "holds a variance below 0"
    return None


def _check_shapes(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    needed = module.state_dict()
    wrong = [n for n in needed if n in tensors and tensors[n].shape != needed[n].shape]
    if wrong:
        differences = [
            f"{name} is {_size(tensors[name])} and not {_size(needed[name])}" for name in wrong
        ]
        raise UserError(
            f"{path} is a checkpoint of another network: {_first(differences)}; "
            f"{_remedy(module, tensors)}"
        )


def _remedy(module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    own = next(part for part in module.modules() if isinstance(part, STDCNet))
    backbone = {name.removeprefix(BACKBONE_PREFIX): tensor for name, tensor in tensors.items()}
    stem = backbone.get(FIRST_LAYER)
    if stem is not None and len(stem) != len(own.state_dict()[FIRST_LAYER]):
        return f"use --base_width {STEM_SHARE * len(stem)}"
    for name, blocks in BACKBONES.items():
        if blocks != own.blocks and _fits(blocks, own.base, backbone):
            return f"use --backbone {name}"
    return "give a checkpoint of this network"


def _fits(blocks: tuple[int, int, int], base: int, tensors: Mapping[str, Tensor]) -> bool:
    with torch.device("meta"):
        needed = STDCNet(blocks, base).state_dict()
    return all(
        name in tensors and tensors[name].shape == tensor.shape
        for name, tensor in needed.items()
        if not name.endswith(COUNTER)
    )


def _load(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    surplus: str,
    may_lack: str = NOTHING,
) -> LoadReport:
    """Load all or nothing. `surplus` matches names that may be left over, `may_lack` names of the
    module that the file need not hold."""
    _check_shapes(module, tensors, path)
    needed = module.state_dict()
    usable = {name: tensor for name, tensor in tensors.items() if name in needed}
    # Batches are counted for nothing but averages without a momentum, which nobody uses here.
    missing = [n for n in needed if n not in usable and not n.endswith(COUNTER)]
    unexpected = [n for n in tensors if n not in needed and not re.match(surplus, n)]
    report = LoadReport(len(usable), missing, unexpected)
    if not all(re.match(may_lack, name) for name in missing):
        tensors = "1 tensor" if len(missing) == 1 else f"{len(missing)} tensors"
        others = f" and holds others ({_first(unexpected)})" if unexpected else ""
        raise UserError(
            f"{path} lacks {tensors} of this network: {_first(missing)}{others}; give a checkpoint "
            "of this network"
        )
    module.load_state_dict(usable, strict=False)
    return report


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _first(items: list[Any]) -> str:
    """The first few items as text, and how many more there are."""
    shown = ", ".join(map(str, items[:NAMES_SHOWN])) or "none"
    more = len(items) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
