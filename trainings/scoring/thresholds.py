"""Thresholds of pseudo-labels, a class at a time (Yang & Soatto, CVPR 2020, section 3.3).

thr_c = min(0.9, value at rank 0.66 n of the ascending probabilities of the n pixels predicted as c)
"""

import torch
from torch import Tensor

from datasets.labels import NUM_CLASSES

MAX_THRESHOLD, RANK = 0.9, 0.66
BINS = 10_000
"""Bins of a histogram of probability; in this unit MAX_THRESHOLD is a whole number."""


class ConfidenceHistogram:
    """How often each class was predicted with which probability, int64 [C, BINS + 1]."""

    def __init__(self, num_classes: int = NUM_CLASSES):
        self.counts = torch.zeros(num_classes, BINS + 1, dtype=torch.int64)

    def update(self, classes: Tensor, confidence: Tensor) -> None:
        """Add predicted classes and their probabilities in bins, integers of one shape."""
        codes = classes.long() * self.counts.shape[1] + confidence
        counts = torch.bincount(codes.flatten(), minlength=self.counts.numel())
        self.counts += counts.reshape(self.counts.shape).cpu()

    def thresholds(self) -> list[int | None]:
        """Return the smallest bin that is kept of each class; None for a class that was never
        predicted."""
        return [_threshold(counts) for counts in self.counts]

    def kept_share(self) -> list[float | None]:
        """Return the share of each class's pixels that reach the threshold, 0 to 1."""
        return [
            None if threshold is None else (counts[threshold:].sum() / counts.sum()).item()
            for counts, threshold in zip(self.counts, self.thresholds(), strict=True)
        ]


def _threshold(counts: Tensor) -> int | None:
    total = int(counts.sum())
    if total == 0:
        return None
    rank = min(round(RANK * total), total - 1)
    value = int(torch.searchsorted(counts.cumsum(0), rank, right=True))
    return min(round(MAX_THRESHOLD * BINS), value)


def confidence_bins(probability: Tensor) -> Tensor:
    """Turn probabilities of 0 to 1 into bins of 0 to BINS, int64."""
    return (probability * BINS).long().clamp(0, BINS)
