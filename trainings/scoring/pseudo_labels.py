"""The command that makes pseudo-labels, and the labels as a training finds and checks them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.catalog import TrainingFiles, fingerprint, unlabelled
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE, USUAL
from datasets.loading.sets import unlabelled_samples
from datasets.pseudo_labels import with_pseudo_labels
from datasets.reading import SampleFiles, probabilities_path
from model.catalog import RECORDED
from model.ensemble import Ensemble
from trainings.experiment import Experiment
from trainings.options import EnsembleOptions, PseudoLabelOptions, Settings, SoftOptions
from trainings.scoring.checkpoints import load_checkpoints
from trainings.scoring.mbt import find_members
from trainings.scoring.provenance import made_with
from trainings.scoring.pseudo_label_folder import (
    PROGRESS,
    SPLIT,
    SUMMARY,
    comparable_labels,
    label_folder,
    label_folder_of,
)
from trainings.scoring.pseudo_label_making import SOFT_CLASSES, Making
from trainings.scoring.record import refuse_views
from trainings.scoring.runs import command_flags
from trainings.scoring.trained import as_trained
from trainings.train_SSL_FDA import SSLFDAOptions
from utils import processes
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.text import in_percent
from utils.utils import file_digest, find_input


def generate_pseudo_labels(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Label the target's training images with `--load_model_path`, or with the ensemble of the
    round before; continue what an earlier attempt has left."""
    refuse_views(settings)
    members, path = _teachers(fda, ssl_fda, settings)
    settings = as_trained(settings, members[0])
    samples = unlabelled_samples(Role.TARGET, settings, whole=True)
    folder = RunFolder(path)
    making = Making(
        folder,
        samples,
        _identity(members, samples.files, settings),
        settings.class_table,
    )
    with folder.alone(below=(SPLIT,)):
        finished = making.begin(overwrite=settings.overwrite)
        processes.wait_for_all()
        if finished:
            print(f"{folder.path} is finished; --overwrite makes it afresh")
        else:
            networks = load_checkpoints(
                members, Role.TARGET, settings, doing="labelled", seen=samples.files
            )
            making.run(Ensemble(networks), settings)
            processes.wait_for_all()
    _print_summary(folder)


