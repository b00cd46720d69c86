"""The Cityscapes label table (Cordts et al., CVPR 2016): names, label ids, train ids, colours.

GTA5 (Richter et al., ECCV 2016) writes the same label ids. The train id of a class is its position
in `CLASSES`; every label id that is not listed maps to `IGNORE`.
"""

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


def colorize(train_ids: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a map of train ids, uint8 [H, W]."""
    return PALETTE[train_ids]
