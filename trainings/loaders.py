"""Data sets of the two domains, and loaders whose batches are a pure function of the seed.

The number of workers changes nothing: the sampler hands out (epoch, index) keys, and a sample is a
function of its key alone. A run continues anywhere by starting the keys at its step.
"""

import contextlib
import functools
import hashlib
import itertools
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from datasets.cityscapes import cityscapes_files, cityscapes_images
from datasets.gta5 import gta5_files, left_out
from datasets.samples import Batch, Key, Sample, SampleDataset, SampleFiles
from trainings.caching import attach_cache
from trainings.stopping import held_back, ignore_interrupts
from utils.errors import UsageError, UserError
from utils.settings import Settings
from utils.transforms import Preparation, train_transform
from utils.utils import find_input

DEAD_WORKER = "DataLoader worker"
"""What torch's error begins with where one was killed."""

SKIP = "skip"
"""The `--on_bad_sample` that takes the next sample."""


class Domain(Enum):
    GTA5 = "GTA5"
    CITYSCAPES = "Cityscapes"


SOURCE_STREAM, TARGET_STREAM = 0, 1
"""Words that keep the draws of the two domains apart."""


class TrainingFiles(NamedTuple):
    """What a domain gives to a training.

    Attributes:
        origin: tells apart labels of the same names.
        problem: why nothing should be trained on them, if so.
    """

    domain: Domain
    files: list[SampleFiles]
    origin: str = ""
    problem: str | None = None


def labelled(domain: Domain, split: str, settings: Settings) -> list[SampleFiles]:
    """The files of a split, "train" or "val"."""
    if domain is Domain.CITYSCAPES:
        return cityscapes_files(find_input(settings.cityscapes_root, "cityscapes_root"), split)
    root = find_input(settings.gta5_root, "gta5_root")
    if count := left_out(root):
        _say_once(f"GTA5: {count} known bad pairs left out")
    return gta5_files(root, split, settings.gta5_val_fraction)


def unlabelled(domain: Domain, split: str, settings: Settings) -> list[SampleFiles]:
    """The images of a split; their labels are not read, and Cityscapes' need not exist."""
    if domain is Domain.CITYSCAPES:
        return cityscapes_images(find_input(settings.cityscapes_root, "cityscapes_root"), split)
    return [files._replace(label=None) for files in labelled(domain, split, settings)]


@functools.cache
def _say_once(text: str) -> None:
    print(text)


def resize_size(domain: Domain, settings: Settings) -> tuple[int, int]:
    """Size an image is resized to before it is cropped, if it is: (height, width)."""
    return settings.source_resize if domain is Domain.GTA5 else settings.image_size


def fingerprint(*parts: Sequence[SampleFiles] | str) -> str:
    """Digest of the names of all samples, and of what else is told: equal for the same data,
    wherever they lie."""
    words = [part if isinstance(part, str) else [files.name for files in part] for part in parts]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def training_samples(data: TrainingFiles, settings: Settings, stream: int) -> SampleDataset:
    size = resize_size(data.domain, settings)
    transform = train_transform(
        resize_to=size,
        crop_to=settings.image_size,
        aug_method=settings.aug_method,
        aug_probability=settings.aug_probability,
    )
    skips = settings.on_bad_sample == SKIP
    samples = SampleDataset(data.files, transform, seed=(settings.seed, stream), skips_bad=skips)
    attach_cache(samples, Preparation(size, resizes_label=True), settings, build=True)
    return samples


def validation_samples(domain: Domain, settings: Settings, *, often: bool = False) -> SampleDataset:
    """Whole images at the scale of training, labels at their own resolution; `often` is whether
    they are going to be read so often that a cache pays."""
    transform = Preparation(resize_size(domain, settings), resizes_label=False)
    samples = SampleDataset(labelled(domain, "val", settings), transform)
    attach_cache(samples, transform, settings, build=often)
    return samples


def unlabelled_samples(domain: Domain, settings: Settings) -> SampleDataset:
    """The training images as validation would see them, without labels."""
    transform = Preparation(resize_size(domain, settings), resizes_label=True)
    skips = settings.on_bad_sample == SKIP
    samples = SampleDataset(unlabelled(domain, "train", settings), transform, skips_bad=skips)
    attach_cache(samples, transform, settings, build=False)
    return samples


