"""Prepare a training: its data, how it is validated, and the digests of its inputs."""

import contextlib
import shutil

from datasets.catalog import TrainingFiles, data_set, fingerprint, labelled
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE
from datasets.loading.pairs import SOURCE_STREAM, TARGET_STREAM, TrainingData
from datasets.loading.sets import rare_classes, training_samples, unlabelled_samples
from trainings.engine.scorer import Scorer
from trainings.engine.target import TargetWatch
from trainings.engine.target_scores import TargetScores
from trainings.engine.validation import Validation, Watch
from trainings.experiment import Experiment
from trainings.method import Method
from trainings.options import Settings
from utils import processes
from utils.disk.run_folder import RunFolder
from utils.errors import UserError
from utils.text import in_gigabytes
from utils.utils import arithmetic, file_digest, find_input, resolve_device

CHECKPOINT_COPIES = 14
"""How many times the size of the weights a run needs on the disk.

A checkpoint to continue from holds the weights, up to two moments of the optimiser and an average:
four times. There are three of them: the latest, the one before it, and the one being written. The
best weights and the average each have a file of their own."""


def run_inputs(
    experiment: Experiment, settings: Settings
) -> tuple[TrainingFiles, TrainingFiles | None, dict[str, str | None]]:
    """Return the source, the target, and the digests of all that the run depends on beside its
    settings."""
    source = TrainingFiles(experiment.source, labelled(experiment.source, "train", settings))
    target = experiment.target and experiment.target(settings)
    scored = scored_split(experiment, settings)
    parts = [source.files, *((target.files, target.origin) if target else ())]
    parts += [scored.files] if scored else []
    digests = {"data": fingerprint(*parts), "weights": _weights_digest(settings)}
    return source, target, {CLASS_TABLE: settings.class_table.recorded(), **digests}


def scored_split(experiment: Experiment, settings: Settings) -> TrainingFiles | None:
    """Return the validation split, None where there is none with labels."""
    role = experiment.scored_role(settings)
    return role and TrainingFiles(role, labelled(role, "val", settings))


def training_data(
    source: TrainingFiles, target: TrainingFiles | None, settings: Settings, batch_size: int
) -> TrainingData:
    """Return the samples that a training draws from; `batch_size` is that of an update."""
    samples = training_samples(source, settings, SOURCE_STREAM, settings.train_scales)
    temperature = settings.rare_class_temperature
    rare = rare_classes(samples, source.role, settings, temperature)
    return TrainingData(
        samples,
        target and training_samples(target, settings, TARGET_STREAM),
        batch_size=batch_size,
        seed=settings.seed,
        passes=settings.accumulate_steps,
        rare=rare,
    )


def make_validation(
    experiment: Experiment,
    settings: Settings,
    source: TrainingFiles,
    target: TrainingFiles | None,
    scorer: Scorer,
) -> Validation:
    """Return how the run is measured: on a validation split, if there is one with labels, and by
    looking at a target that it adapts to and is not scored on, or that the command asks for."""
    watch: Watch | None = None
    asked = (target or experiment.validation is Role.SOURCE) and settings.watch_target
    if asked or (target and scorer.role is not target.role):
        watch = TargetWatch(
            unlabelled_samples(Role.TARGET, settings, whole=True),
            source.files,
            settings,
            scorer.device,
            on=data_set(Role.TARGET, settings),
        )
    if scores_target(experiment, settings):
        watch = TargetScores(settings, scorer.device)
    return Validation(scorer, selects=scorer.role is experiment.validation, watch=watch)


def scores_target(experiment: Experiment, settings: Settings) -> bool:
    """Return whether a network that is trained on the source alone is scored on the target, too."""
    return experiment.validation is Role.SOURCE and settings.score_target


def check_room(run: RunFolder, method: Method) -> None:
    """Raise UserError where the checkpoints would not fit on the disk."""
    needed = CHECKPOINT_COPIES * sum(p.numel() * p.element_size() for p in method.parameters())
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise UserError(
            f"{run.path}: checkpoints need {in_gigabytes(needed)}, {in_gigabytes(free)} are free: "
            "make room, or name another --save_model_path"
        )


def _weights_digest(settings: Settings) -> str | None:
    """Return the digest of the file that training starts from; None if the file is gone."""
    for name in ("load_model_path", "pretrain_path"):
        if path := getattr(settings, name):
            with contextlib.suppress(UserError):
                return file_digest(find_input(path, name))
            return None
    return "random"


def announce(
    run: RunFolder,
    experiment: Experiment,
    data: TrainingData,
    target: TrainingFiles | None,
    scorer: Scorer,
    method: Method,
    settings: Settings,
) -> None:
    """Print where the run is, its images, steps, parameters, device and precision."""
    device = resolve_device(settings.device)
    precision = arithmetic(settings.precision, device)

    def images(count: int, use: str, role: Role) -> str:
        return f"{count} {use} images ({data_set(role, settings)})"

    of_each = [images(len(data.source), "training", experiment.source)]
    if target and data.target is not None:
        of_each.append(images(len(data.target), "target", target.role))
    if scorer.role and scorer.samples:
        of_each.append(images(len(scorer.samples), "validation", scorer.role))
    sizes = (
        f"{name} {count / 1e6:.2f} M parameters"
        for name, part in method.named_children()
        if (count := sum(p.numel() for p in part.parameters()))
    )
    print(
        f"run {run.path}: {', '.join(of_each)}, "
        f"{data.steps_per_epoch} steps of {_batch(data)} an epoch, {', '.join(sizes)}, on {device} "
        f"in {precision}",
        flush=True,
    )


def _batch(data: TrainingData) -> str:
    """Return the images of a step, and how they are dealt out."""
    count = processes.count()
    own = data.batch_size // data.passes // count
    among = f"{count} processes x " if count > 1 else ""
    after = f"{data.passes} passes x " if data.passes > 1 else ""
    return f"{data.batch_size} images" + (f" ({among}{after}{own})" if among or after else "")
