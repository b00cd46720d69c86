"""Cityscapes (Cordts et al., CVPR 2016), in the official layout and as the course's subset.

official: leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
          gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_{labelTrainIds,labelIds}.png
subset:   Cityspaces/images/<split>/<city>/… and Cityspaces/gtFine/<split>/<city>/…

Partners have the same path below their split, but for the ending: any name in any folder will do.
Pictures may be `.jpg` or `.PNG`, too. A label is read from labelTrainIds where present, else from
labelIds.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets.data_set import DataSet
from datasets.labels import LABEL_IDS, TRAIN_IDS
from datasets.layouts import Branch, Split
from datasets.pairing import example
from utils.errors import UserError

FOLDERS = (
    ("leftImg8bit", "gtFine"),
    ("Cityspaces/images", "Cityspaces/gtFine"),
    ("images", "gtFine"),
)
"""Folders of images and of labels; the first pair that is there counts."""

IMAGE = "_leftImg8bit"


def _folders(root: Path, labelled: bool) -> Sequence[Branch]:
    """Return the folders of images and labels, which need not exist unless they are to be
    `labelled`."""
    for images, labels in FOLDERS:
        if (root / images).is_dir() and ((root / labels).is_dir() or not labelled):
            return [Branch(f"{images}/{{split}}", f"{labels}/{{split}}")]
    for images, labels in FOLDERS if labelled else ():
        if any((root / images / split).is_dir() for split in ("train", "val")):
            raise UserError(
                f"{root} holds {images} but no {labels}: put the labels there; the validation "
                "split needs them, adaptation's training images do not"
            )
    known = " nor ".join(
        f"{images} with {labels}" if labelled else images for images, labels in FOLDERS
    )
    examples = (example(root, [images]) for images, _ in FOLDERS)
    raise UserError(
        f"{root} holds neither {known}: unpack Cityscapes there, or name its folder with "
        f"--cityscapes_root{next(filter(None, examples), '')}"
    )


ROW = DataSet(
    name="cityscapes",
    title="Cityscapes",
    layout=Split(
        "Cityscapes",
        _folders,
        {"_gtFine_labelIds": LABEL_IDS, "_gtFine_labelTrainIds": TRAIN_IDS},
        IMAGE,
    ),
    root_flag="cityscapes_root",
    look="real look",
)
