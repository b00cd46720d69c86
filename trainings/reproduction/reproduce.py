"""Every step the users list, on the data given, and the report of all: `reproduce`, `demo`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trainings.options import Settings
from trainings.reproduction.demo import demo_steps, make_toy_data, recipe, refuse_other_data
from trainings.reproduction.estimate import (
    DataSizes,
    data_sizes,
    duration,
    plan_in_words,
    toy_sizes,
)
from trainings.reproduction.options import ReproductionOptions
from trainings.reproduction.outcome import outcome
from trainings.reproduction.plan import Command, PlannedStep, make_plan, plan_folder
from trainings.reproduction.report import record_command, write_report
from trainings.reproduction.steps import Step, with_labels
from utils import processes
from utils.cli.log_file import LOG, logged

Runner = Callable[[Settings], None]
"""Runs the command that settings mean, as `main.py` would."""


def reproduce(steps: Sequence[Step], run: Runner, settings: Settings) -> None:
    """Print the plan, run what is not finished, and write the report."""
    plan = make_plan(with_labels(steps, settings), settings)
    _show(plan, data_sizes(settings), settings)
    if not settings.dry_run:
        _make(plan, steps, run, settings)


def demo(steps: Sequence[Step], run: Runner, settings: Settings) -> None:
    """Do the same on Toy City, which is drawn first."""
    refuse_other_data(settings)
    plan = make_plan(demo_steps(steps), settings, recipe=recipe(settings.explicit()))
    if settings.dry_run:
        _show(plan, toy_sizes(settings), settings)
        return
    make_toy_data(settings)
    _show(plan, data_sizes(settings), settings)
    _make(plan, steps, run, settings)


def report(steps: Sequence[Step], settings: Settings) -> None:
    """Write the report from what lies in the run folders alone."""
    print(f"\n{write_report(steps, settings)}", flush=True)


def _show(plan: Sequence[PlannedStep], sizes: DataSizes, settings: Settings) -> None:
    """Print the plan with its times."""
    done = [step.is_done() for step in plan]
    as_table = settings.dry_run or ReproductionOptions.of(settings).verbose
    folder = plan_folder(settings)
    print(f"\n{plan_in_words(plan, done, sizes, folder, as_table=as_table)}", flush=True)


def _make(
    plan: Sequence[PlannedStep], steps: Sequence[Step], run: Runner, settings: Settings
) -> None:
    """Run the commands that are left, and write the report."""
    verbose, folder = ReproductionOptions.of(settings).verbose, plan_folder(settings)
    record_command(settings)
    carry_out(plan, run, settings.action, verbose=verbose)
    if verbose:
        report(steps, settings)
    else:
        with logged(folder / LOG, "report"):
            text = write_report(steps, settings)
        print(f"\n{text}", flush=True)


def carry_out(
    plan: Sequence[PlannedStep], run: Runner, action: str, *, verbose: bool = False
) -> None:
    """Run the commands that are left; print a line for each step with what it has found.

    The commands print into `LOG` in the step's folder, or with `verbose` to the console.
    """
    start = time.perf_counter()
    widest = max(len(_name(step, plan)) for step in plan)
    for number, step in enumerate(plan, 1):
        is_done = step.is_done()  # asked only now: what it was made from may be newer
        place = f"{number:>{len(str(len(plan)))}}/{len(plan)}"
        if verbose:
            passed = f"{action} {place}, after {duration(time.perf_counter() - start)}"
            finished = " is finished" if is_done else ""
            print(f"\n{passed}: {_name(step, plan)}{finished}", flush=True)
        began = time.perf_counter()
        for command in () if is_done else step.commands:
            if not command.is_done():
                _run(command, run, place, step.folder / LOG, verbose=verbose)
        if not verbose:
            took = "finished before" if is_done else duration(time.perf_counter() - began)
            print(f"{place}  {_name(step, plan):{widest}}  {outcome(step)}  ({took})", flush=True)
    processes.wait_for_all()


def _run(command: Command, run: Runner, place: str, log: Path, *, verbose: bool) -> None:
    """Run a command; its own words go to the console or into the log file."""
    if verbose:
        print(command.text(), flush=True)
        run(command.settings)
        return
    try:
        with logged(log, command.text(), bar=f"{place} "):
            run(command.settings)
    except Exception:
        print(f"{place} failed; what it has printed is in {log}", flush=True)
        raise


def _name(step: PlannedStep, plan: Sequence[PlannedStep]) -> str:
    """Return the step's name, with its config and seed where the plan has several."""
    words = [f"{step.number} {step.title}"]
    words += [step.config] * (len({one.config for one in plan}) > 1)
    words += [f"seed {step.seed}"] * (len({one.seed for one in plan}) > 1)
    return ", ".join(words)
