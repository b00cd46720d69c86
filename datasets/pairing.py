"""Pairing images with labels by name, never by position."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.listing import PNG_OR_JPEG, Listing, is_picture, left_out_sentences, list_below
from utils.errors import UserError
from utils.text import first_few


class Found(NamedTuple):
    """The images and labels that lie in two folders, by the names that partners share.

    Attributes:
        doubled: pairs of files that have the same name and role, such as `1.png` and `1.jpg`; the
            first of each is among the images or labels.
        left_out: sentences that say which files are not taken.
        bad: number of pairs that are left out because they are known to be bad.
    """

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    image_folder: Path
    label_folder: Path
    doubled: Sequence[tuple[Path, Path]] = ()
    left_out: Sequence[str] = ()
    bad: int = 0


def listing(folder: Path, *, deep: bool) -> Listing:
    """Return everything in a folder; with `deep`, everything below it. Raise UserError for a folder
    that cannot be opened, since samples may lie in it."""
    listed = list_below(folder, deep=deep)
    if listed.closed:
        raise UserError(f"{listed.closed[0]} cannot be opened: change its permissions")
    return listed


def by_name(
    paths: Iterable[Path], folder: Path, ending: str = "", prefix: str = ""
) -> tuple[dict[str, Path], list[tuple[Path, Path]]]:
    """Return the PNG and JPEG files with this ending before the suffix, and pairs of one name
    (`doubled`).

    The name of a file is its path below the folder without ending and suffix, such as
    `aachen/aachen_000000_000019`, after the prefix.
    """
    files: dict[str, Path] = {}
    doubled = []
    start = len(f"{folder}{os.sep}")  # `relative_to` takes ten times as long
    for path in paths:
        if is_named(path, ending):
            name = os.path.splitext(str(path)[start:])[0].removesuffix(ending)  # noqa: PTH122
            first = files.setdefault(prefix + name.replace(os.sep, "/"), path)
            if first is not path:
                doubled.append((first, path))
    return files, doubled


def not_taken(listed: Listing, ending: str | None = None) -> list[str]:
    """Return sentences that say which files and folders are not taken; with an ending also those
    about pictures without it."""
    reasons = listed.left_out()
    if ending is not None:
        reasons[f"not named *{ending}.png or .jpg"] = otherwise_named(listed, ending)
    return left_out_sentences(reasons)


def otherwise_named(listed: Listing, ending: str) -> list[Path]:
    """Return the pictures whose names do not have this ending before the suffix."""
    return [path for path in listed.paths if is_picture(path) and not is_named(path, ending)]


def is_named(path: Path, ending: str) -> bool:
    """Return whether a file is a PNG or JPEG whose name has this ending, and more, before the
    suffix."""
    stem, suffix = os.path.splitext(path.name)  # noqa: PTH122 - faster than pathlib's
    return suffix.lower() in PNG_OR_JPEG and stem.endswith(ending) and stem != ending


def existing_folder(folder: Path, remedy: str) -> Path:
    """Return the folder. Raise UserError with the remedy where it does not exist."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: {remedy}")
    return folder


def example(root: Path, inside: Sequence[str]) -> str:
    """Return the end of a sentence that names a subfolder of a wrong root as the right root, for it
    has these folders inside; "" where no subfolder has."""
    with contextlib.suppress(OSError):  # it is advice alone
        for one in sorted(root.iterdir()):
            if os.access(one, os.X_OK) and all((one / place).is_dir() for place in inside):
                return f", such as {one}"
    return ""


def check_partners(found: Found) -> None:
    """Raise UserError unless the same names stand on both sides, each once, and at least one."""
    check_doubled(found)
    if not found.images and not found.labels:
        raise UserError(
            f"{found.image_folder} and {found.label_folder} hold no PNG files: put the data there"
        )
    _report("label", found.images, found.labels, found.label_folder)
    _report("image", found.labels, found.images, found.image_folder)


def check_doubled(found: Found) -> None:
    """Raise UserError where two files have the same name and role."""
    for first, second in found.doubled:
        raise UserError(doubled_sentence(first, second))


def doubled_sentence(first: Path, second: Path) -> str:
    """Say that two files have one name, and what to do."""
    return f"{first} and {second} have the same name but for the suffix: remove one of them"


def _report(
    missing: str, present: Mapping[str, Path], partners: Mapping[str, Path], folder: Path
) -> None:
    lonely = sorted(present.keys() - partners.keys())
    if lonely:
        files = first_few([present[name] for name in lonely])
        raise UserError(
            f"{len(lonely)} of {len(present)} files have no {missing} in {folder}: {files}; add "
            f"the missing {missing}s or remove these files"
        )
