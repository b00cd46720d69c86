"""The pictures that a user names: one, a folder of them, or a glob such as `a/**/*.png`."""

import fnmatch
import functools
import glob
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.cityscapes import IMAGE
from datasets.listing import PICTURES, Listing, is_picture, left_out_sentences, list_below
from utils.errors import UserError
from utils.notes import say_once

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

RECORD = "predictions.json"
"""File that marks a folder of results, whose pictures are not inputs again."""

WILD = frozenset("*?[")
"""Characters that make a path a glob, unless a file of that name exists."""

DEEP = "**"
"""The part of a glob that stands for folders at any depth."""


class Picture(NamedTuple):
    """A picture; `name` is what every file derived from it is called by, such as `a/1`."""

    name: str
    path: Path


def is_glob(path: Path) -> bool:
    """Return whether a path is a pattern of files, and no file itself."""
    return bool(WILD & set(str(path))) and not path.exists()


def is_video(path: Path) -> bool:
    """Return whether a path names a video by its ending."""
    return path.suffix.lower() in VIDEOS and not path.is_dir() and not is_glob(path)


def input_folder(path: Path) -> Path:
    """Return the folder that the names of an input's pictures start from."""
    if is_glob(path):
        return Path(*itertools.takewhile(lambda part: not WILD & set(part), path.parts))
    return path if path.is_dir() else path.parent


def find_pictures(path: Path) -> list[Picture]:
    """Return the pictures of an input, sorted, without hidden files, videos in folders and results
    of predictions. Say what is left out.

    Pictures of a kind that cannot be read, such as HEIC, are among them: reading says so.

    Cityscapes' `_leftImg8bit` is no part of a name; pictures that differ in their suffix alone keep
    it. Raise UserError where there are none.
    """
    root, files = input_folder(path), _files(path)
    names = [_name(file.relative_to(root)) for file in files]
    counts = Counter(names)
    return [
        Picture(name if counts[name] == 1 else file.relative_to(root).as_posix(), file)
        for name, file in zip(names, files, strict=True)
    ]


def _files(path: Path) -> list[Path]:
    if not path.is_dir() and not is_glob(path):
        return [path]
    root, listed = input_folder(path), _listing(path)

    @functools.cache
    def holds_results(folder: Path) -> bool:
        above = folder != root and holds_results(folder.parent)
        return above or (folder / RECORD).exists()

    files = [file for file in listed.paths if not holds_results(file.parent)]
    reasons = {
        **listed.left_out(),
        "folders that cannot be opened": listed.closed,
        "videos, which --input takes one by one": [file for file in files if is_video(file)],
    }
    for sentence in left_out_sentences(reasons):
        say_once(sentence)
    pictures = [file for file in files if is_picture(file) and not file.is_dir()]
    if not pictures:
        raise UserError(
            f"--input {path}: there are no pictures ({', '.join(PICTURES)}): name a picture, a "
            "folder that holds some, a glob that matches some, or one video"
        )
    return pictures


def _listing(path: Path) -> Listing:
    """Return the files below a folder, or those that match a glob; `**` enters no folder twice."""
    if path.is_dir():
        return list_below(path)
    if DEEP not in path.parts:
        return Listing(sorted(map(Path, glob.glob(str(path)))), [], [], [])  # noqa: PTH207
    above = Path(*path.parts[: path.parts.index(DEEP)])
    folders = [Path(name) for name in glob.glob(str(above))] if is_glob(above) else [above]  # noqa: PTH207
    listed = list_below(*filter(Path.is_dir, folders))
    paths, hidden = (
        [one for one in several if _matches(one.parts, path.parts)]
        for several in (listed.paths, listed.hidden)
    )
    return listed._replace(paths=paths, hidden=hidden)


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob, where `**` stands for any
    folders."""
    if not patterns:
        return not names
    if patterns[0] == DEEP:
        return any(_matches(names[start:], patterns[1:]) for start in range(len(names) + 1))
    if not names or not fnmatch.fnmatch(names[0], patterns[0]):
        return False
    return _matches(names[1:], patterns[1:])


def _name(relative: Path) -> str:
    if relative.name.endswith(f"{IMAGE}.png"):
        return relative.with_name(relative.name.removesuffix(f"{IMAGE}.png")).as_posix()
    return relative.with_suffix("").as_posix()
