"""Loading weights into a network: our own checkpoints, plain state dicts, and official files.

A file either fits and is loaded, or is refused with the network left as it was.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.catalog import NETWORKS, Design, design_of
from model.network import Network
from model.stdcnet import BACKBONES
from model.weights.official import BACKBONE_SURPLUS, COUNTER
from model.weights.reading import read_state_dict
from utils.errors import UserError
from utils.text import dimensions, first_few

NOTHING = r"(?!)"
"""Pattern that no name matches."""

FIRST_LAYER = "features.0.conv.weight"
"""A name that every backbone of ours has: it tells a backbone from a network."""

STEM_SHARE = 2
"""The first layer's channels are the base width divided by this."""


class LoadReport(NamedTuple):
    """How many tensors were loaded, the names that the file lacks or has too many, and a clause
    about what was left out because it is of other classes."""

    loaded: int
    missing: list[str]
    unexpected: list[str]
    other_classes: str = ""

    def __str__(self) -> str:
        counts = f"missing {len(self.missing)}, unexpected {len(self.unexpected)}"
        names = f"; missing: {first_few(self.missing)}" if self.missing else ""
        left_out = f"; {self.other_classes}" if self.other_classes else ""
        return f"loaded {self.loaded}, {counts}{names}{left_out}"


def load_backbone(network: Network, path: str | Path) -> LoadReport:
    """Load ImageNet weights, in the official naming, into the backbone.

    Raises:
        UserError: the file cannot be read, lacks a tensor of the backbone, has one that cannot be
            used (see `_check_tensors`), or belongs to another network.
    """
    tensors = read_state_dict(path)
    if any(f"{kind.backbone_name}.{FIRST_LAYER}" in tensors for kind in NETWORKS.values()):
        raise UserError(
            f"{path} holds a whole segmentation network, not an ImageNet backbone: "
            "use --load_model_path for it"
        )
    backbone = network.backbone
    _check_tensors(backbone, tensors, path)
    remedy = functools.partial(_remedy, network, lambda other: other.backbone)
    return _load(backbone, tensors, path, BACKBONE_SURPLUS, remedy)


def load_network(
    network: Network, path: str | Path, *, to_train: bool = False, same_classes: bool = True
) -> LoadReport:
    """Load a checkpoint of ours, a plain state dict or an official one into the network.

    The auxiliary heads may be missing, since only training uses them. A network that is going
    `to_train` may start from the backbone alone, and leaves out what is of other classes: of
    another number of them or, unless they are the `same_classes`, of any.

    Raises:
        UserError: the file cannot be read, is of another number of classes, lacks another tensor,
            has one that cannot be used (see `_check_tensors`), or belongs to another network.
    """
    tensors = read_state_dict(path)
    if FIRST_LAYER in tensors:
        raise UserError(
            f"{path} holds a backbone alone, not a segmentation network: use --pretrain_path for it"
        )
    _check_tensors(network, tensors, path)
    tensors = network.from_official(tensors)
    tensors, other_classes = _of_these_classes(network, tensors, same=same_classes)
    if other_classes and not to_train:
        raise UserError(
            f"{path} is a checkpoint of another network: it is of {other_classes} classes and not "
            f"of {network.num_classes}; name its own with --classes, or give another checkpoint"
        )
    outside_backbone = rf"(?!{re.escape(network.backbone_name)}\.)"
    may_lack = outside_backbone if to_train else network.training_only
    remedy = functools.partial(_remedy, network, lambda other: other)
    report = _load(network, tensors, path, network.official_surplus, remedy, may_lack)
    if other_classes:
        clause = f"left out what is of the {other_classes} other classes of the file"
        return report._replace(other_classes=clause)
    return report


def _of_these_classes(
    network: Network, tensors: Mapping[str, Tensor], *, same: bool
) -> tuple[dict[str, Tensor], int]:
    """Return the tensors without those of other classes, whose number is returned, too; 0 where
    there are none. Only another number of classes tells `same` ones from others."""
    own = network.state_dict()
    differing = [
        name
        for name in _names_of_classes(design_of(network))
        if name in tensors
        and tensors[name].ndim == own[name].ndim
        and tensors[name].shape[1:] == own[name].shape[1:]
        and not (same and len(tensors[name]) == len(own[name]))
    ]
    counts = {len(tensors[name]) for name in differing}
    if len(counts) != 1:
        return dict(tensors), 0
    return {n: tensor for n, tensor in tensors.items() if n not in differing}, counts.pop()


