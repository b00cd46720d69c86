"""Name and find pseudo-labels: <folder>/<split>/<place of the image>_pseudo_labelTrainIds.png, and
_pseudo_probabilities.png beside it where they are soft."""

from collections.abc import Sequence
from pathlib import Path

from datasets.labels import CITYSCAPES, ClassTable
from datasets.reading import IDS_ENDING, SampleFiles, probabilities_path
from utils.errors import UserError

ENDING = f"_pseudo{IDS_ENDING}"


def pseudo_label_path(folder: Path, split: str, files: SampleFiles) -> Path:
    """Return the path of an image's pseudo-label, also before the label is made."""
    return folder / split / f"{files.place}{ENDING}"


def with_pseudo_labels(
    images: Sequence[SampleFiles], folder: Path, split: str, classes: ClassTable = CITYSCAPES
) -> list[SampleFiles]:
    """Return the images with their pseudo-labels of these classes, soft where they have
    probabilities.

    Raise UserError for images without a label, and where some have probabilities and others not.
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
    kind = classes.pseudo_labels(soft=all(soft))
    return [files._replace(label=labels[files.name], kind=kind) for files in images]
