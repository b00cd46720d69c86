"""Define the findings of `check_data` in the files of a data set."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.labels import LabelFormat


class Kind(Enum):
    """Kinds of findings, in the order of the report."""

    MISSING = "missing"
    UNPAIRED = "unpaired"
    DOUBLED = "two files of one name"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    SIZES = "size mismatch"
    VALUES = "label values"
    NOTHING_SCORED = "nothing scored"
    REFUSED = "refused by training"
    LEFT_OUT = "left out"
    UNLABELLED = "no training labels"
    WITHOUT_LABELS = "target without labels"
    BLANK = "blank label"
    PROPORTIONS = "other proportions"
    DUPLICATE = "duplicate image"

    @property
    def is_problem(self) -> bool:
        """Whether a training would end because of it."""
        return self not in (
            Kind.LEFT_OUT,
            Kind.UNLABELLED,
            Kind.WITHOUT_LABELS,
            Kind.BLANK,
            Kind.PROPORTIONS,
            Kind.DUPLICATE,
        )


class Finding(NamedTuple):
    """Something about a file or folder, and a sentence that names it."""

    kind: Kind
    path: Path
    sentence: str


class Part(NamedTuple):
    """A data set's split, of one city where it has cities."""

    data_set: str
    split: str
    city: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


class Files(NamedTuple):
    """Files of a sample; the image or the label may be missing.

    `photo` is as in `SampleFiles`; what an image shows is only `compared` where that is asked for.
    """

    part: Part
    image: Path | None
    label: Path | None
    kind: LabelFormat
    photo: bool = False
    compared: bool = False


class Reading(NamedTuple):
    """Facts that are kept of a sample's files; None for a file that could not be read.

    Attributes:
        size: of the image, (height, width).
        digest: of the bytes of the image's file.
        counts: pixels of the label by train id, int64 [256].
        values: what the label holds if none of it is scored.
        content: what the image shows, as `alike` compares it.
    """

    findings: list[Finding]
    size: tuple[int, int] | None = None
    digest: str | None = None
    counts: np.ndarray | None = None
    values: Sequence[int] = ()
    content: np.ndarray | None = None


def size_in_words(size: tuple[int, int]) -> str:
    """Return a size with the width first, as image viewers show it."""
    return f"{size[1]}x{size[0]}"
