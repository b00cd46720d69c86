"""The pixels of each class in each label of a data set, counted once and kept with its cache."""

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from datasets.cache import PictureStore
from datasets.labels import IGNORE, NUM_CLASSES
from datasets.loading.batches import each_item
from datasets.samples import SampleDataset
from utils.disk.files import written_whole
from utils.errors import UserError
from utils.utils import progress


def class_counts(
    samples: SampleDataset, *, num_workers: int, num_classes: int = NUM_CLASSES
) -> np.ndarray:
    """Return the pixels of each train id in each label, then of those without; int64 [n, C + 1].

    A file beside the cached labels keeps the counts, if that folder can be written.
    """
    labels = samples.cached and samples.cached.labels
    if not isinstance(labels, PictureStore):
        return _counted(samples, num_classes, num_workers=num_workers)
    path = labels.pixels_path.with_suffix(".counts")
    if (known := _read(path, labels, num_classes)) is not None:
        return known
    counts = _counted(samples, num_classes, num_workers=num_workers)
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, counts)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}): the next run counts the classes anew")
    return counts


def _read(path: Path, labels: PictureStore, num_classes: int) -> np.ndarray | None:
    """Return the counts of labels from a file; None where it is missing or damaged."""
    try:
        counts = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    shape = (labels.count, num_classes + 1)
    if counts.shape != shape or (counts.sum(1) != np.diff(labels.ends)).any():
        return None
    return counts


def _counted(samples: SampleDataset, num_classes: int, *, num_workers: int) -> np.ndarray:
    items = each_item(_Counts(samples, num_classes), num_workers=num_workers)
    return np.stack(list(progress(items, "classes", total=len(samples), unit="image")))


class _Counts(Dataset):
    """Counts a sample's classes in a worker; an item may be the UserError of a file instead."""

    def __init__(self, samples: SampleDataset, num_classes: int):
        self.samples, self.num_classes = samples, num_classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> np.ndarray | UserError:
        try:
            label = self.samples.label(index)
        except UserError as error:
            return error
        counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
        return counts[[*range(self.num_classes), IGNORE]]
