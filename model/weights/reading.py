"""Reading a state dict from a file: our own checkpoints and those of other programs."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor

from utils.disk.checkpoint import check_version, read_checkpoint
from utils.errors import UserError, check_is_file
from utils.text import first_few

STATE_DICT_KEYS = ("network", "method", "state_dict", "model_state_dict", "model")
"""Keys of a checkpoint's state dict; the first two are those of our best.pth and latest.pth."""

WRAPPERS = r"^(module\.|_orig_mod\.)+"
"""Prefixes that DistributedDataParallel and torch.compile put in front of every name."""

NETWORK_PREFIX = "network."


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a network in a file, on the CPU, under their names without wrappers.

    If a checkpoint holds a whole method, only its network is read.

    Raises:
        UserError: no such file, a format of a newer release, not a file of PyTorch, objects in it
            that could run code, or no tensors.
    """
    path = Path(path)
    content = _read(path)
    check_version(content, path)
    tensors = _find_tensors(content)
    if not tensors:
        found = first_few(list(content)) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{path} holds no weights (found: {found}): "
            f"give a state dict, plain or under {', '.join(STATE_DICT_KEYS)}"
        )
    return _unwrap(tensors)


def read_record(path: Path, name: str) -> Any:
    """Return what a checkpoint holds under a name beside its weights; None where it does not.

    Raise UserError as `read_state_dict` does.
    """
    content = _read(path)
    return content.get(name) if isinstance(content, Mapping) else None


def _read(path: Path) -> Any:
    check_is_file(path)
    try:
        return read_checkpoint(path)
    except FileNotFoundError:
        raise UserError(f"{path} was not found: give the path of a checkpoint") from None
    except UnpicklingError as error:
        raise UserError(f"{path} {_pickle_problem(error)}") from error
    except Exception as error:
        raise UserError(f"{path} {_unreadable(error)}") from error


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
