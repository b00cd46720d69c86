"""Training, validation and unlabelled samples of a data set, with their transforms and caches."""

import math
from collections.abc import Sequence

from torchvision.transforms import v2

from datasets.catalog import (
    TrainingFiles,
    labelled,
    name_of,
    preparation,
    resize_size,
    unlabelled,
)
from datasets.data_set import Role
from datasets.loading.caching import attach_cache, prepared_sizes
from datasets.loading.class_counts import class_counts
from datasets.loading.rare_classes import RareClasses
from datasets.options import DataSettings
from datasets.reading import check_scored
from datasets.samples import SampleDataset
from utils.notes import say_once
from utils.text import dimensions
from utils.transforms import Preparation, Size, train_transform

SKIP = "skip"
"""The `--on_bad_sample` that takes the next sample."""

ENOUGH_FOR_STATISTICS = 8
"""Images whose batch-norm statistics were as good as those of many (docs/methods.md, AdaBN)."""


def training_samples(
    data: TrainingFiles, settings: DataSettings, stream: int, scales: Sequence[float] = ()
) -> SampleDataset:
    """Return the samples of a training. Raise UserError where no pixel of the labels is scored.

    With `scales` (see `--train_scales`) images are of their own size before they are cropped, and
    have no cache, which would be many times as large.
    """
    if data.note:
        print(data.note)
    skips = settings.on_bad_sample == SKIP
    check_scored(data.files, skips_bad=skips)
    prepare = preparation(data.role, settings, resizes_label=True)
    transform = train_transform(
        prepare,
        crop_to=settings.image_size,
        aug_method=settings.aug_method,
        aug_probability=settings.aug_probability,
        scales=scales,
    )
    samples = SampleDataset(data.files, transform, seed=(settings.seed, stream), skips_bad=skips)
    if not scales:
        _attach(samples, data.role, prepare, settings, build=True)
    return samples


def rare_classes(
    samples: SampleDataset, role: Role, settings: DataSettings, temperature: float
) -> RareClasses | None:
    """Return what draws training samples by their classes; None at temperature 0."""
    if not temperature:
        return None
    counts = class_counts(
        samples, num_workers=settings.workers, num_classes=len(settings.class_table)
    )
    pixels = math.prod(resize_size(role, settings))
    return RareClasses(
        counts,
        temperature,
        pixels=pixels,
        seed=samples.seed,
        names=settings.class_table.names,
    )


def validation_samples(role: Role, settings: DataSettings, *, often: bool = False) -> SampleDataset:
    """Return whole images as `preparation` resizes them, labels at their own resolution; `often` is
    whether they are read so often that a cache pays.

    With `--eval_scales` images are of their own size, too, to be scaled by `scaled_batches`.
    Raise UserError where no pixel of the labels is scored.
    """
    files = labelled(role, "val", settings)
    check_scored(files)
    if settings.eval_scales:
        return SampleDataset(files, v2.Identity())
    transform = preparation(role, settings, resizes_label=False)
    samples = SampleDataset(files, transform)
    _attach(samples, role, transform, settings, build=often)
    return samples


def unlabelled_samples(role: Role, settings: DataSettings, *, whole: bool = False) -> SampleDataset:
    """Return the training images as validation would see them, without labels. Unless they are to
    be `whole`, those of other proportions lose what is beyond the middle, so that all stack."""
    prepare = preparation(role, settings, resizes_label=True)
    transform = prepare if whole else v2.Compose([prepare, v2.CenterCrop(prepare.size)])
    skips = settings.on_bad_sample == SKIP
    samples = SampleDataset(unlabelled(role, "train", settings), transform, skips_bad=skips)
    _attach(samples, role, prepare, settings, build=False)
    return samples


def keeps_proportions(data: TrainingFiles, settings: DataSettings) -> bool:
    """Return whether pictures of a training keep their proportions, as its size would stretch
    them."""
    prepare = preparation(data.role, settings, resizes_label=True)
    return _of_other_proportions(prepared_sizes(data.files, prepare), prepare) > 0


def _of_other_proportions(sizes: Sequence[Size], prepare: Preparation) -> int:
    return len(sizes) - sizes.count(prepare.size)


def _attach(
    samples: SampleDataset,
    role: Role,
    prepare: Preparation,
    settings: DataSettings,
    *,
    build: bool,
) -> None:
    """Let the samples come from their cache, and say which are of other proportions."""
    sizes = prepared_sizes(samples.files, prepare)
    if others := _of_other_proportions(sizes, prepare):
        size, name = dimensions(prepare.size), name_of(role, settings)
        say_once(
            f"{name}: {others} of {len(sizes)} pictures are not of the proportions of {size}: they "
            "keep theirs and are scaled to cover it; training crops, scoring does not"
        )
    attach_cache(samples, prepare, sizes, settings, build=build)
