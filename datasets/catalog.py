"""The data sets: where their files are, their names, and how their pictures are resized."""

import functools
import hashlib
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from datasets.cityscapes import cityscapes_files, cityscapes_images
from datasets.gta5 import gta5_files, left_out
from datasets.options import DataSettings
from datasets.reading import SampleFiles
from datasets.toy_city import drawn_from
from utils.transforms import STRETCH, Preparation
from utils.utils import find_input


class Domain(Enum):
    GTA5 = "GTA5"
    CITYSCAPES = "Cityscapes"


STRETCHES = {Domain.GTA5: 0.15, Domain.CITYSCAPES: STRETCH}
"""Shares by which images may be stretched. FDA's protocol stretches GTA5's 1914x1052 to 1280x720 by
2 %, and Toy City's, which are twice as wide as high, by 12 %."""


LOOKS = {Domain.GTA5: "synthetic look", Domain.CITYSCAPES: "real look"}
"""What Toy City draws in the place of each data set."""


class TrainingFiles(NamedTuple):
    """The files of a domain for a training.

    Attributes:
        origin: tells apart labels of the same names.
        problem: why nothing should be trained on them, if so.
        note: what is said of them where a training begins.
    """

    domain: Domain
    files: list[SampleFiles]
    origin: str = ""
    problem: str | None = None
    note: str = ""


def root_of(domain: Domain, settings: DataSettings) -> Path:
    """Folder of a domain. Raises UserError where it is missing."""
    return find_input(named_root(domain, settings), f"{domain.value.lower()}_root")


def named_root(domain: Domain, settings: DataSettings) -> Path:
    """Folder of a domain as the settings name it, whether it exists or not."""
    return settings.gta5_root if domain is Domain.GTA5 else settings.cityscapes_root


def data_set(domain: Domain, settings: DataSettings) -> str:
    """Return the name of the data set in a domain's folder: the domain's, or that of Toy City."""
    seed = drawn_from(root_of(domain, settings))
    if seed is None:
        return domain.value
    city = f"Toy City of seed {seed}" if seed else "Toy City"
    return f"{city}, {LOOKS[domain]}"


def labelled(domain: Domain, split: str, settings: DataSettings) -> list[SampleFiles]:
    """The files of a split, "train" or "val"."""
    if domain is Domain.CITYSCAPES:
        return cityscapes_files(root_of(domain, settings), split)
    root = root_of(domain, settings)
    if count := left_out(root):
        note_once(f"GTA5: {count} known bad pairs left out")
    return gta5_files(root, split, settings.gta5_val_fraction)


def unlabelled(domain: Domain, split: str, settings: DataSettings) -> list[SampleFiles]:
    """The images of a split; their labels are not read, and Cityscapes' need not exist."""
    if domain is Domain.CITYSCAPES:
        return cityscapes_images(root_of(domain, settings), split)
    return [files._replace(label=None) for files in labelled(domain, split, settings)]


@functools.cache
def note_once(text: str) -> None:
    """Print a note that would otherwise be repeated for every split."""
    print(text)


def resize_size(domain: Domain, settings: DataSettings) -> tuple[int, int]:
    """Size that images are resized to, or to cover: (height, width)."""
    return settings.source_resize if domain is Domain.GTA5 else settings.image_size


def preparation(domain: Domain, settings: DataSettings, *, resizes_label: bool) -> Preparation:
    """How the images of a domain are resized, before they are cropped, if they are."""
    return Preparation(resize_size(domain, settings), resizes_label, STRETCHES[domain])


def fingerprint(*parts: Sequence[SampleFiles] | str) -> str:
    """Digest of the names of all samples, and of what else is told: equal for the same data,
    wherever they lie."""
    words = [part if isinstance(part, str) else [files.name for files in part] for part in parts]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]
