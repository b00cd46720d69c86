"""Cityscapes (Cordts et al., CVPR 2016), in the official layout and as the course's subset.

official: leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
          gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_{labelTrainIds,labelIds}.png
subset:   Cityspaces/images/<split>/<city>/… and Cityspaces/gtFine/<split>/<city>/…
pseudo:   <folder>/<split>/<city>/<city>_<seq>_<frame>_pseudo_labelTrainIds.png
          soft ones with <city>_<seq>_<frame>_pseudo_probabilities.png beside it

Partners have the same path below their split, but for the ending: any name in any folder will do.
Pictures may be `.jpg` or `.PNG`, too.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.pairing import (
    Found,
    by_name,
    check_doubled,
    check_partners,
    existing_folder,
    is_named,
    listing,
    not_taken,
    otherwise_named,
)
from datasets.reading import LabelKind, SampleFiles, probabilities_path, say_once
from utils.errors import UserError

LAYOUTS = (
    ("leftImg8bit", "gtFine"),
    ("Cityspaces/images", "Cityspaces/gtFine"),
    ("images", "gtFine"),
)
IMAGE = "_leftImg8bit"
TRAIN_IDS = "_gtFine_labelTrainIds"
LABEL_IDS = "_gtFine_labelIds"
PSEUDO = "_pseudo_labelTrainIds.png"


def cityscapes_files(root: Path, split: str) -> list[SampleFiles]:
    """The labelled samples of a split, "train" or "val", in the order of their names.

    A label is read from labelTrainIds where present, else from labelIds.
    """
    found = _found(*_layout(root), split)
    existing_folder(found.label_folder, _label_remedy(split))
    _check_images(found, split)
    check_partners(found)
    return [
        one._replace(label=found.labels[one.place], kind=label_kind(found.labels[one.place]))
        for one in _samples(found)
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
    return LabelKind.TRAIN_IDS if is_named(path, TRAIN_IDS) else LabelKind.LABEL_IDS


def cityscapes_images(root: Path, split: str) -> list[SampleFiles]:
    """The images of a split in the order of their names, without labels, which need not exist."""
    image_root, label_root = _layout(root, labelled=False)
    found = _found_images(image_root, label_root, split)
    _check_images(found, split)
    check_doubled(found)
    return _samples(found)


def pseudo_label_path(folder: Path, split: str, files: SampleFiles) -> Path:
    """Where the pseudo-label of an image lies, also before it is made."""
    return folder / split / f"{files.place}{PSEUDO}"


def with_pseudo_labels(
    images: Sequence[SampleFiles], folder: Path, split: str
) -> list[SampleFiles]:
    """The images with their pseudo-labels, soft where they have probabilities.

    Raises UserError for images without a label, and where some have probabilities and others not.
    """
    labels = {files.name: pseudo_label_path(folder, split, files) for files in images}
    missing = [str(path) for path in labels.values() if not path.exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(labels)} pseudo-labels are missing, such as {missing[0]}: the "
            "command that made them makes the missing ones, --action generate_pseudo_labels"
        )
    soft = [probabilities_path(path).exists() for path in labels.values()]
    if any(soft) and not all(soft):
        hard = probabilities_path(list(labels.values())[soft.index(False)])
        raise UserError(
            f"{folder}: {sum(soft)} of {len(soft)} pseudo-labels have probabilities, others not: "
            f"{hard.name} is missing; make the missing ones, or remove the others"
        )
    kind = LabelKind.SOFT if all(soft) else LabelKind.PSEUDO
    return [files._replace(label=labels[files.name], kind=kind) for files in images]


def _check_images(found: Found, split: str) -> None:
    if not found.images:
        raise UserError(no_images(found.image_folder, split))


def no_images(folder: Path, split: str) -> str:
    """Say that a split's folder holds no image, or how many pictures only lack the ending."""
    if others := otherwise_named(listing(folder, deep=True), IMAGE):
        first = others[0]
        pictures = "1 picture there is" if len(others) == 1 else f"{len(others)} pictures there are"
        return (
            f"{folder}: {pictures} not named *{IMAGE}.png or .jpg, such as {first.name}: rename "
            f"them, for example to {first.stem}{IMAGE}{first.suffix}"
        )
    return f"{folder} holds no *{IMAGE}.png files: {_remedy(split)}"


def _samples(found: Found) -> list[SampleFiles]:
    """The images in the order of their names; says what is left out."""
    for sentence in found.left_out:
        say_once(sentence)
    samples = [
        SampleFiles(name, found.images[place], place=place)
        for place, name in _short_names(found.images).items()
    ]
    return sorted(samples, key=lambda one: one.name)


def _short_names(places: Iterable[str]) -> dict[str, str]:
    """The names of samples by their paths below the split: without the city, which official names
    begin with, unless several cities have a sample of that name."""
    short = {place: place.rpartition("/")[2] for place in places}
    counts = Counter(short.values())
    return {place: name if counts[name] == 1 else place for place, name in short.items()}


def _found(image_root: Path, label_root: Path, split: str) -> Found:
    found = _found_images(image_root, label_root, split)
    if not found.label_folder.is_dir():
        return found
    listed = listing(found.label_folder, deep=True)
    (label_ids, doubled_ids), (train_ids, doubled_train_ids) = (
        by_name(listed.paths, found.label_folder, ending) for ending in (LABEL_IDS, TRAIN_IDS)
    )
    return found._replace(
        labels=label_ids | train_ids,
        doubled=[*found.doubled, *doubled_ids, *doubled_train_ids],
        left_out=[*found.left_out, *not_taken(listed)],
    )


def _found_images(image_root: Path, label_root: Path, split: str) -> Found:
    folder = existing_folder(image_root / split, _remedy(split))
    listed = listing(folder, deep=True)
    images, doubled = by_name(listed.paths, folder, IMAGE)
    return Found(images, {}, folder, label_root / split, doubled, not_taken(listed, IMAGE))


def _layout(root: Path, *, labelled: bool = True) -> tuple[Path, Path]:
    for images, labels in LAYOUTS:
        if (root / images).is_dir() and ((root / labels).is_dir() or not labelled):
            return root / images, root / labels
    for images, labels in LAYOUTS if labelled else ():
        if any((root / images / split).is_dir() for split in ("train", "val")):
            raise UserError(
                f"{root} holds {images} but no {labels}: put the labels there; the validation "
                "split needs them, adaptation's training images do not"
            )
    known = " nor ".join(
        f"{images} with {labels}" if labelled else images for images, labels in LAYOUTS
    )
    raise UserError(
        f"{root} holds neither {known}: unpack Cityscapes there, or name its folder with "
        "--cityscapes_root"
    )


def _label_remedy(split: str) -> str:
    needs = "the validation split needs labels" if split == "val" else "supervised training does"
    return f"unpack the labels of the {split} split of Cityscapes there; {needs}"


def _remedy(split: str) -> str:
    return f"unpack the {split} split of Cityscapes there"
