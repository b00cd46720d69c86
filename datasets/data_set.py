"""Define a data set: a row of the table in catalog.py."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from datasets.labels import LabelFormat
from datasets.options import DataSettings
from datasets.pairing import Found
from datasets.reading import SampleFiles
from utils.transforms import STRETCH


class Role(Enum):
    """Role of a data set in an adaptation."""

    SOURCE = "source"
    TARGET = "target"


class Subset(NamedTuple):
    """Classes whose mean IoU is reported beside that of all, by their names."""

    names: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{len(self.names)} classes"


class Layout(Protocol):
    """Places of a data set's files below its root. A split is "train" or "val".

    All methods raise UserError where a folder that is needed is missing.
    """

    def found(self, root: Path, split: str, settings: DataSettings) -> Found:
        """Return the images and labels of a split, also those without a partner."""

    def labelled(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        """Return the samples of a split in the order of their names, each with its label."""

    def images(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        """Return the samples of a split without labels, which need not exist."""

    def label_format(self, label: Path) -> LabelFormat:
        """Return the format of a label file by the file's name."""

    def has_labels(self, root: Path, split: str, settings: DataSettings) -> bool:
        """Return whether the split should have labels."""

    def no_images(self, folder: Path, split: str) -> str:
        """Say that a split's folder holds no images, and what to do."""


@dataclass(frozen=True)
class DataSet:
    """A row of the table of data sets.

    Attributes:
        name: the word after `--source` and `--target`.
        title: its name in print and in files.
        layout: where its files are, and the format of its labels.
        root_flag: the flag of its own that names its folder, if there is one.
        home: its folder where no flag names one, by default its title.
        stretch: share by which images may be stretched to the size that is asked for.
        subsets: the classes that scores are means over where it is source or target, beside the
            mean over all.
        look: what Toy City draws in its place, if it does.
        photos: whether its images are as `SampleFiles.photo` says.
    """

    name: str
    title: str
    layout: Layout
    root_flag: str = ""
    home: str = ""
    stretch: float = STRETCH
    subsets: tuple[Subset, ...] = ()
    look: str = ""
    photos: bool = False
