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
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from datasets.cityscapes import cityscapes_files, cityscapes_images
from datasets.gta5 import gta5_files, left_out
from datasets.samples import Batch, Key, Sample, SampleDataset, SampleFiles, check_scored
from datasets.toy_city import drawn_from
from trainings.caching import attach_cache, prepared_sizes
from trainings.stopping import held_back, ignore_interrupts
from utils import processes
from utils.errors import UsageError, UserError
from utils.settings import Settings
from utils.transforms import STRETCH, Preparation, resize, train_transform
from utils.utils import find_input, worker_count

DEAD_WORKER = ("DataLoader worker", "Pin memory thread")
"""What torch's error begins with where one was killed."""

SHARED_MEMORY = ("unable to allocate shared memory", "unable to write to file </torch_")
"""What torch's error holds where a worker found no room for a batch in /dev/shm."""

ENLARGE = "enlarge it (docker run --shm-size 8g; Docker gives 64 MB) or use --num_workers 0"

LOST_WORKER = (ConnectionError, EOFError, FileNotFoundError)
"""What fetching the memory of a batch raises once the worker that made it is gone."""

SKIP = "skip"
"""The `--on_bad_sample` that takes the next sample."""


class Domain(Enum):
    GTA5 = "GTA5"
    CITYSCAPES = "Cityscapes"


STRETCHES = {Domain.GTA5: 0.15, Domain.CITYSCAPES: STRETCH}
"""Shares by which images may be stretched. FDA's protocol stretches GTA5's 1914x1052 to 1280x720 by
2 %, and Toy City's, which are twice as wide as high, by 12 %."""

SOURCE_STREAM, TARGET_STREAM = 0, 1
"""Words that keep the draws of the two domains apart."""


LOOKS = {Domain.GTA5: "synthetic look", Domain.CITYSCAPES: "real look"}
"""What Toy City draws in the place of each data set."""


class TrainingFiles(NamedTuple):
    """What a domain gives to a training.

    Attributes:
        origin: tells apart labels of the same names.
        problem: why nothing should be trained on them, if so.
        note: what is said of them where a training begins.
    """

    domain: Domain
    files: list[SampleFiles]
    origin: str = ""
    problem: str | None = None
    note: str = ""


def data_set(domain: Domain, settings: Settings) -> str:
    """Return the name of the data set in a domain's folder: the domain's, or that of Toy City."""
    flag = f"{domain.value.lower()}_root"
    seed = drawn_from(find_input(getattr(settings, flag), flag))
    if seed is None:
        return domain.value
    city = f"Toy City of seed {seed}" if seed else "Toy City"
    return f"{city}, {LOOKS[domain]}"


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
    """Size that images are resized to, or to cover: (height, width)."""
    return settings.source_resize if domain is Domain.GTA5 else settings.image_size


def preparation(domain: Domain, settings: Settings, *, resizes_label: bool) -> Preparation:
    """How the images of a domain are resized, before they are cropped, if they are."""
    return Preparation(resize_size(domain, settings), resizes_label, STRETCHES[domain])


def fingerprint(*parts: Sequence[SampleFiles] | str) -> str:
    """Digest of the names of all samples, and of what else is told: equal for the same data,
    wherever they lie."""
    words = [part if isinstance(part, str) else [files.name for files in part] for part in parts]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def training_samples(data: TrainingFiles, settings: Settings, stream: int) -> SampleDataset:
    """Raises UserError where no pixel of the labels is scored."""
    if data.note:
        print(data.note)
    skips = settings.on_bad_sample == SKIP
    check_scored(data.files, skips_bad=skips)
    prepare = preparation(data.domain, settings, resizes_label=True)
    transform = train_transform(
        prepare,
        crop_to=settings.image_size,
        aug_method=settings.aug_method,
        aug_probability=settings.aug_probability,
    )
    samples = SampleDataset(data.files, transform, seed=(settings.seed, stream), skips_bad=skips)
    _attach(samples, data.domain, prepare, settings, build=True)
    return samples


