"""Running a training action from its data to its scores."""

import contextlib
import shutil
from collections.abc import Mapping
from typing import Any

import torch

from datasets.catalog import Domain, TrainingFiles, data_set, fingerprint, labelled
from datasets.loading.pairs import SOURCE_STREAM, TARGET_STREAM, TrainingData
from datasets.loading.sets import (
    keeps_proportions,
    training_samples,
    unlabelled_samples,
    validation_samples,
)
from datasets.samples import SampleDataset
from model.network import Network
from trainings.engine.loop import DataNames, fit
from trainings.engine.state import TrainState
from trainings.engine.tensorboard import conclude, introduce
from trainings.experiment import Experiment, build_network
from trainings.method import Method
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, TRAINING, check_enough, with_statistics_of
from trainings.scoring.record import STATISTICS, scoring_record
from trainings.scoring.score import score
from trainings.val import Evaluation, evaluate, print_scores, scored_on
from utils import processes
from utils.disk.run_folder import LATEST, PREVIOUS, SCORES, RunFolder
from utils.errors import UserError
from utils.shared_norm import synchronised
from utils.utils import (
    arithmetic,
    file_digest,
    find_input,
    resolve_device,
    resolve_precision,
    seed_everything,
    slow_precision,
)

CHECKPOINT_COPIES = 14
"""Of the weights: the latest, the one before it and the one being written hold them with up to two
moments and an average each, the best and the average lie alone, too."""

SELECTION = "best: the epoch with the highest mIoU on this same validation split"


def run_experiment(experiment: Experiment, settings: Settings) -> None:
    """Trains, or with `--validation_only True` scores on the experiment's validation split."""
    if settings.validation_only:
        score(experiment, settings)
    else:
        train(experiment, settings)


def train(experiment: Experiment, settings: Settings) -> None:
    """Train, or continue, or print the scores of a finished run.

    Raises UsageError where another run lies in the folder, or one that cannot be continued.
    """
    settings = settings.scored_plainly()
    run = own_folder(experiment, settings)
    device = resolve_device(settings.device)
    resolve_precision(settings.precision, device)  # refuses here what this device cannot do
    if note := slow_precision(settings.precision, device):
        print(note)
    source, target, inputs = _inputs(experiment, settings)
    if run.finished(settings, inputs, adaptation=experiment.method.Options.own_flags()):
        _print_finished(run)
        return
    if target and target.problem:
        raise UserError(target.problem)
    with run.alone():
        _train(experiment, settings, run, inputs, source, target)


def own_folder(experiment: Experiment, settings: Settings) -> RunFolder:
    """Where the run that these settings name lies."""
    return RunFolder(settings.save_model_path / settings.run_name(experiment.stem))


def is_trained(experiment: Experiment, settings: Settings) -> bool:
    """Whether that run has ended, on these data. Raises UsageError where another one lies there."""
    run = own_folder(experiment, settings)
    if not run.is_taken(settings):
        return False
    *_, inputs = _inputs(experiment, settings)
    return run.finished(settings, inputs, adaptation=experiment.method.Options.own_flags())


def _inputs(
    experiment: Experiment, settings: Settings
) -> tuple[TrainingFiles, TrainingFiles | None, dict[str, str | None]]:
    """Source, target, and the digests of all that the run depends on beside its settings."""
    source = TrainingFiles(experiment.source, labelled(experiment.source, "train", settings))
    target = experiment.target and experiment.target(settings)
    scored = labelled(experiment.validation, "val", settings)
    parts = (source.files, *((target.files, target.origin) if target else ()), scored)
    return source, target, {"data": fingerprint(*parts), "weights": _weights_digest(settings)}


def _train(
    experiment: Experiment,
    settings: Settings,
    run: RunFolder,
    inputs: Mapping[str, str | None],
    source: TrainingFiles,
    target: TrainingFiles | None,
) -> None:
    scored = TrainingFiles(experiment.validation, labelled(experiment.validation, "val", settings))
    seen = (source, *([target] if target else []), scored)
    if any(keeps_proportions(one, settings) for one in seen):
        inputs = {**inputs, "proportions": "kept"}
    if run.continues(settings):
        run.check_inputs(inputs)
    device = resolve_device(settings.device)
    # Weights first: a wrong file is found before a long cache is built, and building, which draws a
    # seed for its workers, cannot reach them.
    seed_everything(settings.seed)
    network = build_network(settings, continued=run.continues(settings))
    method = experiment.make_method(network, settings).to(device, memory_format=torch.channels_last)
    method = synchronised(method)
    with processes.first_ahead():  # it builds the caches, and says so
        # The smaller split first: what is wrong with its labels is found before a long cache.
        validation = validation_samples(experiment.validation, settings, often=True)
        data = TrainingData(
            training_samples(source, settings, SOURCE_STREAM),
            target and training_samples(target, settings, TARGET_STREAM),
            batch_size=settings.batch_size * settings.accumulate_steps,
            seed=settings.seed,
            passes=settings.accumulate_steps,
        )
    if run.writes:
        _check_room(run, method)
    processes.wait_for_all()  # nobody reads any more what a new run takes away
    run.begin(settings, inputs)
    if not run.continues(settings):
        introduce(run, settings, experiment.method.Options.own_flags())

    _announce(run, experiment, data, target, len(validation), method, settings)
    if "proportions" in inputs:
        size = "x".join(map(str, settings.image_size))
        print(f"pictures keep their proportions; training crops {size} of them", flush=True)

    sets = [data_set(one.domain, settings) for one in seen]
    counted = {"data_set": sets.pop(), "images": len(validation)}
    on = scored_on({"domain": experiment.validation.value, **counted})
    names = DataNames(" → ".join(sets), on)

    def validate(scored: Network) -> Evaluation:
        return evaluate(scored, validation, settings, device)

    try:
        state, last = fit(method, data, validate, run, settings, device, names=names)
        conclude(run, state.step)
    finally:
        run.close()
    record = _record(experiment, settings, data, target, last)
    if target:
        record |= _adapted(network, target.domain, validation, settings)
    _finish(run, state, record)
    processes.wait_for_all()


