"""The labels that a training on pseudo-labels finds and checks."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets.catalog import TrainingFiles, unlabelled
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE, USUAL
from datasets.pseudo_labels import with_pseudo_labels
from datasets.reading import SampleFiles, probabilities_path
from model.catalog import RECORDED
from trainings.options import PseudoLabelOptions, Settings
from trainings.scoring.provenance import makers
from trainings.scoring.pseudo_label_folder import (
    PROGRESS,
    SPLIT,
    SUMMARY,
    comparable_labels,
    label_folder,
)
from trainings.scoring.runs import command_flags
from trainings.train_SSL_FDA import SSLFDAOptions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.utils import file_digest


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
    problem, made_with = None, ""
    if folder.has(SUMMARY):
        summary = folder.read_json(SUMMARY)
        made_with = f", made with {makers(summary)}"
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
        note=f"{files[0].kind.name}: {len(files)} in {folder.path / SPLIT}{made_with}{easy}",
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
