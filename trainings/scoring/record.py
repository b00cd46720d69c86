"""What is written of a score: its record, its files and their names."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.catalog import (
    Domain,
    TrainingFiles,
    data_set,
    fingerprint,
    labelled,
    preparation,
    resize_size,
)
from datasets.loading.sets import keeps_proportions
from datasets.reading import SampleFiles
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.trained import SIZES, as_trained
from trainings.val import Evaluation, scored_on
from utils.cli.settings import Settings
from utils.disk.machine import git_revision, versions
from utils.disk.run_folder import BEST, RunFolder
from utils.errors import UsageError
from utils.pictures.panels import panel
from utils.utils import TF32, arithmetic, resolve_device

STATISTICS = {
    TRAINING: "the batch-norm statistics of the training",
    TARGET: "batch-norm statistics of the scored domain's training images",
}


def checkpoint_scores_name(
    checkpoint: Path, folder: Path, domain: Domain, settings: Settings
) -> str:
    """What the files of a checkpoint's scores are called by in a folder: with the checkpoint's name
    unless the folder is its own and it is the best one."""
    own = checkpoint.resolve().parent
    plain = own == folder.resolve() and checkpoint.name == BEST
    extra = "" if plain else f"_{own.name}_{checkpoint.stem}"
    return scores_name(domain, settings, extra, checkpoint=checkpoint)


def at_size(domain: Domain, settings: Settings, files: Sequence[SampleFiles] | None = None) -> str:
    """Return in words at which size networks see whole images, by default those of the validation
    split; empty where the images' own sizes are scaled."""
    if settings.eval_scales:
        return ""
    files = labelled(domain, "val", settings) if files is None else files
    kept = keeps_proportions(TrainingFiles(domain, files), settings)
    rule = ", in proportion and scaled to cover it," if kept else ""
    return f" at {_in_words(resize_size(domain, settings))}{rule}"


def _in_words(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def refuse_views(settings: Settings) -> None:
    """Raises UsageError where several views of an image are asked for that this action, which is no
    scoring, does not take."""
    if settings.eval_scales or settings.eval_flip:
        raise UsageError(
            f"argument --eval_scales, --eval_flip: {settings.action} sees each image once, at "
            "--image_size; leave them out"
        )


def scores_name(
    domain: Domain, settings: Settings, extra: str = "", *, checkpoint: Path | None = None
) -> str:
    """What the files of a validation are called by, such as `validation_cityscapes`; a
    `checkpoint` that is scored tells whether the size is its usual one."""
    suffix = scoring_suffix(domain, settings, checkpoint)
    return f"validation_{domain.value.lower()}{extra}{suffix}"


def scoring_suffix(domain: Domain, settings: Settings, checkpoint: Path | None) -> str:
    """What tells the files of a way of scoring from those of the usual one, such as
    `_128x256_target_statistics_flip`."""
    ways = unusual_scoring(domain, settings, checkpoint)
    return "".join(f"_{way}" for way in ways).replace(" ", "_")


def unusual_scoring(domain: Domain, settings: Settings, checkpoint: Path | None) -> list[str]:
    """In a few words each, what is not as usual in the scoring that is asked for."""
    size = [] if checkpoint is None else _other_size(domain, settings, checkpoint)
    return [
        *size,
        *["target statistics"] * (settings.bn_statistics == TARGET),
        *views_in_words(settings),
    ]


def _other_size(domain: Domain, settings: Settings, checkpoint: Path) -> list[str]:
    """The size where the command gives another one than that of the checkpoint's run."""
    if settings.eval_scales or settings.given.isdisjoint(SIZES):
        return []
    size = resize_size(domain, settings)
    usual = resize_size(domain, as_trained(replace(settings, given=frozenset()), checkpoint))
    return [] if size == usual else [_in_words(size)]


def views_in_words(settings: Settings) -> list[str]:
    scales = "-".join(map(str, settings.eval_scales))
    return [f"scales {scales}"] * bool(scales) + ["flip"] * settings.eval_flip


def write_scores(
    run: RunFolder, name: str, record: Mapping[str, Any], evaluation: Evaluation
) -> None:
    """The confusion counts of every image as arrays, a picture of the evaluation's predictions,
    and a record as JSON, under one name; the JSON, by which a step is done, is written last."""
    names, counts = np.array(list(evaluation.images)), evaluation.image_counts()
    run.write_arrays(f"{name}.npz", names=names, counts=counts)
    title = f"{run.path.name}: {name}, {scored_on(record['validation'])}"
    picture = run.save_picture(f"{name}.png", panel(evaluation.rows, title=title))
    run.write_json(f"{name}.json", record)
    print(f"scores and pictures: {picture.with_suffix('.*')}")


def scoring_record(
    domain: Domain, settings: Settings, evaluation: Evaluation, statistics: str
) -> dict[str, Any]:
    """What traces a score to its making: data, sizes, statistics, machine, versions, settings."""
    device = resolve_device(settings.device)
    precision = arithmetic(settings.precision, device)
    prepare = preparation(domain, settings, resizes_label=False)
    kept = any(prepare.fitted(size) != prepare.size for size in evaluation.label_sizes)
    proportions = {"proportions": "kept"} if kept and not settings.eval_scales else {}
    return {
        "validation": {
            "domain": domain.value,
            "data_set": data_set(domain, settings),
            "images": len(evaluation.images),
            "fingerprint": fingerprint(repr(sorted(evaluation.images))),
            "image_size": None if settings.eval_scales else resize_size(domain, settings),
            **proportions,
            "scales": settings.eval_scales,
            "flip": settings.eval_flip,
            "label_sizes": sorted(evaluation.label_sizes),
        },
        "bn_statistics": statistics,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "tf32": precision == TF32,
        "seed": settings.seed,
        "versions": versions(),
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings.to_json(),
    }
