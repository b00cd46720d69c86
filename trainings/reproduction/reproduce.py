"""Every step the users list, on the data given, and the report of all: `reproduce`, `demo`."""

import contextlib
from collections.abc import Sequence

from trainings.options import Settings
from trainings.reproduction.carry_out import Runner, cleared, one_by_one, side_by_side
from trainings.reproduction.commands import record_command
from trainings.reproduction.demo import demo_steps, make_toy_data, recipe, refuse_other_data
from trainings.reproduction.estimate import (
    DataSizes,
    Estimator,
    data_sizes,
    plan_in_words,
    toy_sizes,
)
from trainings.reproduction.options import MOST_JOBS, ReproductionOptions
from trainings.reproduction.plan import PlannedStep, make_plan, plan_folder
from trainings.reproduction.report import write_report
from trainings.reproduction.steps import Step, with_labels
from utils import processes
from utils.cli.log_file import LOG, logged
from utils.errors import UsageError


def reproduce(steps: Sequence[Step], run: Runner, settings: Settings) -> None:
    """Print the plan, run what is not finished, and write the report."""
    plan = make_plan(with_labels(steps, settings), settings)
    estimator = _estimated(plan, data_sizes(settings), settings)
    if not settings.dry_run:
        _make(plan, steps, run, settings, estimator)


def demo(steps: Sequence[Step], run: Runner, settings: Settings) -> None:
    """Do the same on Toy City, which is drawn first."""
    refuse_other_data(settings)
    plan = make_plan(demo_steps(steps), settings, recipe=recipe(settings.explicit()))
    if settings.dry_run:
        _estimated(plan, toy_sizes(settings), settings)
        return
    make_toy_data(settings)
    _make(plan, steps, run, settings, _estimated(plan, data_sizes(settings), settings))


def report(steps: Sequence[Step], settings: Settings) -> None:
    """Write the report from what lies in the run folders alone."""
    print(f"\n{write_report(steps, settings)}", flush=True)


def _estimated(plan: Sequence[PlannedStep], sizes: DataSizes, settings: Settings) -> Estimator:
    """Print the plan with its times; return their estimator."""
    estimator, folder = Estimator(plan, sizes, _jobs(settings)), plan_folder(settings)
    as_table = settings.dry_run or ReproductionOptions.of(settings).verbose
    print(f"\n{plan_in_words(plan, estimator, folder, as_table=as_table)}", flush=True)
    return estimator


def _jobs(settings: Settings) -> int:
    """Return how many steps run at a time. Raise UsageError for several under torchrun, where all
    processes work on one."""
    options = ReproductionOptions.of(settings)
    if options.jobs is None:
        several = settings.action == "demo" and not options.verbose and processes.count() == 1
        return min(processes.usable_cores(), MOST_JOBS) if several else 1
    if options.jobs > 1 and processes.count() > 1:
        raise UsageError(
            "argument --jobs: under torchrun all processes work on one step; leave out --jobs or "
            "torchrun"
        )
    return options.jobs


def _make(
    plan: Sequence[PlannedStep],
    steps: Sequence[Step],
    run: Runner,
    settings: Settings,
    estimator: Estimator,
) -> None:
    """Run the commands that are left, and write the report."""
    verbose, folder = ReproductionOptions.of(settings).verbose, plan_folder(settings)
    record_command(settings)
    if settings.overwrite:
        plan = cleared(plan)
    if estimator.jobs == 1:
        one_by_one(plan, run, settings.action, verbose=verbose)
    else:
        side_by_side(plan, run, settings.action, estimator)
    with contextlib.nullcontext() if verbose else logged(folder / LOG, "report"):
        text = write_report(steps, settings)
    print(f"\n{text}", flush=True)
