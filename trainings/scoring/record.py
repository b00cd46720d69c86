"""The record of a score: how it is made, written, named and found."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.catalog import (
    TrainingFiles,
    data_set,
    fingerprint,
    labelled,
    name_of,
    named_root,
    preparation,
    resize_size,
    root_of,
)
from datasets.data_set import Role
from datasets.loading.sets import keeps_proportions
from datasets.reading import SampleFiles
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.runs import SELECTS
from trainings.scoring.trained import SIZES, as_trained
from trainings.val import Evaluation, scored_on
from utils.disk.machine import git_revision, versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError
from utils.pictures.panels import panel
from utils.text import dimensions
from utils.utils import TF32, arithmetic, resolve_device

Kind = tuple[str, str]
"""`--select` and `--bn_statistics` of a score."""

STATISTICS = {
    TRAINING: "the batch-norm statistics of the training",
    TARGET: "batch-norm statistics of the scored domain's training images",
}


def at_size(role: Role, settings: Settings, files: Sequence[SampleFiles] | None = None) -> str:
    """Return in words at which size networks see whole images, by default those of the validation
    split; empty where the images' own sizes are scaled."""
    if settings.eval_scales:
        return ""
    files = labelled(role, "val", settings) if files is None else files
    kept = keeps_proportions(TrainingFiles(role, files), settings)
    rule = ", in proportion and scaled to cover it," if kept else ""
    return f" at {dimensions(resize_size(role, settings))}{rule}"


def refuse_views(settings: Settings) -> None:
    """Raise UsageError where the settings ask for several views of an image, for an action that
    takes one."""
    if settings.eval_scales or settings.eval_flip:
        raise UsageError(
            f"argument --eval_scales, --eval_flip: {settings.action} sees each image once, at "
            "--image_size; leave them out"
        )


def scoring_suffix(role: Role, settings: Settings, checkpoint: Path) -> str:
    """Return the end of a file's name for an unusual way of scoring, such as
    `_128x256_target_statistics_flip`; empty for the usual way."""
    ways = unusual_scoring(role, settings, checkpoint)
    return "".join(f"_{way}" for way in ways).replace(" ", "_")


def unusual_scoring(role: Role, settings: Settings, checkpoint: Path) -> list[str]:
    """Return what is unusual in the scoring that the settings ask for, each in a few words: a size
    other than that of the checkpoint's run, target statistics, several views."""
    ways = ["target statistics"] * (settings.bn_statistics == TARGET) + views_in_words(settings)
    if settings.eval_scales or settings.given.isdisjoint(SIZES):
        return ways
    size = resize_size(role, settings)
    usual = resize_size(role, as_trained(replace(settings, given=frozenset()), checkpoint))
    return ways if size == usual else [dimensions(size), *ways]


def views_in_words(settings: Settings) -> list[str]:
    """Return the views of an image beside the usual one, each in a few words."""
    scales = "-".join(map(str, settings.eval_scales))
    return [f"scales {scales}"] * bool(scales) + ["flip"] * settings.eval_flip


def write_scores(
    folder: Path,
    role: Role,
    record: Mapping[str, Any],
    evaluation: Evaluation,
    settings: Settings,
    *,
    suffix: str,
) -> None:
    """Write the confusion counts of every image, a picture of predictions, and the record as JSON.

    The three share one name, such as `validation_cityscapes`, the `suffix` of the checkpoints and
    that of the scoring; where scores on other data have that name, a digest of the data's folder
    follows. The name is for people: `find_scores` reads the record. The JSON, by which a step is
    done, is written last.
    """
    run = RunFolder(folder)
    suffix += scoring_suffix(role, settings, scored_checkpoints(record)[0])
    name = f"validation_{name_of(role, settings).lower().replace(' ', '_')}{suffix}"
    if _is_of_other_data(run, f"{name}.json", role, record, settings):
        name = f"{name}_{fingerprint(str(root_of(role, settings).resolve()))[:6]}"
    names, counts = np.array(list(evaluation.images)), evaluation.image_counts()
    run.write_arrays(f"{name}.npz", names=names, counts=counts)
    title = f"{run.path.name}: {name}, {scored_on(record['validation'])}"
    picture = run.save_picture(
        f"{name}.png", panel(evaluation.rows, title=title, classes=evaluation.classes)
    )
    run.write_json(f"{name}.json", record)
    print(f"scores and pictures: {picture.with_suffix('.*')}")


