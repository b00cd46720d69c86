"""Running a training action from its data to its scores."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from datasets.catalog import TrainingFiles, data_set, labelled
from datasets.classes import recorded_classes
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE
from datasets.loading.pairs import check_batch_size
from datasets.loading.sets import keeps_proportions
from trainings.engine.length import Length
from trainings.engine.loop import fit
from trainings.engine.preparation import (
    announce,
    check_room,
    make_validation,
    run_inputs,
    scored_split,
    scores_target,
    training_data,
)
from trainings.engine.scorer import Scorer
from trainings.engine.scores_file import UNSELECTED, finish, print_finished, training_record
from trainings.engine.state import check_settings
from trainings.engine.tensorboard import conclude, introduce
from trainings.experiment import Experiment, build_network
from trainings.options import RecipeOptions, Settings
from trainings.recipes import RECIPES, how_to_score, in_words
from trainings.scoring.score import score
from utils import processes
from utils.disk.run_folder import LAST, SELECTION, SETTINGS, RunFolder
from utils.errors import UsageError, UserError
from utils.shared_norm import synchronised
from utils.text import dimensions
from utils.utils import resolve_device, resolve_precision, seed_everything, slow_precision


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
    source, target, inputs = run_inputs(experiment, settings)
    if run.finished(settings, inputs, adaptation=experiment.own_flags(settings)):
        print_finished(run)
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
    settings = experiment.own_settings(settings)
    run = own_folder(experiment, settings)
    if not run.is_taken(settings):
        return False
    settings = _with_classes_of(run, settings)
    *_, inputs = run_inputs(experiment, settings)
    return run.finished(settings, inputs, adaptation=experiment.own_flags(settings))


def check_length(experiment: Experiment, settings: Settings, images: int) -> None:
    """Raise UsageError where the settings do not fit a training on so many labelled images."""
    batch_size = settings.batch_size * settings.accumulate_steps
    check_batch_size(batch_size, settings.accumulate_steps, images)
    length = Length.of(settings, images // batch_size)
    check_settings(experiment.method, settings, length.total_steps)


def _train(
    experiment: Experiment,
    settings: Settings,
    run: RunFolder,
    inputs: Mapping[str, str | None],
    source: TrainingFiles,
    target: TrainingFiles | None,
) -> None:
    scored = scored_split(experiment, settings)
    seen = [one for one in (source, target, scored) if one]
    if any(keeps_proportions(one, settings) for one in seen):
        inputs = {**inputs, "proportions": "kept"}
    selects = scored is not None and scored.role is experiment.validation
    if not selects:
        inputs = {**inputs, SELECTION: LAST}
    if run.continues(settings):
        run.check_inputs(inputs)
    check_length(experiment, settings, len(source.files))
    if scores_target(experiment, settings):
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
        batch_size = settings.batch_size * settings.accumulate_steps
        data = training_data(source, target, settings, batch_size)
        validation = make_validation(experiment, settings, source, target, scorer)
    if run.writes:
        check_room(run, method)
    processes.wait_for_all()  # nobody reads any more what a new run takes away
    run.begin(settings, inputs)
    if not run.continues(settings):
        introduce(run, settings, experiment.own_flags(settings))

    announce(run, experiment, data, target, scorer, method, settings)
    if "proportions" in inputs:
        size = dimensions(settings.image_size)
        print(f"pictures keep their proportions; training crops {size} of them", flush=True)

    on = " → ".join(data_set(one.role, settings) for one in (source, target) if one)
    if not selects:
        print(UNSELECTED[scorer.samples is not None], flush=True)
    try:
        state, last = fit(method, data, validation, run, settings, device, on=on)
        conclude(run, state.step)
    finally:
        run.board.close()
    record = training_record(experiment, settings, data, target, last)
    if target and selects:
        record |= scorer.target_scores(target.role, network, state.scored_average)
    finish(run, state, record, selects=selects)
    processes.wait_for_all()
