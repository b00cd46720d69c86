"""The classes: tables of names, colours, ids and train ids, and what label files hold of them.

The table of Cityscapes (Cordts et al., CVPR 2016) is the usual one; GTA5 (Richter et al., ECCV
2016) writes the same label ids. The train id of a class is its position in its table; every id that
is not listed maps to `IGNORE`.
"""

import csv
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


class LabelClass(NamedTuple):
    """A class of Cityscapes: its name, its id in label files, and its colour."""

    name: str
    label_id: int
    color: Color


CLASSES = (
    LabelClass("road", 7, (128, 64, 128)),
    LabelClass("sidewalk", 8, (244, 35, 232)),
    LabelClass("building", 11, (70, 70, 70)),
    LabelClass("wall", 12, (102, 102, 156)),
    LabelClass("fence", 13, (190, 153, 153)),
    LabelClass("pole", 17, (153, 153, 153)),
    LabelClass("traffic light", 19, (250, 170, 30)),
    LabelClass("traffic sign", 20, (220, 220, 0)),
    LabelClass("vegetation", 21, (107, 142, 35)),
    LabelClass("terrain", 22, (152, 251, 152)),
    LabelClass("sky", 23, (70, 130, 180)),
    LabelClass("person", 24, (220, 20, 60)),
    LabelClass("rider", 25, (255, 0, 0)),
    LabelClass("car", 26, (0, 0, 142)),
    LabelClass("truck", 27, (0, 0, 70)),
    LabelClass("bus", 28, (0, 60, 100)),
    LabelClass("train", 31, (0, 80, 100)),
    LabelClass("motorcycle", 32, (0, 0, 230)),
    LabelClass("bicycle", 33, (119, 11, 32)),
)
IGNORE = 255
MAX_LABEL_ID = 34  # GTA5's licence plate; Cityscapes itself ends at 33


@dataclass(frozen=True)
class LabelFormat:
    """Meaning of the values in a label file; two formats of one name are equal.

    Attributes:
        name: of the values in messages and in the names of caches.
        values: the values that a file may hold.
        train_ids: uint8 [256], value -> train id; None where the values are train ids.
        deep: the file is a PNG of 16-bit colours, and the value is their first channel.
        own_size: the label may be of another size than its image.
        soft: a pixel has several train ids with their probabilities, see `read_soft_label`.
        remedy: what to do with a file that holds other values.
    """

    name: str
    values: tuple[int, ...] = field(compare=False)
    train_ids: np.ndarray | None = field(default=None, compare=False, repr=False)
    deep: bool = field(default=False, compare=False)
    own_size: bool = field(default=False, compare=False)
    soft: bool = field(default=False, compare=False)
    remedy: str = field(default="replace it by a file of the kind its name says", compare=False)

    def to_train_ids(self, values: np.ndarray) -> np.ndarray:
        """Train ids of values, both uint8 of any shape."""
        return values if self.train_ids is None else self.train_ids[values]

    @property
    def scored(self) -> tuple[int, ...]:
        """The values that stand for a class."""
        ids = self.to_train_ids(np.array(self.values, np.uint8))
        return tuple(value for value, i in zip(self.values, ids, strict=True) if i != IGNORE)

    def named_in(self, classes: "ClassTable") -> "LabelFormat":
        """Return the format of the same files for another table than Cityscapes': a value stands
        for the class of the table that has the name of its own class, and for none without one."""
        if classes == CITYSCAPES:
            return self
        table = np.full(256, IGNORE, np.uint8)
        for train_id, name in enumerate(CLASS_NAMES):
            if name in classes.names:
                table[train_id] = classes.names.index(name)
        ids = table[self.to_train_ids(np.arange(256, dtype=np.uint8))]
        return replace(self, name=f"{self.name} as {classes.digest}", train_ids=ids)


