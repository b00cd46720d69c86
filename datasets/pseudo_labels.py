"""Where pseudo-labels lie: <folder>/<split>/<place of the image>_pseudo_labelTrainIds.png."""

from collections.abc import Sequence
from pathlib import Path

from datasets.labels import PSEUDO_LABELS
from datasets.reading import SampleFiles
from utils.errors import UserError

ENDING = "_pseudo_labelTrainIds.png"


def pseudo_label_path(folder: Path, split: str, files: SampleFiles) -> Path:
    """Where the pseudo-label of an image lies, also before it is made."""
    return folder / split / f"{files.place}{ENDING}"


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
    return [files._replace(label=labels[files.name], kind=PSEUDO_LABELS) for files in images]
