"""The Cityscapes label table (Cordts et al., CVPR 2016): names, label ids, train ids, colours.

GTA5 (Richter et al., ECCV 2016) writes the same label ids. The train id of a class is its position
in `CLASSES`; every label id that is not listed maps to `IGNORE`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class LabelClass(NamedTuple):
    name: str
    label_id: int
    color: tuple[int, int, int]


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
NUM_CLASSES = len(CLASSES)
CLASS_NAMES = tuple(c.name for c in CLASSES)
IGNORE = 255
MAX_LABEL_ID = 34  # GTA5's licence plate; Cityscapes itself ends at 33


def _lookup_table() -> np.ndarray:
    table = np.full(256, IGNORE, np.uint8)
    for train_id, label_class in enumerate(CLASSES):
        table[label_class.label_id] = train_id
    return table


def _palette() -> np.ndarray:
    palette = np.zeros((256, 3), np.uint8)
    palette[:NUM_CLASSES] = [c.color for c in CLASSES]
    return palette


LABEL_ID_TO_TRAIN_ID = _lookup_table()
"""uint8 [256]: label id -> train id, `IGNORE` for every id without one."""

TRAIN_ID_TO_LABEL_ID = np.zeros(256, np.uint8)
"""uint8 [256]: train id -> label id, 0 ("unlabeled") for `IGNORE`."""
TRAIN_ID_TO_LABEL_ID[:NUM_CLASSES] = [c.label_id for c in CLASSES]

PALETTE = _palette()
"""uint8 [256, 3]: train id -> RGB, black for `IGNORE`."""


@dataclass(frozen=True)
class LabelFormat:
    """What the values in a label file stand for; two formats of one name are equal.

    Attributes:
        name: of the values in messages and in the names of caches.
        values: the values that a file may hold.
        train_ids: uint8 [256], value -> train id; None where the values are train ids.
        deep: the file is a PNG of 16-bit colours, and the value is their first channel.
        own_size: the label may be of another size than its image.
        soft: a pixel has several train ids with their probabilities, see `read_soft_label`.
    """

    name: str
    values: tuple[int, ...] = field(compare=False)
    train_ids: np.ndarray | None = field(default=None, compare=False, repr=False)
    deep: bool = field(default=False, compare=False)
    own_size: bool = field(default=False, compare=False)
    soft: bool = field(default=False, compare=False)

    def to_train_ids(self, values: np.ndarray) -> np.ndarray:
        """Train ids of values, both uint8 of any shape."""
        return values if self.train_ids is None else self.train_ids[values]

    @property
    def scored(self) -> tuple[int, ...]:
        """The values that stand for a class."""
        ids = self.to_train_ids(np.array(self.values, np.uint8))
        return tuple(value for value, i in zip(self.values, ids, strict=True) if i != IGNORE)


def table_of(train_id_of: dict[int, int]) -> np.ndarray:
    """uint8 [256]: value -> train id, `IGNORE` for every value that is not listed."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(train_id_of)] = list(train_id_of.values())
    return table


LABEL_IDS = LabelFormat("label ids", tuple(range(MAX_LABEL_ID + 1)), LABEL_ID_TO_TRAIN_ID)
TRAIN_IDS = LabelFormat("train ids", (*range(NUM_CLASSES), IGNORE))
PSEUDO_LABELS = LabelFormat("pseudo-labels", TRAIN_IDS.values, own_size=True)
SOFT_LABELS = LabelFormat("soft pseudo-labels", TRAIN_IDS.values, own_size=True, soft=True)


def colorize(train_ids: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a map of train ids, uint8 [H, W]."""
    return PALETTE[train_ids]
