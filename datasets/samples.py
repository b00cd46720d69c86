"""Samples and the dataset that reads and transforms them.

Images are uint8 RGB [3, H, W] from the disk to the device; labels are uint8 train ids [H, W] with
`IGNORE` for pixels without a class.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from datasets.cache import CachedPairs
from datasets.reading import SampleFiles, read_pair
from utils.errors import UserError
from utils.notes import say_once

Key = tuple[int, int]
"""(epoch, index): which sample, and which draw of its augmentation."""


class Sample(NamedTuple):
    """One image with its label; after collation a batch of them, with a leading dimension and a
    list of names."""

    image: Tensor
    label: Tensor
    name: str | list[str]


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of one forward pass of a training; `source, target = batch` unpacks them.

    Attributes:
        source: labelled samples.
        target: samples of the domain to adapt to; None for a method without one.
        generator: on the CPU, seeded by (seed, step, pass, process). A method that takes all its
            random numbers from it continues bit for bit after a stop; other processes and passes
            draw other numbers.
    """

    source: Sample
    target: Sample | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __iter__(self) -> Iterator[Sample]:
        assert self.target is not None, "a batch without a target has its source alone"
        return iter((self.source, self.target))


class SampleDataset(Dataset):
    """Images with their labels, read and transformed; a pure function of (seed, epoch, index).

    Args:
        files: the samples.
        transform: joint transform of image and label, drawing from torch's default CPU generator.
        seed: words that seed the draws, together with epoch and index.
        skips_bad: what cannot be read is replaced by the next sample that can, which is printed.

    Attributes:
        cached: the samples as the deterministic start of the transform makes them, where a cache
            has them; the transform leaves those sizes alone.
    """

    def __init__(
        self,
        files: Sequence[SampleFiles],
        transform: Callable[[tv_tensors.Image, tv_tensors.Mask], Any],
        *,
        seed: Iterable[int] = (),
        skips_bad: bool = False,
    ):
        self.files = list(files)
        self.transform = transform
        self.seed = tuple(seed)
        self.skips_bad = skips_bad
        self.cached: CachedPairs | None = None

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Iterable[int]) -> "SampleDataset":
        """Return the samples at these places, in this order, for data whose draws do not matter."""
        indices = list(indices)
        files = [self.files[i] for i in indices]
        part = SampleDataset(files, self.transform, seed=self.seed, skips_bad=self.skips_bad)
        part.cached = self.cached and self.cached.subset(indices)
        return part

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        pair = self._cached(index) or self.decoded(index)
        with _seeded((*self.seed, epoch, index)):
            image, label = self.transform(*as_tv_tensors(*pair))
        plain = torch.Tensor
        return Sample(
            image.as_subclass(plain).contiguous(),
            label.as_subclass(plain).contiguous(),
            self.files[index].name,
        )

    def label(self, index: int) -> np.ndarray:
        """Return a label, uint8 [h, w], without its transform where no cache has it whole."""
        label = None if self.cached is None else self.cached.label(index)
        return self.decoded(index)[1] if label is None else label

    def _cached(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the pair from the cache if there is one that has it whole."""
        if self.cached is None:
            return None
        pair = self.cached[index]
        if pair is None:
            folder = self.cached.images.pixels_path.parent
            say_once(f"the cache {folder} is damaged: remove it; what it lost is decoded anew")
        return pair

    def decoded(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image, uint8 [3, H, W], and its label, uint8 [H, W], from the files."""
        image, label = self._readable(index) if self.skips_bad else read_pair(self.files[index])
        return image.transpose(2, 0, 1), label

    def _readable(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first pair that can be read from this place on. Raise UserError where none
        can."""
        for place in (*range(index, len(self.files)), *range(index)):
            try:
                return read_pair(self.files[place])
            except UserError as error:
                say_once(f"skipped: {error}")
        raise UserError(f"none of {len(self.files)} samples can be read")


def as_tv_tensors(image: np.ndarray, label: np.ndarray) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Return an image, uint8 [3, H, W], and a label, uint8 [H, W], as joint transforms take
    them."""
    return tv_tensors.Image(torch.from_numpy(image)), tv_tensors.Mask(torch.from_numpy(label))


@contextlib.contextmanager
def _seeded(words: Sequence[int]) -> Iterator[None]:
    """Seed torch's default CPU generator inside the block and restore it after."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed_of(words))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def seed_of(words: Sequence[int]) -> int:
    """Return a seed of 63 bits for a generator of torch; different words give unrelated seeds."""
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return int(seed >> np.uint64(1))
