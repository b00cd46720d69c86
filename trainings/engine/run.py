"""Running a training action from its data to its scores."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from datasets.catalog import TrainingFiles, data_set, fingerprint, labelled, name_of
from datasets.classes import recorded_classes
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE
from datasets.loading.pairs import (
    SOURCE_STREAM,
    TARGET_STREAM,
    TrainingData,
    check_batch_size,
)
from datasets.loading.sets import (
    keeps_proportions,
    rare_classes,
    training_samples,
    unlabelled_samples,
)
from trainings.engine.length import Length
from trainings.engine.loop import fit
from trainings.engine.scorer import Scorer
from trainings.engine.state import TrainState, check_settings
from trainings.engine.target import TargetWatch
from trainings.engine.target_scores import TargetScores
from trainings.engine.tensorboard import conclude, introduce
from trainings.engine.validation import Validation, Watch
from trainings.experiment import Experiment, build_network
from trainings.method import Method
from trainings.options import RecipeOptions, Settings
from trainings.recipes import RECIPES, how_to_score, in_words
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.record import STATISTICS, scoring_record
from trainings.scoring.score import score
from trainings.val import Evaluation, print_scores, scored_on
from utils import processes
from utils.disk.run_folder import (
    LAST,
    LATEST,
    PREVIOUS,
    SCORES,
    SELECTION,
    SETTINGS,
    RunFolder,
)
from utils.errors import UsageError, UserError
from utils.shared_norm import synchronised
from utils.text import dimensions, in_gigabytes, in_percent
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

FURTHER_SCORES = {
    "last_average": "with averaged weights",
    "last_target_statistics": f"with {STATISTICS[TARGET]}",
    "last_average_target_statistics": f"with averaged weights and {STATISTICS[TARGET]}",
}
"""Scores of the last epoch that scores.json may hold beside the network's, with their titles."""

BEST_EPOCH = "best: the epoch with the highest mIoU on this same validation split"

UNSELECTED = {
    True: "no best epoch is kept: the target has no labels; scores are of the source's validation "
    "split",
    False: "no best epoch is kept: no validation split has labels, so nothing is scored",
}
"""Sentences about a run without a best epoch; the key says whether the run is scored at all."""


def run_experiment(experiment: Experiment, settings: Settings) -> None:
    """Train, or with `--validation_only True` score on the experiment's validation split."""
    settings = experiment.own_settings(settings)
    recipe = _check_recipe(experiment, settings)
    if recipe and settings.dry_run:
        print(in_words(recipe, settings))
    elif settings.validation_only:
        score(experiment, settings)
    else:
        train(experiment, settings)
        if line := recipe and how_to_score(recipe):
            print(line, flush=True)


def _check_recipe(experiment: Experiment, settings: Settings) -> str | None:
    """Return the `--recipe`, if there is one. Raise UsageError where it does not fit, or where a
    dry run has none."""
    name = RecipeOptions.of(settings).recipe
    if name is None:
        if settings.dry_run:
            raise UsageError(
                f"argument --dry_run: {experiment.action} prints what its --recipe sets: name one "
                f"of {', '.join(RECIPES)}, or leave --dry_run out"
            )
        return None
    if settings.config:
        raise UsageError("argument --recipe: --config is a recipe, too; give one of them")
    adapts = RECIPES[name].adapts
    if adapts != bool(experiment.target):
        purpose = "adaptation" if adapts else "supervised training"
        fitting = [other for other, one in RECIPES.items() if one.adapts != adapts]
        raise UsageError(
            f"argument --recipe: {name} is for {purpose}, which {experiment.action} is not: use "
            f"{' or '.join(fitting)} here"
        )
    return name


def train(experiment: Experiment, settings: Settings) -> None:
    """Train, or continue, or print the scores of a finished run.

    Raise UsageError where another run lies in the folder, or one that cannot be continued.
    """
    settings = settings.scored_plainly()
    run = own_folder(experiment, settings)
    settings = _with_classes_of(run, settings)
    device = resolve_device(settings.device)
    resolve_precision(settings.precision, device)  # refuses here what this device cannot do
    if note := slow_precision(settings.precision, device):
        print(note)
    for name, needed in experiment.without_effect(settings).items():
        print(f"note: {experiment.action} makes no use of --{name} without --{needed}")
    source, target, inputs = _inputs(experiment, settings)
    if run.finished(settings, inputs, adaptation=experiment.own_flags(settings)):
        _print_finished(run)
        return
    if target and target.problem:
        raise UserError(target.problem)
    with run.alone():
        _train(experiment, settings, run, inputs, source, target)


