"""The order of samples: keys of batches as a pure function of the seed and the step.

The sampler hands out (epoch, index) keys, and a sample is a function of its key alone, so that the
number of workers changes nothing. A run continues anywhere by starting the keys at its step.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.loading.rare_classes import RareClasses, RareKey
from datasets.samples import Key, Sample, SampleDataset, seed_of
from utils import processes
from utils.errors import UsageError, UserError

PairKey = tuple[Key | RareKey, Key | None]
"""Keys of a source sample and its target sample."""

SOURCE_STREAM, TARGET_STREAM, METHOD_STREAM = 0, 1, 2
"""Seed words that keep the draws of the two domains and of the method apart."""


class TrainingData(Dataset):
    """Source samples, each paired with a target sample where there is a target.

    An epoch is one pass over the source, the last incomplete batch dropped; the target cycles with
    fresh shuffles, so runs with and without a target make the same number of updates.

    Args:
        batch_size: images of an update, those of all processes and passes together.
        passes: in how many equal parts, one after another, each process takes its share of them.
        rare: draws the source by its classes, in the place of the shuffles.
    """

    def __init__(
        self,
        source: SampleDataset,
        target: SampleDataset | None = None,
        *,
        batch_size: int,
        seed: int,
        passes: int = 1,
        rare: RareClasses | None = None,
    ):
        self.rare = rare
        self.source, self.target = source, target
        self.batch_size, self.seed, self.passes = batch_size, seed, passes
        check_batch_size(batch_size, passes, len(source))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.source) // self.batch_size

    def __getitem__(self, keys: PairKey) -> tuple[Sample, Sample | None]:
        source_key, target_key = keys
        target = self.target[target_key] if self.target is not None and target_key else None
        if len(source_key) == 2:
            return self.source[source_key], target
        assert self.rare is not None
        return self.rare.sample(self.source, source_key), target

    def own_keys(self, start_step: int, stop_step: int) -> Iterator[list[PairKey]]:
        """Yield this process's share of `keys`, a list for each of its passes."""
        own = self.batch_size // self.passes // processes.count()
        for batch in self.keys(start_step, stop_step):
            parts = [batch[start : start + own] for start in range(0, len(batch), own)]
            yield from processes.share(parts)

    def generators(self, start_step: int) -> Iterator[torch.Generator]:
        """Yield the generator of each batch of `own_keys`, from a step on."""
        for step in itertools.count(start_step):
            for number in range(self.passes):
                words = (self.seed, METHOD_STREAM, step, number, processes.rank())
                yield torch.Generator().manual_seed(seed_of(words))

    def drawn_classes(self, start_step: int, stop_step: int) -> dict[str, float]:
        """Return the share of each class in the draws of the steps in that range, by name; nothing
        where no class is drawn."""
        if not self.rare:
            return {}
        return self.rare.drawn(start_step * self.batch_size, stop_step * self.batch_size)

    def keys(self, start_step: int, stop_step: int) -> Iterator[list[PairKey]]:
        """Yield the batches of keys of the steps in that range, for all processes."""
        usable = self.steps_per_epoch * self.batch_size
        source_keys: Iterable[Key | RareKey] = self._cycle(
            SOURCE_STREAM, len(self.source), usable, start_step
        )
        if self.rare:
            source_keys = self.rare.keys(start_step * self.batch_size)
        target_keys: Iterable[Key | None] = itertools.repeat(None)
        if self.target is not None:
            target_keys = self._cycle(TARGET_STREAM, len(self.target), len(self.target), start_step)
        pairs = zip(source_keys, target_keys, strict=False)
        for _ in range(start_step, stop_step):
            yield list(itertools.islice(pairs, self.batch_size))

    def _cycle(self, stream: int, size: int, usable: int, start_step: int) -> Iterator[Key]:
        """Yield keys from a step on: pass after pass, each the first `usable` of a fresh
        shuffle."""
        passed, position = divmod(start_step * self.batch_size, usable)
        while True:
            order = np.random.default_rng([self.seed, stream, passed]).permutation(size)
            yield from ((passed, int(index)) for index in order[position:usable])
            passed, position = passed + 1, 0


def check_batch_size(batch_size: int, passes: int, samples: int) -> None:
    """Raise UsageError or UserError where the images of an update cannot be shared out."""
    count = processes.count()
    own, rest = divmod(batch_size // passes, count)
    if rest:
        raise UsageError(
            f"argument --batch_size: {batch_size // passes} images cannot be shared equally by "
            f"{count} processes; choose a multiple of {count}"
        )
    if own < 2:
        each = f" in each of {count} processes" if count > 1 else ""
        raise UsageError(
            f"argument --batch_size: batch norm cannot train on 1 image; it must be at least "
            f"2{each}"
        )
    if samples < batch_size:
        raise UserError(
            f"the training split holds {samples} images, fewer than a batch of {batch_size}: add "
            "images or lower --batch_size"
        )
