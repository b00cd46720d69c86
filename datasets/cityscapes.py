"""Cityscapes (Cordts et al., CVPR 2016), in the official layout and as the course's subset.

official: leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
          gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_{labelTrainIds,labelIds}.png
subset:   Cityspaces/images/<split>/<city>/… and Cityspaces/gtFine/<split>/<city>/…
pseudo:   <folder>/<split>/<city>/<city>_<seq>_<frame>_pseudo_labelTrainIds.png
"""

from collections.abc import Sequence
from pathlib import Path

from datasets.pairing import Found, check_partners, existing_folder
from datasets.samples import LabelKind, SampleFiles
from utils.errors import UserError

LAYOUTS = (
    ("leftImg8bit", "gtFine"),
    ("Cityspaces/images", "Cityspaces/gtFine"),
    ("images", "gtFine"),
)
IMAGE = "_leftImg8bit.png"
TRAIN_IDS = "_gtFine_labelTrainIds.png"
LABEL_IDS = "_gtFine_labelIds.png"
PSEUDO = "_pseudo_labelTrainIds.png"


def cityscapes_files(root: Path, split: str) -> list[SampleFiles]:
    """The labelled samples of a split, "train" or "val", in the order of their names.

    A label is read from labelTrainIds where present, else from labelIds.
    """
    found = _found(*_layout(root), split)
    existing_folder(found.label_folder, _remedy(split))
    check_partners(found)
    return [
        SampleFiles(name, found.images[name], found.labels[name], label_kind(found.labels[name]))
        for name in sorted(found.images)
    ]


def found_cityscapes(root: Path, split: str) -> Found:
    """The images and labels of a split, also those without a partner; there may be no labels at
    all. Raises UserError where the folder of the images is missing."""
    try:
        layout = _layout(root)
    except UserError:
        layout = _layout(root, labelled=False)
    return _found(*layout, split)


def label_kind(path: Path) -> LabelKind:
    """What a label of the data set holds, by its name."""
    return LabelKind.TRAIN_IDS if path.name.endswith(TRAIN_IDS) else LabelKind.LABEL_IDS


def cityscapes_images(root: Path, split: str) -> list[SampleFiles]:
    """The images of a split in the order of their names, without labels, which need not exist."""
    image_root, _ = _layout(root, labelled=False)
    images = _images(image_root, split)
    if not images:
        raise UserError(f"{image_root / split} holds no *{IMAGE} files: {_remedy(split)}")
    return [SampleFiles(name, images[name]) for name in sorted(images)]


def pseudo_label_path(folder: Path, split: str, files: SampleFiles) -> Path:
    """Where the pseudo-label of an image lies, also before it is made."""
    return folder / split / files.image.parent.name / f"{files.name}{PSEUDO}"


def with_pseudo_labels(
    images: Sequence[SampleFiles], folder: Path, split: str
) -> list[SampleFiles]:
    """The images with their pseudo-labels. Raises UserError for images without one."""
    labels = {files.name: pseudo_label_path(folder, split, files) for files in images}
    missing = [str(path) for path in labels.values() if not path.exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(labels)} pseudo-labels are missing, such as {missing[0]}: the "
            "command that made them makes the missing ones, --action generate_pseudo_labels"
        )
    return [files._replace(label=labels[files.name], kind=LabelKind.PSEUDO) for files in images]


def _found(image_root: Path, label_root: Path, split: str) -> Found:
    images, label_folder = _images(image_root, split), label_root / split
    label_ids = {_name(path): path for path in label_folder.glob(f"*/*{LABEL_IDS}")}
    train_ids = {_name(path): path for path in label_folder.glob(f"*/*{TRAIN_IDS}")}
    return Found(images, label_ids | train_ids, image_root / split, label_folder)


def _images(image_root: Path, split: str) -> dict[str, Path]:
    folder = existing_folder(image_root / split, _remedy(split))
    return {_name(path): path for path in folder.glob(f"*/*{IMAGE}")}


def _layout(root: Path, *, labelled: bool = True) -> tuple[Path, Path]:
    for images, labels in LAYOUTS:
        if (root / images).is_dir() and ((root / labels).is_dir() or not labelled):
            return root / images, root / labels
    known = " nor ".join(
        f"{images} with {labels}" if labelled else images for images, labels in LAYOUTS
    )
    raise UserError(
        f"{root} holds neither {known}: unpack Cityscapes there, or name its folder with "
        "--cityscapes_root"
    )


def _remedy(split: str) -> str:
    return f"unpack the {split} split of Cityscapes there"


def _name(path: Path) -> str:
    """<city>_<seq>_<frame>, which image and label share."""
    return "_".join(path.name.split("_")[:3])