def own_folder(experiment: Experiment, settings: Settings) -> RunFolder:
    """Return the folder of the run that these settings name."""
    return RunFolder(settings.save_model_path / settings.run_name(experiment.stem))


def _with_classes_of(run: RunFolder, settings: Settings) -> Settings:
    """Return the settings with the classes of a run that is continued, unless the command names
    some."""
    if settings.classes or not run.is_taken(settings) or not run.has(SETTINGS):
        return settings
    recorded = run.read_json(SETTINGS).get(CLASS_TABLE)
    return replace(settings, class_table=recorded_classes(recorded, run.path / SETTINGS))


def is_trained(experiment: Experiment, settings: Settings) -> bool:
    """Return whether that run has ended, on these data. Raise UsageError where another one lies
    there."""
    run = own_folder(experiment, settings)
    if not run.is_taken(settings):
        return False
    settings = _with_classes_of(run, settings)
    *_, inputs = _inputs(experiment, settings)
    return run.finished(settings, inputs, adaptation=experiment.own_flags(settings))


def _inputs(
    experiment: Experiment, settings: Settings
) -> tuple[TrainingFiles, TrainingFiles | None, dict[str, str | None]]:
    """Return the source, the target, and the digests of all that the run depends on beside its
    settings."""
    source = TrainingFiles(experiment.source, labelled(experiment.source, "train", settings))
    target = experiment.target and experiment.target(settings)
    scored = _scored(experiment, settings)
    parts = [source.files, *((target.files, target.origin) if target else ())]
    parts += [scored.files] if scored else []
    digests = {"data": fingerprint(*parts), "weights": _weights_digest(settings)}
    return source, target, {CLASS_TABLE: settings.class_table.recorded(), **digests}


def _scored(experiment: Experiment, settings: Settings) -> TrainingFiles | None:
    """Return the validation split, None where there is none with labels."""
    role = experiment.scored_role(settings)
    return role and TrainingFiles(role, labelled(role, "val", settings))