def _check_room(run: RunFolder, method: Method) -> None:
    """Raises UserError where the checkpoints would not fit on the disk."""
    needed = CHECKPOINT_COPIES * sum(p.numel() * p.element_size() for p in method.parameters())
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise UserError(
            f"{run.path}: checkpoints need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: "
            "make room, or name another --save_model_path"
        )


def _weights_digest(settings: Settings) -> str | None:
    """Of the file that training starts from; None where it is not there any more."""
    for name in ("load_model_path", "pretrain_path"):
        if path := getattr(settings, name):
            with contextlib.suppress(UserError):
                return file_digest(find_input(path, name))
            return None
    return "random"


def _adapted(
    network: Network, target: Domain, validation: SampleDataset, settings: Settings
) -> dict[str, Any]:
    """Scores of the last epoch's network with the target's batch-norm statistics; nothing, and a
    sentence, where there are too few images for them."""
    device = resolve_device(settings.device)
    try:
        images = unlabelled_samples(target, settings)
        check_enough(images)
    except UserError as error:  # alike in every process, unlike what may happen from here on
        print(f"not scored with {STATISTICS[TARGET]}: {error}")
        return {}
    adapted = with_statistics_of(network, images, settings, device)
    print(f"the last epoch with {STATISTICS[TARGET]}:")
    scores = evaluate(adapted, validation, settings, device).scores()
    print_scores(scores)
    return {"last_target_statistics": scores}


def _announce(
    run: RunFolder,
    experiment: Experiment,
    data: TrainingData,
    target: TrainingFiles | None,
    validated: int,
    method: Method,
    settings: Settings,
) -> None:
    device = resolve_device(settings.device)
    precision = arithmetic(settings.precision, device)

    def images(count: int, role: str, domain: Domain) -> str:
        return f"{count} {role} images ({data_set(domain, settings)})"

    of_each = [
        images(len(data.source), "training", experiment.source),
        *([images(len(data.target), "target", target.domain)] if target else []),
        images(validated, "validation", experiment.validation),
    ]
    sizes = (
        f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters"
        for name, part in method.named_children()
    )
    print(
        f"run {run.path}: {', '.join(of_each)}, "
        f"{data.steps_per_epoch} steps of {_batch(data)} an epoch, {', '.join(sizes)}, on {device} "
        f"in {precision}",
        flush=True,
    )


def _batch(data: TrainingData) -> str:
    """The images of a step, and how they are dealt out."""
    count = processes.count()
    own = data.batch_size // data.passes // count
    among = f"{count} processes x " if count > 1 else ""
    after = f"{data.passes} passes x " if data.passes > 1 else ""
    return f"{data.batch_size} images" + (f" ({among}{after}{own})" if among or after else "")


def _print_finished(run: RunFolder) -> None:
    scores = run.read_json(SCORES)
    try:
        print(f"{run.path} is finished; --overwrite trains it afresh. The last epoch scored:")
        print_scores(scores["last"])
        if average := scores.get("last_average"):
            print("with averaged weights:")
            print_scores(average)
        if adapted := scores.get("last_target_statistics"):
            print(f"with {STATISTICS[TARGET]}:")
            print_scores(adapted)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        remedy = "bring it back, or train afresh with --overwrite"
        if run.has(LATEST) or run.has(PREVIOUS):
            remedy = "remove it, and the same command writes it again"
        raise UserError(f"{run.path / SCORES} holds no scores: {remedy}") from error


def _record(
    experiment: Experiment,
    settings: Settings,
    data: TrainingData,
    target: TrainingFiles | None,
    last: Evaluation,
) -> dict[str, Any]:
    """What scores.json says beside the scores, so that a number can be traced to its making."""
    return {
        "training": {
            "source": experiment.source.value,
            "source_data_set": data_set(experiment.source, settings),
            "target": target and target.domain.value,
            "target_data_set": target and data_set(target.domain, settings),
            "images": len(data.source),
            "target_images": data.target and len(data.target),
            "steps_per_epoch": data.steps_per_epoch,
            "image_size": settings.image_size,
        },
        **scoring_record(experiment.validation, settings, last, TRAINING),
    }


def _finish(run: RunFolder, state: TrainState, record: dict[str, Any]) -> None:
    seconds = [row["train_seconds"] for row in state.history]
    timing = {"mean_epoch_seconds": sum(seconds) / state.length.epochs}
    scores = {"last": state.last, "best": state.best, "selection": SELECTION}
    if state.last_average:
        scores["last_average"] = state.last_average
    run.write_json(SCORES, {**scores, **timing, **record})
    print(
        f"mIoU last {_percent(state.last)}, best {_percent(state.best)} (epoch "
        f"{state.best['epoch']}, selected on this validation split); "
        f"{timing['mean_epoch_seconds']:.1f} s an epoch; all in {run.path}"
    )


def _percent(scores: dict[str, Any]) -> str:
    return f"{100 * scores['mIoU']:.2f} %"
