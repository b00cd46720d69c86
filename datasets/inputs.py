"""The pictures that a user names: one, a folder of them, or a glob such as `a/**/*.png`."""

import functools
import glob
import itertools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from datasets.cityscapes import IMAGE
from utils.errors import UserError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

RECORD = "predictions.json"
"""What marks a folder of results, whose pictures are not inputs again."""

WILD = frozenset("*?[")
"""Characters that make a path a glob, unless a file of that name exists."""


class Picture(NamedTuple):
    """A picture; `name` is what every file derived from it is called by, such as `a/1`."""

    name: str
    path: Path


def is_glob(path: Path) -> bool:
    return bool(WILD & set(str(path))) and not path.exists()


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS and not path.is_dir() and not is_glob(path)


def input_folder(path: Path) -> Path:
    """The folder that the names of an input's pictures start from."""
    if is_glob(path):
        return Path(*itertools.takewhile(lambda part: not WILD & set(part), path.parts))
    return path if path.is_dir() else path.parent


def find_pictures(path: Path) -> list[Picture]:
    """The pictures of an input, sorted; hidden files and results of predictions are none.

    Cityscapes' `_leftImg8bit` is no part of a name; pictures that differ in their suffix alone keep
    it. Raises UserError where there are none.
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
    pattern = f"{glob.escape(str(path))}/**/*" if path.is_dir() else str(path)
    # Unlike pathlib it follows links, by which data sets are often put together.
    found = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207
    root = input_folder(path)

    @functools.cache
    def holds_results(folder: Path) -> bool:
        above = folder != root and holds_results(folder.parent)
        return above or (folder / RECORD).exists()

    pictures = [
        file
        for file in found
        if file.suffix.lower() in PICTURES and not holds_results(file.parent) and not file.is_dir()
    ]
    if not pictures:
        raise UserError(
            f"--input {path}: there are no pictures ({', '.join(PICTURES)}): name a picture, a "
            "folder that holds some, a glob that matches some, or one video"
        )
    return pictures


def _name(relative: Path) -> str:
    if relative.name.endswith(IMAGE):
        return relative.with_name(relative.name.removesuffix(IMAGE)).as_posix()
    return relative.with_suffix("").as_posix()
