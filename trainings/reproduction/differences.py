"""Paired bootstrap (Efron & Tibshirani, 1993): whether a difference of mIoU is more than the choice
of validation images and of seeds.

Images are drawn with replacement, as many as there are, and so are seeds, one less than there are
(Rao & Wu, 1988: else so few of them would vary too little); both methods are scored on the same
draw.
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
    """mIoU of a method less that of another, -1 to 1: on all images, and the 95 % interval, which
    is None where the counts of each image are not known."""

    value: float
    low: float | None
    high: float | None
    images: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out, and there are images enough for it to mean that."""
        if self.low is None or self.high is None or self.images < FEWEST_IMAGES:
            return False
        return self.low > 0 or self.high < 0

    @property
    def is_gain(self) -> bool:
        """Whether the method is clearly better."""
        return self.clear and self.value > 0

    def points(self) -> str:
        """Return the difference in points of mIoU, as in "+6.5"; there is no "-0.0"."""
        return f"{round(100 * self.value, 1) + 0:+.1f}"

    def interval(self) -> str:
        """Return the 95 % interval in points; empty where it is not known."""
        if self.low is None or self.high is None:
            return ""
        return f"[{100 * self.low:+.2f}, {100 * self.high:+.2f}]"


def paired_difference(
    method: Sequence[np.ndarray], other: Sequence[np.ndarray], *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Return the difference over several trainings of each, by seed, all scored on the same images.

    A training is its confusion counts [images, C, C], and has its own mIoU on a draw of images;
    the difference is that of the means over the trainings that are drawn. Of a single one the
    interval is that of the images alone.
    """
    images, seeds = len(method[0]), len(method)
    assert len(other) == seeds
    assert all(len(counts) == images for counts in (*method, *other))
    rng = np.random.default_rng(seed)
    of_images = _all_then_drawn(rng, images, images, draws)
    of_seeds = _all_then_drawn(rng, seeds, max(1, seeds - 1), draws)
    pairs = zip(method, other, strict=True)
    by_seed = np.stack([_scores(of_images, one) - _scores(of_images, two) for one, two in pairs])
    value, *differences = (of_seeds.T * by_seed).sum(0) / of_seeds.sum(1)
    low, high = np.percentile(differences, INTERVAL)
    return Difference(float(value), float(low), float(high), images)


def _all_then_drawn(rng: np.random.Generator, count: int, at_once: int, draws: int) -> np.ndarray:
    """Return how often a draw holds each of so many, [1 + draws, count]; the first holds all of
    them."""
    drawn = rng.multinomial(at_once, np.full(count, 1 / count), size=draws)
    return np.concatenate([np.ones((1, count)), drawn])


def _scores(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mIoU of a training on every draw, [draws]; weights [draws, images]."""
    classes = counts.shape[-1]
    sums = weights @ counts.reshape(len(counts), -1).astype(float)
    return mean_iou(sums.reshape(-1, classes, classes))
