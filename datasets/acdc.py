"""ACDC (Sakaridis et al., ICCV 2021), all four conditions or one of them.

rgb_anon/<condition>/<split>/<sequence>/…_rgb_anon.png
gt/<condition>/<split>/<sequence>/…_gt_labelTrainIds.png
"""

from datasets.data_set import DataSet
from datasets.labels import LABEL_IDS, TRAIN_IDS
from datasets.layouts import Branch, Split, fixed

CONDITIONS = ("fog", "night", "rain", "snow")
IMAGE = "_rgb_anon"
FORMATS = {"_gt_labelIds": LABEL_IDS, "_gt_labelTrainIds": TRAIN_IDS}


def _row(name: str, title: str, *conditions: str) -> DataSet:
    branches = (
        Branch(f"rgb_anon/{one}/{{split}}", f"gt/{one}/{{split}}", f"{one}/") for one in conditions
    )
    return DataSet(name, title, Split("ACDC", fixed(*branches), FORMATS, IMAGE), home="ACDC")


ROWS = (
    _row("acdc", "ACDC", *CONDITIONS),
    *(_row(f"acdc_{one}", f"ACDC {one}", one) for one in CONDITIONS),
)
