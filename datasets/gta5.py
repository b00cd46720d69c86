"""GTA5 (Richter et al., "Playing for Data", ECCV 2016): images/NNNNN.png, labels/NNNNN.png.

Labels are palette PNGs whose indices are Cityscapes label ids. Any name will do that an image and
its label share; images may be `.jpg` or `.PNG`, too.
"""

from datasets.data_set import DataSet
from datasets.labels import LABEL_IDS
from datasets.layouts import Unsplit

BAD_PAIRS = frozenset({15188, 17705, *range(20801, 20861)})
"""Frames whose image and label differ in size or content."""

STRETCH = 0.15
"""FDA's protocol stretches GTA5's 1914x1052 to 1280x720 by 2 %, and Toy City's, which are twice as
wide as high, by 12 %."""

ROW = DataSet(
    name="gta5",
    title="GTA5",
    layout=Unsplit("GTA5", "images", "labels", LABEL_IDS, "--gta5_root", BAD_PAIRS),
    root_flag="gta5_root",
    stretch=STRETCH,
    look="synthetic look",
)