class TrainingData(Dataset):
    """Source samples, each paired with a target sample where there is a target.

    An epoch is one pass over the source, the last incomplete batch dropped; the target cycles with
    fresh shuffles, so runs with and without a target make the same number of updates.
    """

    def __init__(
        self,
        source: SampleDataset,
        target: SampleDataset | None = None,
        *,
        batch_size: int,
        seed: int,
    ):
        self.source, self.target = source, target
        self.batch_size, self.seed = batch_size, seed
        check_batch_size(batch_size, len(source))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.source) // self.batch_size

    def __getitem__(self, keys: tuple[Key, Key | None]) -> Batch:
        source_key, target_key = keys
        return Batch(self.source[source_key], self.target[target_key] if target_key else None)

    def keys(self, start_step: int, stop_step: int) -> Iterator[list[tuple[Key, Key | None]]]:
        """The batches of keys of the steps in that range."""
        usable = self.steps_per_epoch * self.batch_size
        source_keys = self._cycle(SOURCE_STREAM, len(self.source), usable, start_step)
        target_keys = itertools.repeat(None)
        if self.target is not None:
            target_keys = self._cycle(TARGET_STREAM, len(self.target), len(self.target), start_step)
        for _ in range(start_step, stop_step):
            yield [(next(source_keys), next(target_keys)) for _ in range(self.batch_size)]

    def _cycle(self, stream: int, size: int, usable: int, start_step: int) -> Iterator[Key]:
        """Keys from a step on: pass after pass, each the first `usable` of a fresh shuffle."""
        passed, position = divmod(start_step * self.batch_size, usable)
        while True:
            order = np.random.default_rng([self.seed, stream, passed]).permutation(size)
            yield from ((passed, int(index)) for index in order[position:usable])
            passed, position = passed + 1, 0


def check_batch_size(batch_size: int, samples: int) -> None:
    if batch_size < 2:
        raise UsageError(
            "argument --batch_size: batch norm cannot train on 1 image; it must be at least 2"
        )
    if samples < batch_size:
        raise UserError(
            f"the training split holds {samples} images, fewer than a batch of {batch_size}: add "
            "images or lower --batch_size"
        )


def training_batches(
    data: TrainingData, start_step: int, stop_step: int, *, num_workers: int, device: torch.device
) -> Iterator[Batch]:
    """The batches of the steps in that range, on the device."""
    keys = data.keys(start_step, stop_step)
    loader = _loader(data, keys, _collate_training, num_workers, device)
    for batch in _raising(loader):
        yield Batch(*(to_device(sample, device) if sample else None for sample in batch))


def validation_batches(
    samples: SampleDataset, *, batch_size: int, num_workers: int, device: torch.device
) -> Iterator[Sample]:
    """All samples in order; images stacked on the device, labels a list, for sizes may differ."""
    keys = [(0, index) for index in range(len(samples))]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    for batch in _raising(_loader(samples, batches, _collate_validation, num_workers, device)):
        yield to_device(batch, device)


def to_device(sample: Sample, device: torch.device) -> Sample:
    image, label, name = sample
    labels = label if isinstance(label, list) else [label]
    moved = [tensor.to(device, non_blocking=True) for tensor in (image, *labels)]
    return Sample(moved[0], moved[1:] if isinstance(label, list) else moved[1], name)


class _Guarded(Dataset):
    """Hands over a UserError instead of raising it: a worker would wrap it in its traceback."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


class _GuardedCollate:
    def __init__(self, collate: Callable[[Sequence], Any]):
        self.collate = collate

    def __call__(self, items: Sequence) -> Any:
        errors = [item for item in items if isinstance(item, UserError)]
        return errors[0] if errors else self.collate(items)


def _loader(
    dataset: Dataset, batches: Iterable, collate: Callable, workers: int, device: torch.device
) -> DataLoader:
    return DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_GuardedCollate(collate),
        num_workers=workers,
        worker_init_fn=ignore_interrupts,
        pin_memory=device.type == "cuda",
    )


def _raising(loader: DataLoader) -> Iterator[Any]:
    with held_back():
        batches = iter(loader)
    # torch raises the death of a worker wherever the main process is, in the middle of an update,
    # too. Asking for the next batch notices it as well.
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while (batch := _next(batches)) is not None:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _next(batches: Iterator[Any]) -> Any:
    """The next batch, None after the last. Raises UserError where a worker has died."""
    try:
        return next(batches, None)
    except RuntimeError as error:
        if DEAD_WORKER not in str(error):
            raise
        raise UserError(
            f"a process that loads data has died ({error}); the memory may have run out: lower "
            "--num_workers or --batch_size"
        ) from error


def _collate_training(items: Sequence[Batch]) -> Batch:
    sources, targets = zip(*items, strict=True)
    return Batch(
        default_collate(list(sources)),
        None if targets[0] is None else default_collate(list(targets)),
    )


def _collate_validation(items: Sequence[Sample]) -> Sample:
    images, labels, names = zip(*items, strict=True)
    return Sample(torch.stack(images), list(labels), list(names))
