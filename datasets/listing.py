"""The files below folders: links are followed, and no folder is listed twice."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PNG_OR_JPEG = (".jpeg", ".jpg", ".png")
"""Suffixes, in lower case, of pictures in a data set."""

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of the pictures that can be read."""

OTHER_PICTURES = (
    *(".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),  # raw files of cameras
)
"""Suffixes of pictures that cannot be read."""

_ALL_PICTURES = frozenset((*PICTURES, *OTHER_PICTURES))


class Listing(NamedTuple):
    """Everything that lies below some folders, sorted.

    Attributes:
        paths: files and folders.
        hidden: files and folders whose names begin with a dot, such as the `._1.png` that macOS
            writes beside `1.png`; nothing below them is listed.
        repeated: folders that are listed already under another name, and links that lead up.
        closed: folders that cannot be opened.
    """

    paths: list[Path]
    hidden: list[Path]
    repeated: list[Path]
    closed: list[Path]

    def left_out(self) -> dict[str, list[Path]]:
        """Return the pictures and folders that are not taken, by the reason."""
        return {
            "hidden files": [path for path in self.hidden if is_picture(path)],
            "folders listed under another name, and links that lead up": self.repeated,
        }


def list_below(*roots: Path, deep: bool = True) -> Listing:
    """List folders, if `deep` with all folders below them, and follow links.

    A folder is listed once: by its own name if it lies below a root, else by the first link that
    leads to it. A link that leads up, to a folder that holds the link, is not followed.
    """
    found = Listing([], [], [], [])
    listed: set[str] = set()
    waiting = sorted(roots, key=os.path.islink)
    for number, folder in enumerate(waiting):  # grows while it is read
        real = os.path.realpath(folder)
        leads_up = Path(os.path.realpath(folder.parent)).is_relative_to(real)
        if real in listed or (leads_up and number >= len(roots)):
            found.repeated.append(folder)
        else:
            waiting += _list_unlinked(folder, real, listed, found, deep=deep)
    for paths in found:
        paths.sort(key=lambda path: path.parts)  # as paths are sorted, but faster
    return found


def _list_unlinked(
    folder: Path, real: str, listed: set[str], found: Listing, *, deep: bool
) -> list[Path]:
    """Add what lies below a folder, whose resolved path is `real`; return the links to folders."""
    links, folders = [], [(folder, real)]
    while folders:
        folder, real = folders.pop()
        if real in listed:
            found.repeated.append(folder)
            continue
        listed.add(real)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            found.closed.append(folder)
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                found.hidden.append(path)
                continue
            found.paths.append(path)
            if deep and entry.is_dir(follow_symlinks=False):
                folders.append((path, f"{real}{os.sep}{entry.name}"))
            elif deep and entry.is_symlink() and path.is_dir():
                links.append(path)
    return sorted(links)


def left_out_sentences(paths_by_reason: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return a sentence for each reason for which files or folders are not taken."""
    return [
        f"left out ({reason}): {len(paths)}, such as {paths[0]}"
        for reason, paths in paths_by_reason.items()
        if paths
    ]


def is_picture(path: Path) -> bool:
    """Return whether the file's name ends as that of a picture, of whatever kind."""
    return path.suffix.lower() in _ALL_PICTURES
