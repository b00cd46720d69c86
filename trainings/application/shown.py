"""The networks that `visualize` shows: those that the command names, or every run of its pair."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.catalog import name_of, recorded_title
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE, USUAL
from trainings.application.options import PictureOptions
from trainings.experiment import Experiment
from trainings.options import EnsembleOptions, Settings
from trainings.scoring.mbt import find_members
from trainings.scoring.predictors import Predictor
from trainings.scoring.runs import ALIKE, find_runs, selected, unlike
from trainings.scoring.trained import as_trained
from utils.disk.run_folder import BEST
from utils.errors import UserError
from utils.utils import find_input

ENSEMBLE = "MBT"

Runs = Mapping[Path, Mapping[str, Any]]
"""The settings of runs by their folders."""


def named_predictors(settings: Settings) -> list[Predictor]:
    """Return the predictors that the command names: one checkpoint, several checkpoints to
    compare, or the members of an ensemble."""
    named = [find_input(path, "compare") for path in PictureOptions.of(settings).compare]
    if settings.load_model_path:
        named.insert(0, find_input(settings.load_model_path, "load_model_path"))
    predictors = [single(path) for path in named]
    if len({predictor.title for predictor in predictors}) < len(predictors):
        predictors = [Predictor(str(path), (path,)) for path in named]
    if ensemble := EnsembleOptions.of(settings).mbt_checkpoints:
        members = [find_input(path, "mbt_checkpoints") for path in ensemble]
        predictors.append(Predictor(ENSEMBLE, tuple(members)))
    return predictors


def single(checkpoint: Path) -> Predictor:
    """Return a network under its run's name, with the file's where that is not the best one."""
    run = checkpoint.resolve().parent.name
    return Predictor(run if checkpoint.name == BEST else f"{run}/{checkpoint.stem}", (checkpoint,))


def runs_to_show(supervised: Sequence[Experiment], settings: Settings) -> Runs:
    """Return the runs under `--save_model_path` whose data are the source and target of the
    settings, by their folders.

    They are of the optimiser and the network of the settings; where there are none and the command
    names neither, of any. A run of one of the `supervised` experiments has only the data that it
    trains and validates on. Raise UserError where there are no such runs.
    """
    roles = {one.action: one.roles for one in supervised}
    pair = {role: name_of(role, settings) for role in Role}

    def is_of_pair(run: Mapping[str, Any]) -> bool:
        own = roles.get(run["action"], list(Role))
        return all(recorded_title(role, run) == pair[role] for role in own)

    found = find_runs(settings, {})
    runs = {folder: run for folder, run in found.items() if is_of_pair(run)}
    others = find_runs(settings, {}, alike=False)
    unlike_ones = {folder: run for folder, run in others.items() if is_of_pair(run)}
    if not runs and settings.given.isdisjoint(ALIKE):
        runs = unlike_ones
    if not runs:
        raise _no_runs(unlike_ones, others, settings)
    if left_out := [folder.name for folder in found if folder not in runs]:
        print(f"left out, because they are of another source or target: {', '.join(left_out)}")
    return runs


def _no_runs(unlike_ones: Runs, others: Runs, settings: Settings) -> UserError:
    """Return the error where no run is of the settings' pair and network: it names the runs of the
    pair with other networks, or else those of other pairs."""
    source, target = (name_of(role, settings) for role in Role)
    missing = f"no run of --optimizer {settings.optimizer} and this network"
    remedy = "train one"
    if unlike_ones:
        remedy = "give the flags of one of them"
    elif others:
        missing = f"no run from {source} to {target}"
        remedy = f"name the pair of one that is there ({_pairs(others)}) with --source and --target"
    return UserError(
        f"{missing} in {settings.save_model_path}{unlike(settings, unlike_ones)}: {remedy}, or "
        "name a checkpoint with --load_model_path"
    )


def _pairs(runs: Runs) -> str:
    titles = (" to ".join(recorded_title(role, run) for role in Role) for run in runs.values())
    return ", ".join(dict.fromkeys(titles))


def at_a_size(runs: Runs, settings: Settings) -> Settings:
    """Return the settings with the size at which all the runs were trained, where they share one
    and the command gives none."""
    if len({tuple(run["image_size"]) for run in runs.values()}) != 1:
        return settings
    folder = next(iter(runs))
    return as_trained(settings, folder / selected(settings, folder))


def found_predictors(
    fda: Experiment, ssl_fda: Experiment, runs: Runs, settings: Settings
) -> list[Predictor]:
    """Return every run that was trained at `--image_size`, and FDA's ensemble where `val_mbt` would
    find its members among them."""
    folders = _of_this_size(_of_these_classes(runs, settings), settings)
    checkpoints = [folder / selected(settings, folder) for folder in folders]
    predictors = [single(checkpoint) for checkpoint in checkpoints]
    with contextlib.suppress(UserError):
        members = find_members(fda, ssl_fda, 0, settings)
        if set(members) <= set(checkpoints):
            predictors.append(Predictor(ENSEMBLE, tuple(members)))
    return predictors


def _of_these_classes(runs: Runs, settings: Settings) -> Runs:
    """Return the runs of the settings' classes, or all where none is; print which others there
    are."""
    wanted = settings.class_table.recorded()
    own = {path: run for path, run in runs.items() if run.get(CLASS_TABLE, USUAL) == wanted}
    if others := [path.name for path in runs if path not in own and own]:
        print(f"left out, because they are of other classes: {', '.join(others)}")
    return own or runs


def _of_this_size(runs: Runs, settings: Settings) -> list[Path]:
    """Return the runs trained at `--image_size`; print which others there are. Raise UserError
    where there are only others."""
    own = [
        folder for folder, run in runs.items() if tuple(run["image_size"]) == settings.image_size
    ]
    others = ", ".join(
        f"{folder.name} at {_words(run['image_size'])}"
        for folder, run in runs.items()
        if folder not in own
    )
    asked = f"--image_size {_words(settings.image_size)}"
    if not own:
        raise UserError(
            f"no run in {settings.save_model_path} was trained at {asked} ({others}): give "
            "--image_size as one of them was trained, or name a checkpoint with --load_model_path"
        )
    if others:
        print(f"left out, because they were not trained at {asked}: {others}")
    return own


def _words(size: Sequence[int]) -> str:
    return " ".join(map(str, size))
