"""Cityscapes (Cordts et al., CVPR 2016), in the official layout and as the course's subset.

official: leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
          gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_{labelTrainIds,labelIds}.png
subset:   Cityspaces/images/<split>/<city>/… and Cityspaces/gtFine/<split>/<city>/…
"""

from pathlib import Path

from datasets.pairing import check_partners, existing_folder
from datasets.samples import LabelledImage
from utils.errors import UserError

LAYOUTS = (
    ("leftImg8bit", "gtFine"),
    ("Cityspaces/images", "Cityspaces/gtFine"),
    ("images", "gtFine"),
)
TRAIN_IDS = "_gtFine_labelTrainIds.png"
LABEL_IDS = "_gtFine_labelIds.png"


def cityscapes_files(root: Path, split: str) -> list[LabelledImage]:
    """The samples of a split, "train" or "val", in the order of their names.

    A label is read from labelTrainIds where present, else from labelIds.
    """
    image_root, label_root = _layout(root)
    image_folder = existing_folder(image_root / split, _remedy(split))
    label_folder = existing_folder(label_root / split, _remedy(split))
    images = {_name(path): path for path in image_folder.glob("*/*_leftImg8bit.png")}
    label_ids = {_name(path): path for path in label_folder.glob(f"*/*{LABEL_IDS}")}
    train_ids = {_name(path): path for path in label_folder.glob(f"*/*{TRAIN_IDS}")}
    labels = label_ids | train_ids
    check_partners(images, labels, image_folder, label_folder)
    return [
        LabelledImage(name, images[name], labels[name], label_holds_train_ids=name in train_ids)
        for name in sorted(images)
    ]


def _layout(root: Path) -> tuple[Path, Path]:
    for images, labels in LAYOUTS:
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images, root / labels
    known = " nor ".join(f"{images} with {labels}" for images, labels in LAYOUTS)
    raise UserError(
        f"{root} holds neither {known}: unpack Cityscapes there, or name its folder with "
        "--cityscapes_root"
    )


def _remedy(split: str) -> str:
    return f"unpack the {split} split of Cityscapes there"


def _name(path: Path) -> str:
    """<city>_<seq>_<frame>, which image and label share."""
    return "_".join(path.name.split("_")[:3])
