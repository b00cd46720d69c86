"""GTA5 (Richter et al., "Playing for Data", ECCV 2016): images/NNNNN.png, labels/NNNNN.png.

Labels are palette PNGs whose indices are Cityscapes label ids. Any name will do that an image and
its label share; images may be `.jpg` or `.PNG`, too.
"""

import functools
import time
from collections.abc import Sequence
from pathlib import Path

from datasets.pairing import Found, by_name, check_partners, existing_folder, listing, not_taken
from datasets.reading import SampleFiles, say_once
from utils.errors import UserError

BAD_PAIRS = frozenset({15188, 17705, *range(20801, 20861)})
"""Frames whose image and label differ in size or content."""

MAX_VAL_BLOCKS = 10
MIN_VAL_BLOCK = 50

SETTLED = 3.0
"""Seconds after which one more change of a folder surely has another time; FAT's are whole pairs of
seconds."""


def gta5_files(root: Path, split: str, val_fraction: float) -> list[SampleFiles]:
    """The samples of a split, "train" or "val", in the order of their names."""
    found = _all_files(root)
    for sentence in found.left_out:
        say_once(sentence)
    check_partners(found)
    names = sorted(found.images)
    chosen = _in_split(names, split, val_fraction)
    if split == "val" and not val_fraction:
        raise UserError(
            f"{root} has no validation split with --gta5_val_fraction 0, which is for adaptation "
            "alone: name a share above 0"
        )
    if not chosen or (len(chosen) == len(names) and val_fraction):
        raise UserError(
            f"{root} holds {len(names)} usable images, too few for a training and a validation "
            f"split with --gta5_val_fraction {val_fraction}: add images or change the fraction"
        )
    return [SampleFiles(name, found.images[name], found.labels[name]) for name in chosen]


def found_gta5(root: Path, split: str, val_fraction: float) -> Found:
    """The images and labels of a split, also those without a partner, which count in the split as
    if it were there. Raises UserError where a folder is missing."""
    found = _all_files(root)
    names = _in_split(sorted(found.images.keys() | found.labels.keys()), split, val_fraction)
    images, labels = (
        {name: paths[name] for name in names if name in paths}
        for paths in (found.images, found.labels)
    )
    return found._replace(images=images, labels=labels)


def left_out(root: Path) -> int:
    """How many of the known bad pairs lie in the data set. Raises UserError where a folder is
    missing."""
    return sum(map(_is_bad, _listing(root).images))


def validation_positions(count: int, fraction: float) -> set[int]:
    """Positions in the sorted names that validate: contiguous blocks, spread evenly.

    Consecutive frames of the game look alike, so a block keeps neighbours on one side; several
    blocks, where they are long enough, see several parts of the game. A fraction of 0 gives none.
    """
    blocks = min(max(round(count * fraction) // MIN_VAL_BLOCK, 1), MAX_VAL_BLOCKS)
    ends = [count * (block + 1) // blocks for block in range(blocks)]
    return {
        position
        for start, end in zip([0, *ends], ends, strict=False)
        for position in range(end - round((end - start) * fraction), end)
    }


def _in_split(names: Sequence[str], split: str, val_fraction: float) -> list[str]:
    validation = validation_positions(len(names), val_fraction)
    return [
        name for position, name in enumerate(names) if (position in validation) == (split == "val")
    ]


def _all_files(root: Path) -> Found:
    """All but the known bad pairs."""
    found = _listing(root)
    images, labels = (
        {name: path for name, path in paths.items() if not _is_bad(name)}
        for paths in (found.images, found.labels)
    )
    return found._replace(images=images, labels=labels)


def _listing(root: Path) -> Found:
    """All there is, listed anew only where something was added or removed since."""
    folders = tuple(existing_folder(root / name, _REMEDY) for name in ("images", "labels"))
    changed = tuple(folder.stat().st_mtime for folder in folders)
    list_now = _listed if time.time() - max(changed) > SETTLED else _listed.__wrapped__
    return list_now(folders, changed)


@functools.lru_cache(maxsize=2)
def _listed(folders: tuple[Path, Path], changed: tuple[float, float]) -> Found:
    """What lies in the folders of images and of labels that were last changed at these times."""
    listed = [listing(folder, deep=False) for folder in folders]
    (images, doubled_images), (labels, doubled_labels) = (
        by_name(one.paths, folder) for one, folder in zip(listed, folders, strict=True)
    )
    sentences = [sentence for one in listed for sentence in not_taken(one, "")]
    return Found(images, labels, *folders, [*doubled_images, *doubled_labels], sentences)


_REMEDY = "unpack GTA5 so that --gta5_root holds images/ and labels/"


def _is_bad(stem: str) -> bool:
    return stem.isdecimal() and int(stem) in BAD_PAIRS
