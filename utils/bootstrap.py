"""Paired bootstrap (Efron & Tibshirani, 1993): whether a difference of mIoU is more than the choice
of validation images.

Images are drawn with replacement, as many as there are; both methods are scored on the same draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.metrics import mean_iou

DRAWS = 1000
INTERVAL = (2.5, 97.5)  # percentiles
FEWEST_IMAGES = 10
"""From which on an interval says anything: two images can be drawn in three ways only."""


class Difference(NamedTuple):
    """mIoU of a method less that of another, -1 to 1: on all images, and the 95 % interval."""

    value: float
    low: float
    high: float
    images: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out, and there are images enough for it to mean that."""
        return self.images >= FEWEST_IMAGES and (self.low > 0 or self.high < 0)


def paired_difference(
    method: Sequence[np.ndarray], other: Sequence[np.ndarray], *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """The difference over several trainings of each, all scored on the same images.

    A training is its confusion counts [images, C, C], and has its own mIoU on a draw of images;
    the difference is that of the means over the trainings of a method.
    """
    images = len(method[0])
    assert all(len(counts) == images for counts in (*method, *other))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=draws)
    weights = np.concatenate([np.ones((1, images)), drawn])  # the first draw is the split itself
    value, *differences = _mean_over_trainings(weights, method) - _mean_over_trainings(
        weights, other
    )
    low, high = np.percentile(differences, INTERVAL)
    return Difference(float(value), float(low), float(high), images)


def _mean_over_trainings(weights: np.ndarray, trainings: Sequence[np.ndarray]) -> np.ndarray:
    """mIoU on every draw, [draws]; weights [draws, images] are how often it holds each image."""
    scores = []
    for counts in trainings:
        classes = counts.shape[-1]
        sums = weights @ counts.reshape(len(counts), -1).astype(float)
        scores.append(mean_iou(sums.reshape(-1, classes, classes)))
    return np.mean(scores, axis=0)
