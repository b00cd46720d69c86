"""Pairing images with labels by name, never by position."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError

SHOWN = 3


class Found(NamedTuple):
    """The images and labels that lie in two folders, by the names that partners share."""

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    image_folder: Path
    label_folder: Path


def existing_folder(folder: Path, remedy: str) -> Path:
    """The folder; a UserError with the remedy where it is not there."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: {remedy}")
    return folder


def check_partners(found: Found) -> None:
    """Raises UserError unless the same names stand on both sides, and at least one."""
    images, labels, image_folder, label_folder = found
    if not images and not labels:
        raise UserError(f"{image_folder} and {label_folder} hold no PNG files: put the data there")
    _report("label", images, labels, label_folder)
    _report("image", labels, images, image_folder)


def _report(
    missing: str, present: Mapping[str, Path], partners: Mapping[str, Path], folder: Path
) -> None:
    lonely = sorted(present.keys() - partners.keys())
    if lonely:
        first = ", ".join(str(present[name]) for name in lonely[:SHOWN])
        rest = f" and {len(lonely) - SHOWN} more" if len(lonely) > SHOWN else ""
        raise UserError(
            f"{len(lonely)} of {len(present)} files have no {missing} in {folder}: {first}{rest}; "
            f"add the missing {missing}s or remove these files"
        )