def _teachers(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> tuple[list[Path], Path]:
    """Return the checkpoints of the networks that label, and the folder of their labels."""
    ssl_round = SSLFDAOptions.of(settings).ssl_round
    if not settings.load_model_path:
        if ssl_round < 1:
            raise UsageError(
                "argument --ssl_round: pseudo-labels are made for round 1 or a later one"
            )
        members = find_members(fda, ssl_fda, ssl_round - 1, settings)
        return members, label_folder(settings, ssl_round)
    if ssl_round != SSLFDAOptions.ssl_round:
        raise UsageError(
            "argument --ssl_round: it chooses the ensemble that labels, and --load_model_path "
            "names one teacher; give one of the two"
        )
    if EnsembleOptions.of(settings).mbt_checkpoints:
        raise UsageError(
            "argument --load_model_path: it names one teacher, --mbt_checkpoints the members of an "
            "ensemble; give one of the two"
        )
    teacher = find_input(settings.load_model_path, "load_model_path")
    return [teacher], label_folder_of(teacher, settings)


def _identity(
    members: Sequence[Path], files: Sequence[SampleFiles], settings: Settings
) -> dict[str, Any]:
    """Return all that the labels follow from."""
    return {
        **made_with(members, settings),
        "images": len(files),
        "data": fingerprint(files),
        **({"soft": SOFT_CLASSES} if SoftOptions.of(settings).soft else {}),
    }


def _print_summary(folder: RunFolder) -> None:
    summary = folder.read_json(SUMMARY)
    if "classes" in summary:
        print(f"{'class':>14}  threshold   kept")
    for name, row in summary.get("classes", {}).items():
        if row["threshold"] is None:
            print(f"{name:>14}  never predicted")
        else:
            print(f"{name:>14}  {row['threshold']:9.4f} {in_percent(row['kept_share'], 1):>5} %")
    of = f" of {summary['data_set']}" if "data_set" in summary else ""
    kind = "soft pseudo-labels" if "soft" in summary else "pseudo-labels"
    print(f"{summary['images']} {kind}{of} in {folder.path / SPLIT}", flush=True)


def self_training_target(settings: Settings) -> TrainingFiles:
    """Return the target of self-training: the training images with the pseudo-labels of the
    round."""
    ssl_round = SSLFDAOptions.of(settings).ssl_round
    if ssl_round < 1:
        raise UsageError("argument --ssl_round: self-training begins with round 1")
    remedy = f"make them with {_making(settings, {}, ssl_round)}"
    return _pseudo_labelled(settings, label_folder(settings, ssl_round), remedy, ssl_round)


def pseudo_labelled_target(settings: Settings) -> TrainingFiles:
    """Return the target of distillation: the training images with the pseudo-labels of any
    teacher."""
    remedy = f"make them with {_making(settings, {})}"
    if not PseudoLabelOptions.of(settings).pseudo_label_path:
        remedy = f"name the folder of the teacher's labels with --pseudo_label_path, or {remedy}"
    return _pseudo_labelled(settings, label_folder(settings), remedy)


def _pseudo_labelled(
    settings: Settings, path: Path, remedy: str, ssl_round: int | None = None
) -> TrainingFiles:
    """Return the training images of the target with the pseudo-labels in a folder.

    `--pseudo_label_path` may hold labels of any origin. Raise UserError, with the remedy, where
    labels are missing or unfinished. It is a problem, unless they are accepted all the same, where
    ours were made at another size or their checkpoints have changed since.
    """
    options, folder = PseudoLabelOptions.of(settings), RunFolder(path)
    foreign = options.pseudo_label_path and (folder.path / SPLIT).is_dir()
    if not folder.has(SUMMARY) and (folder.has(PROGRESS) or not foreign):
        raise UserError(f"{folder.path} holds no finished pseudo-labels (no {SUMMARY}): {remedy}")
    files = with_pseudo_labels(
        unlabelled(Role.TARGET, SPLIT, settings), folder.path, SPLIT, settings.class_table
    )
    problem = None
    if folder.has(SUMMARY):
        summary = folder.read_json(SUMMARY)
        if summary.get(CLASS_TABLE, USUAL) != settings.class_table.recorded():
            raise UserError(
                f"{folder.path} holds pseudo-labels of other classes than this training's: make "
                "them again with a network of these classes, or name theirs with --classes"
            )
        origin, problem = json.dumps(comparable_labels(summary)), _staleness(summary, settings)
    else:
        origin = _contents(files)
    if problem:
        problem = (
            f"{folder.path}: {problem}; make them again with "
            f"{_making(settings, summary, ssl_round)} --overwrite, or train on them all the same "
            "with --accept_pseudo_labels True"
        )
    easy = "; --ohem leaves soft labels as they are" if files[0].kind.soft and settings.ohem else ""
    return TrainingFiles(
        Role.TARGET,
        files,
        origin=origin,
        problem=None if options.accept_pseudo_labels else problem,
        note=f"{files[0].kind.name}: {len(files)} in {folder.path / SPLIT}{easy}",
    )


def _making(settings: Settings, summary: Mapping[str, Any], ssl_round: int | None = None) -> str:
    """Return the flags that make the labels of a training, from the teachers that the summary of
    earlier ones names, or else from the ensemble of the round before. Where there is neither, the
    words say that a teacher is to be named."""
    options, before = PseudoLabelOptions.of(settings), summary.get("settings", {})
    teachers = {
        name: before[name] for name in ("load_model_path", "mbt_checkpoints") if before.get(name)
    }
    flags = {
        "action": "generate_pseudo_labels",
        "optimizer": None if options.pseudo_label_path else settings.optimizer,
        "ssl_round": ssl_round,
        "pseudo_label_path": options.pseudo_label_path,
        **teachers,
        **({"soft": True} if before.get("soft") else {}),
        **({"image_size": settings.image_size} if summary else {}),
        # A teacher's network is recorded, and need not be this training's.
        **(dict.fromkeys(RECORDED) if teachers or not ssl_round else {}),
    }
    command = command_flags(flags, settings)
    return (
        command
        if ssl_round or teachers
        else f"{command} and the teacher's checkpoint as --load_model_path"
    )


def _contents(files: Iterable[SampleFiles]) -> str:
    """Return a digest of what the labels hold."""
    digest = hashlib.sha256()
    for one in files:
        soft = [probabilities_path(one.label_path)] if one.kind.soft else []
        for path in (one.label_path, *soft):
            digest.update(file_digest(path).encode())
    return digest.hexdigest()


def _staleness(summary: dict[str, Any], settings: Settings) -> str | None:
    """Return the reason why the labels should not be trained on; None without one."""
    size = summary.get("image_size")
    if size != list(settings.image_size):
        wanted = list(settings.image_size)
        return f"the pseudo-labels were made at --image_size {size}, this training is at {wanted}"
    for checkpoint in summary["checkpoints"]:
        path = settings.save_model_path / checkpoint["path"]
        if not path.exists():
            print(f"{path}, which made the pseudo-labels, is not there any more; they are taken")
        elif file_digest(path) != checkpoint["sha256"]:
            return f"{path} has changed since the pseudo-labels were made with it"
    return None
