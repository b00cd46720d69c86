"""Dark Zurich (Sakaridis et al., ICCV 2019): its nights, whose training images have no labels.

rgb_anon/<split>/night/<sequence>/…_rgb_anon.png
gt/val/night/<sequence>/…_gt_labelTrainIds.png
"""

from datasets.acdc import FORMATS, IMAGE
from datasets.data_set import DataSet
from datasets.layouts import Branch, Split, fixed

NIGHT = Branch("rgb_anon/{split}/night", "gt/{split}/night")

ROW = DataSet(
    "dark_zurich",
    "Dark Zurich",
    Split("Dark Zurich", fixed(NIGHT), FORMATS, IMAGE, unlabelled=("train",)),
    home="Dark_Zurich",
)
