"""Counts of what `check_data` has read: sizes, values and pixels of each class."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from datasets.check.findings import Files, Reading, size_in_words
from datasets.labels import IGNORE, ClassTable, LabelFormat


class Tally:
    """Files of a part: how many images and labels lie there, and how many images have a size."""

    def __init__(self) -> None:
        self.images = self.labels = 0
        self.sizes: Counter[tuple[int, int]] = Counter()

    def add(self, files: Files, reading: Reading) -> None:
        self.images += files.image is not None
        self.labels += files.label is not None
        if reading.size:
            self.sizes[reading.size] += 1

    @property
    def megapixels(self) -> float:
        """Millions of pixels in all images that could be read."""
        return sum(height * width * n for (height, width), n in self.sizes.items()) / 1e6

    @property
    def proportions(self) -> Counter[str]:
        """How many images have which width by height, such as "2.00"."""
        counts: Counter[str] = Counter()
        for (height, width), count in self.sizes.items():
            counts[f"{width / height:.2f}"] += count
        return counts

    def to_json(self) -> dict[str, Any]:
        sizes = {size_in_words(size): count for size, count in self.sizes.most_common()}
        counts = {"images": self.images, "labels": self.labels}
        proportions = dict(self.proportions.most_common())
        return {
            **counts,
            "megapixels": self.megapixels,
            "sizes": sizes,
            "proportions": proportions,
        }


class Frequencies:
    """How often each class occurs in the labels of a split.

    Attributes:
        pixels: by train id, int64 [256].
        images: how many labels hold the train id, int64 [256].
        labels: how many were read.
        values: the values in those labels that have no scored pixel.
        kind: what the first label holds.
        classes: that the train ids are of.
    """

    def __init__(self, kind: LabelFormat, classes: ClassTable) -> None:
        self.kind, self.classes = kind, classes
        self.pixels, self.images = np.zeros((2, 256), np.int64)
        self.labels = 0
        self.values: set[int] = set()

    def add(self, counts: np.ndarray, values: Iterable[int]) -> None:
        """Count a label; `counts` and `values` are those of its `Reading`."""
        self.pixels += counts
        self.images += counts > 0
        self.labels += 1
        self.values.update(values)

    def share(self, train_id: int) -> float:
        """Return the share of a class among the pixels that have one, or of `IGNORE` among all;
        NaN without pixels."""
        whole = self.pixels if train_id == IGNORE else self.pixels[:IGNORE]
        return float(self.pixels[train_id] / whole.sum()) if whole.any() else float("nan")

    def to_json(self) -> dict[str, Any]:
        classes = {
            name: {
                "pixels": int(self.pixels[train_id]),
                "share_of_valid": self.share(train_id),
                "images": int(self.images[train_id]),
            }
            for train_id, name in enumerate(self.classes.names)
        }
        return {
            "labels": self.labels,
            "valid_pixels": int(self.pixels[:IGNORE].sum()),
            "ignored_pixels": int(self.pixels[IGNORE]),
            "classes": classes,
        }
