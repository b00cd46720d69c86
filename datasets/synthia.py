"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016): RGB/NNNNNNN.png, GT/LABELS/NNNNNNN.png.

A label is a PNG of 16-bit colours whose first channel is the class.
"""

from datasets.data_set import DataSet, Subset
from datasets.labels import CLASS_NAMES, LabelFormat, table_of
from datasets.layouts import Unsplit

IDS = LabelFormat(
    "SYNTHIA's class ids",
    values=tuple(range(23)),
    train_ids=table_of(
        {
            **{3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9},
            **{1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18},
        }
    ),
    deep=True,
)
"""0 is void, and 13, 14 and 22 are parking, road works and lane marking: none of them is scored."""

RARE = ("terrain", "truck", "train")
HARD = ("wall", "fence", "pole")
SUBSETS = tuple(
    Subset(tuple(name for name in CLASS_NAMES if name not in left_out))
    for left_out in (RARE, (*RARE, *HARD))
)
"""The 16 and the 13 classes over which adaptation from SYNTHIA is scored (Tsai et al., CVPR 2018;
Vu et al., CVPR 2019)."""

ROW = DataSet("synthia", "SYNTHIA", Unsplit("SYNTHIA", "RGB", "GT/LABELS", IDS), subsets=SUBSETS)
