"""Segmentation scores from one confusion matrix over a whole split.

Equal to the official cityscapesScripts evaluation of predictions over its 19 classes.
"""

import numpy as np
import torch
from torch import Tensor

from datasets.labels import IGNORE, NUM_CLASSES

AT_ONCE = {"cpu": 2**18, "cuda": 2**28}
"""Pixels that are counted at a time: they stay in a core's cache; a GPU is asked once."""

LARGEST_CODE = torch.iinfo(torch.int16).max
"""Largest code of a pair of truth and prediction that is counted in 16 bits."""


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return TP / (TP + FP + FN) per class of confusion counts [..., C, C], float64 [..., C] in 0
    to 1; NaN for a class that neither truth nor prediction holds."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    union = counts.sum(-1) + counts.sum(-2) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean of `class_iou` over the classes that are not absent, float64 [...]; NaN where
    all are."""
    iou = class_iou(counts)
    present = (~np.isnan(iou)).sum(-1)
    total = np.nansum(iou, -1)
    return np.divide(total, present, out=np.full_like(total, np.nan), where=present > 0)


def picture_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean IoU of one picture, 0 to 1, over the classes in its truth or prediction; both
    are train ids [H, W]. Pixels that either ignores are left out; NaN where none is left."""
    scored = np.where(prediction == IGNORE, IGNORE, truth)
    classes = np.where(scored == IGNORE, 0, prediction)
    largest = max(classes.max(), np.where(scored == IGNORE, 0, scored).max())
    matrix = ConfusionMatrix(int(largest) + 1)
    matrix.update(torch.from_numpy(classes), torch.from_numpy(scored))
    return matrix.mean_iou()


class ConfusionMatrix:
    """Counts of (truth, prediction), int64 [C, C]; pixels whose truth is ignore are left out."""

    def __init__(self, num_classes: int = NUM_CLASSES):
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add the pixels of a prediction and its label: train ids of one shape, any integers."""
        assert prediction.shape == label.shape, (prediction.shape, label.shape)
        # Ignored pixels have rows of their own, which are cut off: cheaper than a mask.
        rows = IGNORE + 1
        counts = torch.zeros(rows * self.num_classes, dtype=torch.int64, device=label.device)
        parts = (x.flatten().split(AT_ONCE[x.device.type]) for x in (label, prediction))
        kind = torch.int16 if rows * self.num_classes <= LARGEST_CODE else torch.int32
        for truth, predicted in zip(*parts, strict=True):
            codes = truth.to(kind) * self.num_classes + predicted.to(kind)
            counts += torch.bincount(codes, minlength=len(counts))
        self.counts += counts.view(rows, -1)[: self.num_classes].cpu()

    def class_iou(self) -> np.ndarray:
        """Return TP / (TP + FP + FN) per class, float64 [C] in 0 to 1; NaN for an absent class.

        A class is absent where neither truth nor prediction holds it.
        """
        return class_iou(self.counts.double().numpy())

    def mean_iou(self) -> float:
        """Return the mean IoU over the classes that are not absent, 0 to 1; NaN where all are."""
        return float(mean_iou(self.counts.double().numpy()))

    def pixel_accuracy(self) -> float:
        """Correct over valid pixels, 0 to 1; NaN where no pixel is valid."""
        total = self.counts.sum().item()
        return self.counts.diagonal().sum().item() / total if total else float("nan")