def _is_of_other_data(
    run: RunFolder, name: str, role: Role, record: Mapping[str, Any], settings: Settings
) -> bool:
    """Return whether a file holds scores on other images than the record's, from another folder:
    data sets of two folders may share their name."""
    before = run.read_json(name) if run.has(name) else {}
    same = before.get("validation", {}).get("fingerprint") == record["validation"]["fingerprint"]
    if same or "settings" not in before:
        return False
    of_before = type(settings).from_json(before["settings"])
    return named_root(role, of_before).resolve() != named_root(role, settings).resolve()


def scored_checkpoints(record: Mapping[str, Any]) -> list[Path]:
    """Return the checkpoint of a record of scores, or those of its ensemble; none for another
    record."""
    members = record.get("members", [record])
    found = [Path(one["checkpoint"]) for one in members if "checkpoint" in one]
    return found if "validation" in record else []


def find_scores(
    folder: Path, title: str, size: tuple[int, int]
) -> dict[Kind, tuple[Path, dict[str, Any]]]:
    """Return the file and the record of a run's or an ensemble's own scores on the data set of that
    title, by kind.

    A record tells which checkpoints it is of, and how they were scored; a field that an old record
    lacks is at its default. Scores of several views, and of other checkpoints that lie in the
    folder, are left out. Of several scores of a kind the latest at `size` counts.
    """
    found: dict[Kind, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path)):
        record = RunFolder(folder).read_json(path.name)
        validation = record.get("validation", {})
        select = _own_select(record, folder)
        plain = not (validation.get("scales") or validation.get("flip"))
        if select and plain and validation["domain"] == title:
            kind = select, record.get("bn_statistics", TRAINING)
            if kind not in found or scored_size(record) == size:
                found[kind] = path, record
    return found


def scored_size(record: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the size at which networks saw the images; empty where it is not recorded."""
    return tuple(record["validation"].get("image_size") or ())


def _own_select(record: Mapping[str, Any], folder: Path) -> str | None:
    """Return the `--select` that a record in a folder is of; None where it is no record of scores,
    or one of checkpoints that do not belong to the folder."""
    checkpoints = scored_checkpoints(record)
    if not checkpoints:
        return None
    if "members" in record:
        settings = record["settings"]
        return None if settings.get("mbt_checkpoints") else settings["select"]
    (checkpoint,) = checkpoints
    own = checkpoint.resolve().parent.name == folder.resolve().name
    return SELECTS.get(checkpoint.name) if own else None


def scoring_record(
    role: Role, settings: Settings, evaluation: Evaluation, statistics: str
) -> dict[str, Any]:
    """Return how a score was made: data, sizes, statistics, machine, versions, settings."""
    device = resolve_device(settings.device)
    precision = arithmetic(settings.precision, device)
    prepare = preparation(role, settings, resizes_label=False)
    sizes = evaluation.label_sizes
    kept = any(prepare.fitted((height, width)) != prepare.size for height, width in sizes)
    proportions = {"proportions": "kept"} if kept and not settings.eval_scales else {}
    return {
        "validation": {
            "domain": name_of(role, settings),
            "data_set": data_set(role, settings),
            "images": len(evaluation.images),
            "fingerprint": fingerprint(repr(sorted(evaluation.images))),
            "image_size": None if settings.eval_scales else resize_size(role, settings),
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