def table_of(train_id_of: Mapping[int, int]) -> np.ndarray:
    """Return a table, uint8 [256], from value to train id, `IGNORE` for every value that is not
    listed."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(train_id_of)] = list(train_id_of.values())
    return table


@dataclass(frozen=True)
class ClassTable:
    """The classes that a network tells apart; the train id of a class is its place.

    Attributes:
        names: of the classes, each once.
        colors: RGB, 0 to 255.
        ids: the values of the classes in label files of the user's own.
        ignored: the values there that stand for no class, beside `IGNORE`.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ids: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> np.ndarray:
        """uint8 [256, 3]: train id -> RGB, black for `IGNORE`."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colors
        return palette

    @cached_property
    def to_ids(self) -> np.ndarray:
        """uint8 [256]: train id -> id; `IGNORE` for every other value."""
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self)] = self.ids
        return table

    def colorize(self, train_ids: np.ndarray) -> np.ndarray:
        """Return a map of train ids, uint8 [H, W], in colours, RGB uint8 [H, W, 3]."""
        return self.palette[train_ids]

    def legend(self) -> dict[str, Color]:
        """Return the colours of the classes by their names."""
        return dict(zip(self.names, self.colors, strict=True))

    @property
    def digest(self) -> str:
        """A short word that tells the table's names and ids from those of others."""
        words = repr((self.names, self.ids, self.ignored)).encode()
        return f"{len(self)} classes ({zlib.crc32(words):08x})"

    @property
    def own_ids(self) -> LabelFormat:
        """Format of the user's own labels: the table's ids."""
        values = tuple(sorted({*self.ids, *self.ignored, IGNORE}))
        train_ids = table_of({value: train_id for train_id, value in enumerate(self.ids)})
        remedy = "give each value a row in the file of --classes, named ignored if it is no class"
        return LabelFormat(f"ids of {self.digest}", values, train_ids, remedy=remedy)

    def pseudo_labels(self, *, soft: bool) -> LabelFormat:
        """Return the format of pseudo-labels: train ids of the table."""
        kind = SOFT_LABELS if soft else PSEUDO_LABELS
        return replace(kind, values=(*range(len(self)), IGNORE))

    def recorded(self) -> str:
        """Return the table as runs and checkpoints record it: `USUAL` for that of Cityscapes, else
        as the text of a CSV file."""
        if self == CITYSCAPES:
            return USUAL
        rows = [
            (str(value), name, "#{:02x}{:02x}{:02x}".format(*color))
            for value, name, color in zip(self.ids, self.names, self.colors, strict=True)
        ]
        rows += [(str(value), IGNORED, "") for value in self.ignored]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEAD, *rows])
        return text.getvalue()


CLASS_TABLE = "class_table"
"""Under which name settings.json and checkpoints record their table; older ones have none."""

USUAL = "cityscapes"
"""The word that stands for the table of Cityscapes in records."""

HEAD = ("id", "name", "colour")
IGNORED = "ignored"
"""The columns of a table as a CSV file, and the name of a value that stands for no class."""

CITYSCAPES = ClassTable(
    names=tuple(c.name for c in CLASSES),
    colors=tuple(c.color for c in CLASSES),
    ids=tuple(c.label_id for c in CLASSES),
)
NUM_CLASSES = len(CITYSCAPES)
CLASS_NAMES = CITYSCAPES.names
PALETTE = CITYSCAPES.palette

LABEL_ID_TO_TRAIN_ID = table_of({c.label_id: train_id for train_id, c in enumerate(CLASSES)})
"""uint8 [256]: label id -> train id, `IGNORE` for every id without one."""

TRAIN_ID_TO_LABEL_ID = np.zeros(256, np.uint8)
"""uint8 [256]: train id -> label id, 0 ("unlabeled") for `IGNORE`."""
TRAIN_ID_TO_LABEL_ID[:NUM_CLASSES] = [c.label_id for c in CLASSES]

LABEL_IDS = LabelFormat("label ids", tuple(range(MAX_LABEL_ID + 1)), LABEL_ID_TO_TRAIN_ID)
TRAIN_IDS = LabelFormat("train ids", (*range(NUM_CLASSES), IGNORE))
PSEUDO_LABELS = LabelFormat("pseudo-labels", TRAIN_IDS.values, own_size=True)
SOFT_LABELS = LabelFormat("soft pseudo-labels", TRAIN_IDS.values, own_size=True, soft=True)


colorize = CITYSCAPES.colorize
