"""Rare class sampling: draw a class, then an image (Hoyer et al., DAFormer, CVPR 2022, 3.3).

f_c  = share of class c in the labelled pixels of the source
P(c) = softmax over classes of (1 - f_c) / T

The image holds more than MIN_SHARE of class c, where any does, and its augmentation is drawn anew,
up to TRIES times, until the sample keeps half of that.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from datasets.labels import CLASS_NAMES
from datasets.samples import Sample, SampleDataset

MIN_SHARE = 3000 / (1914 * 1052)
"""Share of a picture's pixels that a class must exceed: the paper's 3000 pixels of GTA5's size."""

TRIES = 10
"""How often a sample's augmentation is drawn, at most."""

KEPT = 0.5
"""Share of the least pixels of a class that the augmented sample must keep."""

RareKey = tuple[int, int, int]
"""(draw, index, class): the number of the draw in the training, the sample, the class drawn."""


class RareClasses:
    """Draws samples by their classes; each draw is a function of (seed, number of the draw).

    Args:
        counts: pixels of each train id in each label, then of those without one; int64 [n, C + 1].
        temperature: T, above 0.
        pixels: of a prepared picture, before it is cropped.
        seed: words that seed the draws.
        names: the names of the classes, in the order of their train ids.
    """

    def __init__(
        self,
        counts: np.ndarray,
        temperature: float,
        *,
        pixels: int,
        seed: tuple[int, ...],
        names: Sequence[str] = CLASS_NAMES,
    ):
        self.pixels, self.seed, self.names = pixels, seed, names
        self.shares = counts[:, :-1] / counts.sum(1, keepdims=True)
        totals = counts[:, :-1].sum(0)
        self.classes = np.flatnonzero(totals)
        logits = (1 - totals[self.classes] / totals.sum()) / temperature
        weights = np.exp(logits - logits.max())
        self.probability = weights / weights.sum()
        self.members = [self._members(number) for number in self.classes.tolist()]

    def _members(self, number: int) -> np.ndarray:
        """Return the places of the samples that a class is drawn from."""
        enough = np.flatnonzero(self.shares[:, number] > MIN_SHARE)
        return enough if enough.size else np.flatnonzero(self.shares[:, number])

    def key(self, draw: int) -> RareKey:
        """Return the sample of a draw."""
        rng = np.random.default_rng([*self.seed, draw])
        place = rng.choice(len(self.classes), p=self.probability)
        return draw, int(rng.choice(self.members[place])), int(self.classes[place])

    def keys(self, start: int) -> Iterator[RareKey]:
        """Yield the samples of all draws from a number on."""
        while True:
            yield self.key(start)
            start += 1

    def sample(self, samples: SampleDataset, key: RareKey) -> Sample:
        """Return the sample of a key, with the first augmentation that keeps enough of the class,
        or else the last one."""
        draw, index, number = key
        least = KEPT * self.pixels * min(MIN_SHARE, self.shares[index, number])
        for attempt in range(TRIES):
            sample = samples[draw * TRIES + attempt, index]
            if (sample.label == number).sum() >= least:
                break
        return sample

    def drawn(self, start: int, stop: int) -> dict[str, float]:
        """Return the share of each class in a range of draws, by name."""
        numbers = [self.key(draw)[2] for draw in range(start, stop)]
        counts = np.bincount(numbers, minlength=len(self.names))
        drawn = self.classes.tolist()
        return {self.names[number]: counts[number] / len(numbers) for number in drawn}
