"""The command that makes pseudo-labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.catalog import fingerprint
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples
from datasets.reading import SampleFiles
from trainings.experiment import Experiment
from trainings.options import EnsembleOptions, Settings, SoftOptions
from trainings.scoring.checkpoints import load_checkpoints
from trainings.scoring.mbt import find_members
from trainings.scoring.provenance import made_with
from trainings.scoring.pseudo_label_folder import (
    SPLIT,
    SUMMARY,
    label_folder,
    label_folder_of,
)
from trainings.scoring.pseudo_label_making import SOFT_CLASSES, Making
from trainings.scoring.record import refuse_views
from trainings.scoring.trained import as_trained, with_data_of_run
from trainings.train_SSL_FDA import SSLFDAOptions
from utils import processes
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError
from utils.text import in_percent
from utils.utils import find_input


def generate_pseudo_labels(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Label the target's training images with `--load_model_path`, or with the ensemble of the
    round before; continue what an earlier attempt has left."""
    refuse_views(settings)
    members, path = _teachers(fda, ssl_fda, settings)
    settings = as_trained(settings, members[0])
    if settings.load_model_path:
        settings = with_data_of_run(settings, members[0])
    samples = unlabelled_samples(Role.TARGET, settings, whole=True)
    folder = RunFolder(path)
    identity = _identity(members, samples.files, settings)
    making = Making(folder, samples, identity, settings)
    with folder.alone(below=(SPLIT,)):
        finished = making.begin(overwrite=settings.overwrite)
        processes.wait_for_all()
        if finished:
            print(f"{folder.path} is finished; --overwrite makes it afresh")
        else:
            networks = load_checkpoints(
                members, Role.TARGET, settings, doing="labelled", seen=samples.files
            )
            making.run(networks)
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