def validation_samples(domain: Domain, settings: Settings, *, often: bool = False) -> SampleDataset:
    """Whole images as `preparation` resizes them, labels at their own resolution; `often` is
    whether they are going to be read so often that a cache pays.

    With `--eval_scales` images are of their own size, too, to be scaled by `scaled_batches`.
    Raises UserError where no pixel of the labels is scored.
    """
    files = labelled(domain, "val", settings)
    check_scored(files)
    if settings.eval_scales:
        return SampleDataset(files, v2.Identity())
    transform = preparation(domain, settings, resizes_label=False)
    samples = SampleDataset(files, transform)
    _attach(samples, domain, transform, settings, build=often)
    return samples


def unlabelled_samples(domain: Domain, settings: Settings, *, whole: bool = False) -> SampleDataset:
    """The training images as validation would see them, without labels. Unless they are to be
    `whole`, those of other proportions lose what is beyond the middle, so that all stack."""
    prepare = preparation(domain, settings, resizes_label=True)
    transform = prepare if whole else v2.Compose([prepare, v2.CenterCrop(prepare.size)])
    skips = settings.on_bad_sample == SKIP
    samples = SampleDataset(unlabelled(domain, "train", settings), transform, skips_bad=skips)
    _attach(samples, domain, prepare, settings, build=False)
    return samples


def _attach(
    samples: SampleDataset,
    domain: Domain,
    prepare: Preparation,
    settings: Settings,
    *,
    build: bool,
) -> None:
    """Let the samples come from their cache, and say which are of other proportions."""
    sizes = prepared_sizes(samples.files, prepare)
    others = len(sizes) - sizes.count(prepare.size)
    if others:
        size = "x".join(map(str, prepare.size))
        _say_once(
            f"{domain.value}: {others} of {len(sizes)} pictures are not of the proportions of "
            f"{size}: they keep theirs and are scaled to cover it; training crops, scoring does not"
        )
    attach_cache(samples, prepare, sizes, settings, build=build)


class ScaledBatch(NamedTuple):
    """Images of one size at several scales, [N, 3, h, w] each; labels [H, W] of their own sizes."""

    images: list[Tensor]
    labels: list[Tensor]
    names: list[str]


class TrainingData(Dataset):
    """Source samples, each paired with a target sample where there is a target.

    An epoch is one pass over the source, the last incomplete batch dropped; the target cycles with
    fresh shuffles, so runs with and without a target make the same number of updates.

    Args:
        batch_size: images of an update, those of all processes and passes together.
        passes: in how many equal parts, one after another, each process takes its share of them.
    """

    def __init__(
        self,
        source: SampleDataset,
        target: SampleDataset | None = None,
        *,
        batch_size: int,
        seed: int,
        passes: int = 1,
    ):
        self.source, self.target = source, target
        self.batch_size, self.seed, self.passes = batch_size, seed, passes
        check_batch_size(batch_size, passes, len(source))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.source) // self.batch_size

    def __getitem__(self, keys: tuple[Key, Key | None]) -> Batch:
        source_key, target_key = keys
        return Batch(self.source[source_key], self.target[target_key] if target_key else None)

    def own_keys(self, start_step: int, stop_step: int) -> Iterator[list[tuple[Key, Key | None]]]:
        """This process's share of `keys`, a list for each of its passes."""
        own = self.batch_size // self.passes // processes.count()
        for batch in self.keys(start_step, stop_step):
            parts = [batch[start : start + own] for start in range(0, len(batch), own)]
            yield from processes.share(parts)

    def keys(self, start_step: int, stop_step: int) -> Iterator[list[tuple[Key, Key | None]]]:
        """The batches of keys of the steps in that range, whoever takes them."""
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


def check_batch_size(batch_size: int, passes: int, samples: int) -> None:
    """Raises UsageError or UserError where the images of an update cannot be dealt out."""
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


def training_batches(
    data: TrainingData,
    start_step: int,
    stop_step: int,
    *,
    num_workers: int | str,
    device: torch.device,
) -> Iterator[Batch]:
    """This process's batches of the steps in that range, one a pass, on the device."""
    keys = data.own_keys(start_step, stop_step)
    loader = _loader(data, keys, _collate_training, num_workers, device)
    for batch in _raising(loader):
        yield Batch(*(to_device(sample, device) if sample else None for sample in batch))


