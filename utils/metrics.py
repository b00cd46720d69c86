"""Segmentation scores from one confusion matrix over a whole split.

Equal to the official cityscapesScripts evaluation of predictions over the 19 classes.
"""

import numpy as np
import torch
from torch import Tensor

from datasets.labels import IGNORE, NUM_CLASSES

AT_ONCE = {"cpu": 2**18, "cuda": 2**28}
"""Pixels that are counted at a time: they stay in a core's cache; a GPU is asked once."""


class ConfusionMatrix:
    """Counts of (truth, prediction), int64 [C, C]; pixels whose truth is ignore are left out."""

    def __init__(self, num_classes: int = NUM_CLASSES):
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Adds the pixels of a prediction and its label: train ids of one shape, any integers."""
        assert prediction.shape == label.shape, (prediction.shape, label.shape)
        # Ignored pixels have rows of their own, which are cut off: cheaper than a mask.
        rows = IGNORE + 1
        counts = torch.zeros(rows * self.num_classes, dtype=torch.int64, device=label.device)
        parts = (x.flatten().split(AT_ONCE[x.device.type]) for x in (label, prediction))
        for truth, predicted in zip(*parts, strict=True):
            codes = truth.to(torch.int16) * self.num_classes + predicted.to(torch.int16)
            counts += torch.bincount(codes, minlength=len(counts))
        self.counts += counts.view(rows, -1)[: self.num_classes].cpu()

    def class_iou(self) -> np.ndarray:
        """TP / (TP + FP + FN) per class, float64 [C] in 0 to 1; NaN for an absent class.

        A class is absent where neither truth nor prediction holds it.
        """
        counts = self.counts.double().numpy()
        hits = np.diag(counts)
        union = counts.sum(0) + counts.sum(1) - hits
        return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)

    def mean_iou(self) -> float:
        """Mean IoU over the classes that are not absent, 0 to 1; NaN where all are."""
        iou = self.class_iou()
        present = ~np.isnan(iou)
        return float(iou[present].mean()) if present.any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Correct over valid pixels, 0 to 1; NaN where no pixel is valid."""
        total = self.counts.sum().item()
        return self.counts.diagonal().sum().item() / total if total else float("nan")
