"""The pixels of each class in each label of a data set, counted once and kept with its cache."""

from functools import partial
from pathlib import Path

import numpy as np

from datasets.cache import PictureStore
from datasets.labels import IGNORE, NUM_CLASSES
from datasets.loading.batches import each_item
from datasets.samples import SampleDataset
from utils.disk.files import written_whole
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
    count = partial(_counts_of_label, samples, num_classes)
    items = each_item(count, range(len(samples)), num_workers=num_workers)
    return np.stack(list(progress(items, "classes", total=len(samples), unit="image")))


def _counts_of_label(samples: SampleDataset, num_classes: int, index: int) -> np.ndarray:
    counts = np.bincount(samples.label(index).ravel(), minlength=IGNORE + 1)
    return counts[[*range(num_classes), IGNORE]]