def batches_of(
    samples: SampleDataset,
    batches: Iterable[Sequence[int]],
    *,
    num_workers: int | str,
    device: torch.device,
) -> Iterator[Sample]:
    """Batches of the samples at these places; images of one size stacked, on the device, labels a
    list, for sizes may differ."""
    for (images,), labels, names in _scaled(samples, batches, (), num_workers, device):
        yield Sample(images, labels, names)


def scaled_batches(
    samples: SampleDataset,
    scales: Sequence[float],
    *,
    batch_size: int,
    num_workers: int | str,
    device: torch.device,
) -> Iterator[ScaledBatch]:
    """All samples in order, on the device, at these multiples of their size, or as they are where
    there are none; a batch ends where the images' size changes."""
    places = range(len(samples))
    batches = [places[start : start + batch_size] for start in places[::batch_size]]
    return _scaled(samples, batches, scales, num_workers, device)


def _scaled(
    samples: SampleDataset,
    batches: Iterable[Sequence[int]],
    scales: Sequence[float],
    workers: int | str,
    device: torch.device,
) -> Iterator[ScaledBatch]:
    keys = [[(0, place) for place in batch] for batch in batches]
    loader = _loader(samples, keys, _CollateScaled(scales), workers, device)
    for images, labels, names in itertools.chain.from_iterable(_raising(loader)):
        yield ScaledBatch(_moved(images, device), _moved(labels, device), names)


def each_item(dataset: Dataset, *, num_workers: int | str) -> Iterator[Any]:
    """The items of a dataset in order, as they are, made by workers."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=worker_count(num_workers),
        collate_fn=_as_it_is,
        worker_init_fn=ignore_interrupts,
    )
    return _raising(loader)


def _as_it_is(item: Any) -> Any:
    """In place of torch's conversion, which makes a shared tensor of every array."""
    return item


def to_device(sample: Sample, device: torch.device) -> Sample:
    image, label = _moved((sample.image, sample.label), device)
    return Sample(image, label, sample.name)


def _moved(tensors: Iterable[Tensor], device: torch.device) -> list[Tensor]:
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


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
    dataset: Dataset, batches: Iterable, collate: Callable, workers: int | str, device: torch.device
) -> DataLoader:
    return DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_GuardedCollate(collate),
        num_workers=worker_count(workers),
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
    """The next batch, None after the last. Raises UserError where a worker has died, or found no
    room in shared memory."""
    try:
        return next(batches, None)
    except (RuntimeError, *LOST_WORKER) as error:
        if any(words in str(error) for words in SHARED_MEMORY):
            raise UserError(
                f"the processes that load data have filled the shared memory, /dev/shm: {ENLARGE}"
            ) from error
        if isinstance(error, RuntimeError) and not str(error).startswith(DEAD_WORKER):
            raise
        raise UserError(
            f"a process that loads data has died ({error}); the memory may have run out: lower "
            "--num_workers or --batch_size. If it was the shared memory, /dev/shm (a bus error): "
            f"{ENLARGE}"
        ) from error


def _collate_training(items: Sequence[Batch]) -> Batch:
    sources, targets = zip(*items, strict=True)
    return Batch(
        default_collate(list(sources)),
        None if targets[0] is None else default_collate(list(targets)),
    )


class _CollateScaled:
    """Batches of images of one size, in the samples' order, scaled where the samples are read."""

    def __init__(self, scales: Sequence[float]):
        self.scales = scales

    def __call__(self, items: Sequence[Sample]) -> list[ScaledBatch]:
        groups = itertools.groupby(items, key=lambda sample: sample.image.shape)
        return [self._batch(*zip(*group, strict=True)) for _, group in groups]

    def _batch(
        self, images: Sequence[Tensor], labels: Sequence[Tensor], names: Sequence[str]
    ) -> ScaledBatch:
        stack = torch.stack(images)
        sides = stack.shape[-2:]
        sizes = [[max(1, round(scale * side)) for side in sides] for scale in self.scales]
        scaled = [resize(size)(stack) for size in sizes] or [stack]
        return ScaledBatch(scaled, list(labels), list(names))
