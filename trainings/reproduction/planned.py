"""Lines of the report from the folder of a reproduction, for each step those of all configs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainings.options import Settings
from trainings.reproduction.lines import Line
from trainings.reproduction.results import Run, ensemble_record
from trainings.reproduction.steps import Step, by_action, run_flags
from trainings.scoring.runs import command_flags
from utils.disk.run_folder import SETTINGS, RunFolder
from utils.errors import UserError

RUNS = "*/seed*/*"  # <config>/seed<k>/<run>, as `make_plan` lays them out


class Key(NamedTuple):
    """The key of a run among those of one config and seed: the action and flags of a training, or
    the round of an ensemble."""

    action: str = ""
    flags: tuple[tuple[str, Any], ...] = ()
    ensemble_round: int | None = None


Results = Mapping[str, Mapping[Key, Mapping[int, Run]]]
"""The runs that were found, by config, key and seed."""


def planned_lines(folder: Path, steps: Sequence[Step], settings: Settings) -> list[Line]:
    """Return the lines of a reproduction's folder, for each step those of all configs; `settings`
    have the flags that runs have recorded.

    A config is in the tables if one of its runs is of a row. Raise UserError where none is.
    """
    results = _read_results(folder, steps, settings)
    lines = [
        _line(step, value, config, of_config.get(key, {}))
        for step, value, key in _rows(results, steps)
        for config, of_config in results.items()
    ]
    shown = {line.config for line in lines if line.runs}
    if not shown:
        raise UserError(
            f"no run in {folder} is of a step of the tables: "
            f"{command_flags({'action': 'reproduce'}, settings)} makes them"
        )
    return [line for line in lines if line.config in shown]


def _read_results(folder: Path, steps: Sequence[Step], settings: Settings) -> Results:
    """Return the runs of the steps under a folder, with the flags that the settings have.

    Raise UserError where there are none."""
    found: dict[str, dict[Key, dict[int, Run]]] = {}
    for run in sorted(folder.glob(RUNS)):
        if entry := _read_run(run, steps, settings):
            key, read = entry
            config = read.settings["config"] or read.settings["optimizer"]
            runs, seed = found.setdefault(config, {}).setdefault(key, {}), read.settings["seed"]
            runs[seed] = _usual(runs[seed], read) if seed in runs else read
    if not found:
        raise UserError(
            f"no run in {folder}/<config>/seed<k>/: "
            f"{command_flags({'action': 'reproduce'}, settings)} makes them; another folder "
            "is named by --save_model_path and --save_keyword"
        )
    return {
        config: {key: dict(sorted(runs.items())) for key, runs in found[config].items()}
        for config in sorted(found)
    }


def _usual(one: Run, other: Run) -> Run:
    """Return which of two runs has the name that the plan gives; print that the other is left
    out."""
    if one.settings["save_keyword"] and not other.settings["save_keyword"]:
        one, other = other, one
    print(f"{other.folder} is not in the tables: {one.folder} has its place")
    return one


def _read_run(folder: Path, steps: Sequence[Step], command: Settings) -> tuple[Key, Run] | None:
    """Return a training of one of the steps, or an ensemble; None for any other folder."""
    run = RunFolder(folder)
    if run.has(SETTINGS):
        if "action" not in run.read_json(SETTINGS):  # another program's
            return None
        settings = run.read_settings(command)
        experiment = by_action(steps).get(settings["action"])
        if experiment is None or settings["ssl_round"] != 1:
            return None
        flags = tuple((name, settings[name]) for name in run_flags(steps, experiment))
        return Key(experiment.action, flags), Run(folder, settings, False, experiment.validation)
    if record := ensemble_record(folder):
        settings = type(command).from_json(record["settings"]).to_json()
        return Key(ensemble_round=settings["ssl_round"]), Run(folder, settings, True)
    return None


def _rows(results: Results, steps: Sequence[Step]) -> list[tuple[Step, Any, Key]]:
    """Return step, value of its flag and key of the lines of the tables, in the order of the steps.

    A step without a run has a line all the same. A step whose values are `found` has a line for
    each value that was trained; the ensemble of a single one has none.
    """
    keys = {key for of_config in results.values() for key in of_config}
    others = keys - {_key(steps, step) for step in steps if not step.found}
    lines: list[tuple[Step, Any, Key]] = []
    for step in (step for step in steps if step.domain):
        single = [key.action for _, _, key in lines].count(step.experiment.action) == 1
        if step.ensemble_round is not None and single and _key(steps, step) not in keys:
            continue
        values: Sequence[Any] = step.values or (None,)
        if step.found:
            own = [key for key in others if key.action == step.experiment.action]
            trained = sorted({dict(key.flags)[step.flag] for key in own})
            values = [value for value in trained if _key(steps, step, value) in own] or values
        lines += [(step, value, _key(steps, step, value)) for value in values]
    return lines


def _key(steps: Sequence[Step], step: Step, value: Any = None) -> Key:
    """Return the key of the runs of a step, with a value of its flag."""
    if step.ensemble_round is not None:
        return Key(ensemble_round=step.ensemble_round)
    own = {step.flag: value} if step.flag else {}
    flags = run_flags(steps, step.experiment) | own
    return Key(step.experiment.action, tuple(flags.items()))


def _line(step: Step, value: Any, config: str, runs: Mapping[int, Run]) -> Line:
    """Return the line of a step with a value of its flag."""
    assert step.domain
    beta = f"{value:g}" if step.flag == "fda_beta" else ""
    method = step.title_with(value) if step.flag and not beta else step.title
    return Line(step, method, beta, config, runs, step.domain)