def _training_data(
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


def _train(
    experiment: Experiment,
    settings: Settings,
    run: RunFolder,
    inputs: Mapping[str, str | None],
    source: TrainingFiles,
    target: TrainingFiles | None,
) -> None:
    scored = _scored(experiment, settings)
    seen = [one for one in (source, target, scored) if one]
    if any(keeps_proportions(one, settings) for one in seen):
        inputs = {**inputs, "proportions": "kept"}
    selects = scored is not None and scored.role is experiment.validation
    if not selects:
        inputs = {**inputs, SELECTION: LAST}
    if run.continues(settings):
        run.check_inputs(inputs)
    batch_size = settings.batch_size * settings.accumulate_steps
    check_batch_size(batch_size, settings.accumulate_steps, len(source.files))
    length = Length.of(settings, len(source.files) // batch_size)
    check_settings(experiment.method, settings, length.total_steps)
    if _scores_target(experiment, settings):
        labelled(Role.TARGET, "val", settings)  # raises UserError where they are missing
    device = resolve_device(settings.device)
    # Weights first: a wrong file is found before a long cache is built, and building, which draws a
    # seed for its workers, cannot reach them.
    seed_everything(settings.seed)
    network = build_network(settings, continued=run.continues(settings))
    method = experiment.make_method(network, settings).to(device)
    method = synchronised(method.to(memory_format=torch.channels_last))
    with processes.first_ahead():  # it builds the caches, and says so
        # The smaller split first: what is wrong with its labels is found before a long cache.
        scorer = Scorer(scored and scored.role, experiment.source, settings, device)
        data = _training_data(source, target, settings, batch_size)
        validation = _validation(experiment, settings, source, target, scorer)
    if run.writes:
        _check_room(run, method)
    processes.wait_for_all()  # nobody reads any more what a new run takes away
    run.begin(settings, inputs)
    if not run.continues(settings):
        introduce(run, settings, experiment.own_flags(settings))

    validated = None if scorer.samples is None else len(scorer.samples)
    _announce(run, experiment, data, target, validated, method, settings)
    if "proportions" in inputs:
        size = dimensions(settings.image_size)
        print(f"pictures keep their proportions; training crops {size} of them", flush=True)

    on = " → ".join(data_set(one.role, settings) for one in (source, target) if one)
    if not selects:
        print(UNSELECTED[validated is not None], flush=True)
    try:
        state, last = fit(method, data, validation, run, settings, device, on=on)
        conclude(run, state.step)
    finally:
        run.board.close()
    record = _record(experiment, settings, data, target, last)
    if target and selects:
        record |= scorer.target_scores(target.role, network, state.scored_average)
    _finish(run, state, record, selects=selects)
    processes.wait_for_all()


def _validation(
    experiment: Experiment,
    settings: Settings,
    source: TrainingFiles,
    target: TrainingFiles | None,
    scorer: Scorer,
) -> Validation:
    """Return how the run is measured: on a validation split, if there is one with labels, and by
    looking at a target that is not scored, or that a network of the source alone is asked to be
    scored on."""
    watch: Watch | None = None
    role, on = experiment.scored_role(settings), ""
    if role and scorer.samples:
        counted = {"data_set": data_set(role, settings), "images": len(scorer.samples)}
        on = scored_on({"domain": name_of(role, settings), **counted})
    if target and (settings.watch_target or role is not target.role):
        watch = TargetWatch(
            unlabelled_samples(target.role, settings, whole=True),
            source.files,
            settings,
            scorer.device,
            on=data_set(target.role, settings),
        )
    if _scores_target(experiment, settings):
        watch = TargetScores(settings, scorer.device)
    return Validation(scorer, on, selects=role is experiment.validation, watch=watch)


def _scores_target(experiment: Experiment, settings: Settings) -> bool:
    """Return whether a network that is trained on the source alone is scored on the target, too."""
    return experiment.validation is Role.SOURCE and settings.score_target


def _check_room(run: RunFolder, method: Method) -> None:
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


def _announce(
    run: RunFolder,
    experiment: Experiment,
    data: TrainingData,
    target: TrainingFiles | None,
    validated: int | None,
    method: Method,
    settings: Settings,
) -> None:
    device = resolve_device(settings.device)
    precision = arithmetic(settings.precision, device)

    def images(count: int, use: str, role: Role) -> str:
        return f"{count} {use} images ({data_set(role, settings)})"

    of_each = [images(len(data.source), "training", experiment.source)]
    if target and data.target is not None:
        of_each.append(images(len(data.target), "target", target.role))
    role = experiment.scored_role(settings)
    if role and validated:
        of_each.append(images(validated, "validation", role))
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


def _print_finished(run: RunFolder) -> None:
    scores = run.read_json(SCORES)
    try:
        print(f"{run.path} is finished; --overwrite trains it afresh. The last epoch scored:")
        if scores["last"] is None:
            print(scores["selection"])
        else:
            print_scores(scores["last"])
        for name, title in FURTHER_SCORES.items():
            if further := scores.get(name):
                print(f"{title}:")
                print_scores(further)
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
    last: Evaluation | None,
) -> dict[str, Any]:
    """Return the entries of scores.json that tell how its scores were made."""
    role = experiment.scored_role(settings)
    return {
        "training": {
            "source": name_of(experiment.source, settings),
            "source_data_set": data_set(experiment.source, settings),
            "target": target and name_of(target.role, settings),
            "target_data_set": target and data_set(target.role, settings),
            "images": len(data.source),
            "target_images": data.target and len(data.target),
            "steps_per_epoch": data.steps_per_epoch,
            "image_size": settings.image_size,
        },
        **(scoring_record(role, settings, last, TRAINING) if role and last else {}),
    }


def _finish(run: RunFolder, state: TrainState, record: dict[str, Any], *, selects: bool) -> None:
    seconds = [row["train_seconds"] for row in state.history]
    timing = {"mean_epoch_seconds": sum(seconds) / state.length.epochs}
    selection = BEST_EPOCH if selects else UNSELECTED[state.last is not None]
    scores = {"last": state.last, "best": state.best, "selection": selection}
    if state.last_average:
        scores["last_average"] = state.last_average
    run.write_json(SCORES, {**scores, **timing, **record})
    found = "no scores"
    if state.last:
        found = f"mIoU last {in_percent(state.last['mIoU'])} %"
        found += "" if selects else " on the source's validation split"
    if state.best:
        found += f", best {in_percent(state.best['mIoU'])} % (epoch {state.best['epoch']}, "
        found += "selected on this validation split)"
    print(f"{found}; {timing['mean_epoch_seconds']:.1f} s an epoch; all in {run.path}")