@functools.cache
def _names_of_classes(design: Design) -> tuple[str, ...]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    with torch.device("meta"):
        one, other = (design.build(count).state_dict() for count in (2, 3))
    return tuple(name for name in one if one[name].shape != other[name].shape)


def _check_tensors(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UserError that names the module's tensors which no network can compute with."""
    problems = (
        (name, _problem(name, tensors[name])) for name in module.state_dict() if name in tensors
    )
    if bad := [f"{name} {problem}" for name, problem in problems if problem]:
        raise UserError(
            f"{path}: {first_few(bad)}: give a checkpoint whose tensors hold finite real numbers"
        )


def _problem(name: str, tensor: Tensor) -> str | None:
    """Return why a network cannot compute with a tensor; None if it can."""
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


def _remedy(
    network: Network, part: Callable[[Network], nn.Module], tensors: Mapping[str, Tensor]
) -> str:
    """Return what to do with a file of tensors that do not fit into a part of the network, in a
    clause: the flags with which they would, found by building other networks without memory."""
    own = design_of(network)

    def flags(other: Design) -> list[str]:
        differing = zip(Design._fields, own, other, strict=True)
        return [f"--{name} {value}" for name, mine, value in differing if mine != value]

    def fits(other: Design) -> bool:
        with torch.device("meta"):
            needed = part(other.build(network.num_classes)).state_dict()
        ignored = rf"{NETWORKS[other.network].training_only}|.*{COUNTER}$"
        return all(
            name in tensors and tensors[name].shape == tensor.shape
            for name, tensor in needed.items()
            if not re.match(ignored, name)
        )

    stems = (tensor for name, tensor in tensors.items() if name.endswith(FIRST_LAYER))
    width = max((STEM_SHARE * len(stem) for stem in stems if stem.ndim), default=0)
    others = itertools.starmap(Design, itertools.product(NETWORKS, BACKBONES, [width]))
    for other in sorted(others, key=lambda other: len(flags(other))):
        if width and other != own and fits(other):
            return f"use {' '.join(flags(other))}"
    return "give a checkpoint of this network"


def _load(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    surplus: str,
    remedy: Callable[[Mapping[str, Tensor]], str],
    may_lack: str = NOTHING,
) -> LoadReport:
    """Load all or nothing. `surplus` matches names that may be left over, `may_lack` names of the
    module that the file need not hold; `remedy` says what to do with tensors that do not fit."""
    needed = module.state_dict()
    wrong = [n for n in needed if n in tensors and tensors[n].shape != needed[n].shape]
    if wrong:
        differences = [f"{n} is {_size(tensors[n])} and not {_size(needed[n])}" for n in wrong]
        raise UserError(
            f"{path} is a checkpoint of another network: {first_few(differences)}; "
            f"{remedy(tensors)}"
        )
    usable = {name: tensor for name, tensor in tensors.items() if name in needed}
    # Batches are counted for nothing but averages without a momentum, which nobody uses here.
    missing = [n for n in needed if n not in usable and not n.endswith(COUNTER)]
    unexpected = [n for n in tensors if n not in needed and not re.match(surplus, n)]
    if not all(re.match(may_lack, name) for name in missing):
        lacking = "1 tensor" if len(missing) == 1 else f"{len(missing)} tensors"
        others = f" and holds others ({first_few(unexpected)})" if unexpected else ""
        raise UserError(
            f"{path} lacks {lacking} of this network: {first_few(missing)}{others}; "
            f"{remedy(tensors)}"
        )
    module.load_state_dict(usable, strict=False)
    return LoadReport(len(usable), missing, unexpected)


def _size(tensor: Tensor) -> str:
    return dimensions(tensor.shape) or "a single number"
