"""Batches on the device: a DataLoader whose errors and dead workers become one sentence."""

import contextlib
import itertools
import operator
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from datasets.loading.pairs import TrainingData
from datasets.samples import Batch, Sample, SampleDataset
from utils.errors import UserError
from utils.signals import held_back, ignore_interrupts
from utils.transforms import resize

DEAD_WORKER = ("DataLoader worker", "Pin memory thread")
"""Beginnings of torch's error about a worker that was killed."""

SHARED_MEMORY = ("unable to allocate shared memory", "unable to write to file </torch_")
"""Words in torch's error about a worker that found no room for a batch in /dev/shm."""

ENLARGE = "enlarge it (docker run --shm-size 8g; Docker gives 64 MB) or use --num_workers 0"

SENTENCES = (UserError, OSError)
"""Errors that the main process puts into a sentence. A worker hands them over as they are, because
torch would wrap them in the worker's traceback."""

LOST_WORKER = (ConnectionError, EOFError, FileNotFoundError)
"""Errors of fetching the memory of a batch after the worker that made it is gone."""


class ScaledBatch(NamedTuple):
    """Images of one size at several scales, [N, 3, h, w] each; labels [H, W] of their own sizes."""

    images: list[Tensor]
    labels: list[Tensor]
    names: list[str]


def training_batches(
    data: TrainingData,
    start_step: int,
    stop_step: int,
    *,
    num_workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield this process's batches of the steps in that range, one a pass, on the device."""
    keys = data.own_keys(start_step, stop_step)
    most = (stop_step - start_step) * data.passes
    loader = _loader(data, keys, _collate_training, min(num_workers, most), device)
    for (source, target), generator in zip(
        _raising(loader), data.generators(start_step), strict=False
    ):
        yield Batch(to_device(source, device), target and to_device(target, device), generator)


def batches_of(
    samples: SampleDataset,
    batches: Iterable[Sequence[int]],
    *,
    num_workers: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Yield the images of the samples at these places, [N, 3, H, W], on the device; a batch ends
    where their size changes."""
    for (images,), *_ in _scaled(samples, batches, (), num_workers, device):
        yield images


def scaled_batches(
    samples: SampleDataset,
    scales: Sequence[float],
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> Iterator[ScaledBatch]:
    """Yield all samples in order, on the device, at these multiples of their size, or as they are
    where there are none; a batch ends where the images' size changes."""
    places = range(len(samples))
    batches = [places[start : start + batch_size] for start in places[::batch_size]]
    return _scaled(samples, batches, scales, num_workers, device)


def _scaled(
    samples: SampleDataset,
    batches: Iterable[Sequence[int]],
    scales: Sequence[float],
    workers: int,
    device: torch.device,
) -> Iterator[ScaledBatch]:
    keys = [[(0, place) for place in batch] for batch in batches]
    loader = _loader(samples, keys, partial(_collate_scaled, scales), workers, device)
    for images, labels, names in itertools.chain.from_iterable(_raising(loader)):
        yield ScaledBatch(_moved(images, device), _moved(labels, device), names)


def each_item(
    function: Callable[[Any], Any], items: Sequence[Any], *, num_workers: int
) -> Iterator[Any]:
    """Yield what a function makes of each item, in order; workers call it."""
    loader = DataLoader(
        _Guarded(function),
        batch_size=None,
        sampler=items,
        num_workers=_enough(num_workers, items),
        collate_fn=_as_it_is,
        worker_init_fn=ignore_interrupts,
    )
    return _raising(loader)


def _as_it_is(item: Any) -> Any:
    """Replace torch's conversion, which makes a shared tensor of every array."""
    return item


def to_device(sample: Sample, device: torch.device) -> Sample:
    """Return a sample, or a batch of them, with its tensors on the device."""
    image, label = _moved((sample.image, sample.label), device)
    return Sample(image, label, sample.name)


def _moved(tensors: Iterable[Tensor], device: torch.device) -> list[Tensor]:
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


class _Guarded(Dataset):
    """Calls a function with a key, and hands over an error of `SENTENCES` instead of raising it."""

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.function(key)
        except SENTENCES as error:
            return error


def _collate_guarded(collate: Callable[[Sequence], Any], items: Sequence) -> Any:
    errors = [item for item in items if isinstance(item, SENTENCES)]
    return errors[0] if errors else collate(items)


def _loader(
    dataset: Dataset, batches: Iterable, collate: Callable, workers: int, device: torch.device
) -> DataLoader:
    return DataLoader(
        _Guarded(dataset.__getitem__),
        batch_sampler=batches,
        collate_fn=partial(_collate_guarded, collate),
        num_workers=_enough(workers, batches),
        worker_init_fn=ignore_interrupts,
        pin_memory=device.type == "cuda",
    )


def _enough(workers: int, batches: object) -> int:
    """Return the number of processes to start: at most one a batch, where their number is known."""
    return min(workers, operator.length_hint(batches, workers))


def _raising(loader: DataLoader) -> Iterator[Any]:
    before = signal.getsignal(signal.SIGCHLD)
    with held_back():
        batches = iter(loader)
    # torch's handler raises the death of a worker wherever the main process is, in the middle of an
    # update, too. Asking for the next batch notices it as well.
    _handle_deaths(signal.SIG_DFL)
    try:
        while (batch := _next(batches)) is not None:
            if isinstance(batch, SENTENCES):
                raise batch
            yield batch
    except BaseException as error:
        # The workers end at once. Kept in the traceback of an error, they would end as garbage, and
        # torch would wait five seconds for each.
        for one in (error, error.__cause__):
            traceback.clear_frames(one.__traceback__ if one else None)
        raise
    finally:
        del batches
        _handle_deaths(before or signal.SIG_DFL)


def _handle_deaths(handler: Any) -> None:
    """Let the handler hear of children that die."""
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGCHLD, handler)


def _next(batches: Iterator[Any]) -> Any:
    """Return the next batch, None after the last. Raise UserError where a worker has died, or found
    no room in shared memory."""
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


def _collate_training(
    items: Sequence[tuple[Sample, Sample | None]],
) -> tuple[Sample, Sample | None]:
    sources, targets = zip(*items, strict=True)
    target = None if targets[0] is None else default_collate(list(targets))
    return default_collate(list(sources)), target


def _collate_scaled(scales: Sequence[float], items: Sequence[Sample]) -> list[ScaledBatch]:
    """Return batches of images of one size, in the samples' order, scaled where the samples are
    read."""
    batches = []
    for (_, height, width), group in itertools.groupby(items, key=lambda item: item.image.shape):
        images, labels, names = zip(*group, strict=True)
        stack = torch.stack(images)
        sizes = [(max(1, round(s * height)), max(1, round(s * width))) for s in scales]
        scaled = [resize(size)(stack) for size in sizes] or [stack]
        batches.append(ScaledBatch(scaled, list(labels), list(names)))
    return batches
