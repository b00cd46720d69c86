"""Checkpoints as files: their format version, and reading them without running code from them."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError

FORMAT_VERSION = 1
"""Version of the checkpoints that are written; those of release 1.0.0 name none."""

VERSION = "format_version"
"""Name of the version in a checkpoint."""


def versioned(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint with its format version."""
    return {VERSION: FORMAT_VERSION, **content}


def read_checkpoint(path: Path) -> Any:
    """Return what a file of torch holds, its tensors on the CPU; no code from it runs.

    Raise whatever the bytes of a damaged file happen to spell: RuntimeError, EOFError, OSError,
    KeyError and IndexError have all been seen.
    """
    _check_sums(path)
    with torch.serialization.safe_globals(_numpy_scalars()):
        return torch.load(path, map_location="cpu", weights_only=True)


class NewerFormatError(UserError):
    """A checkpoint has a newer format than this program knows."""


def check_version(content: Any, path: Path) -> None:
    """Raise NewerFormatError for a checkpoint of a newer format than this program knows."""
    version = content.get(VERSION, 0) if isinstance(content, Mapping) else 0
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path} has checkpoint format {version}, and this release reads formats up to "
            f"{FORMAT_VERSION}: use the newer release that wrote it"
        )


def _check_sums(path: Path) -> None:
    """Raise BadZipFile where a part of a zip, as torch writes them, is not what was written; torch
    itself compares no sums, and unpacks whatever size a part claims."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
                raise zipfile.BadZipFile("torch packs nothing, this is packed")
            if damaged := parts.testzip():
                raise zipfile.BadZipFile(f"{damaged} in it is damaged")


def _numpy_scalars() -> list[Callable | tuple[Callable, str]]:
    """Return what numpy's numbers are pickled with, by the names of numpy before 2.0 and since."""
    reduced = np.float64(0).__reduce__()
    assert isinstance(reduced, tuple)
    reconstruct: Callable = reduced[0]
    codes = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    return [
        (reconstruct, "numpy.core.multiarray.scalar"),
        (reconstruct, "numpy._core.multiarray.scalar"),
        np.dtype,
        *{type(np.dtype(code)) for code in codes},
    ]
