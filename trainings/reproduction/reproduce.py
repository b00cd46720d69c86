"""Every step the users list, on the data given, and the report of all: `reproduce`, `demo`."""

import time
from collections.abc import Callable, Sequence

from trainings.reproduction.demo import demo_steps, make_toy_data, recipe, refuse_other_data
from trainings.reproduction.estimate import DataSizes, data_sizes, plan_table, toy_sizes
from trainings.reproduction.plan import PlannedStep, make_plan, plan_folder
from trainings.reproduction.report import write_report
from trainings.reproduction.steps import Step
from utils import processes
from utils.cli.settings import Settings

Runner = Callable[[Settings], None]
"""Runs the command that settings mean, as `main.py` would."""


def reproduce(steps: Sequence[Step], run: Runner, settings: Settings) -> None:
    """Print the plan, run what is not finished, and write the report."""
    plan = make_plan(steps, settings)
    _show(plan, data_sizes(settings), settings)
    if not settings.dry_run:
        carry_out(plan, run, settings)
        report(steps, settings)


def demo(steps: Sequence[Step], run: Runner, settings: Settings) -> None:
    """Do the same on Toy City, which is drawn first."""
    refuse_other_data(settings)
    plan = make_plan(demo_steps(steps), settings, recipe=recipe(settings.explicit()))
    if settings.dry_run:
        _show(plan, toy_sizes(settings), settings)
        return
    make_toy_data(settings)
    _show(plan, data_sizes(settings), settings)
    carry_out(plan, run, settings)
    report(steps, settings)


def report(steps: Sequence[Step], settings: Settings) -> None:
    """Write the report from what lies in the run folders alone."""
    write_report(steps, settings)


def _show(plan: Sequence[PlannedStep], sizes: DataSizes, settings: Settings) -> None:
    """Print the plan with its times."""
    done = [step.is_done() for step in plan]
    print(f"\n{plan_table(plan, done, sizes, plan_folder(settings))}", flush=True)


def _name(step: PlannedStep) -> str:
    return f"{step.number} {step.title}, {step.config}, seed {step.seed}"


def carry_out(plan: Sequence[PlannedStep], run: Runner, settings: Settings) -> None:
    """Run the commands that are left."""
    start = time.perf_counter()
    for number, step in enumerate(plan, 1):
        is_done = step.is_done()  # asked only now: what it was made from may be newer
        seconds = round(time.perf_counter() - start)
        passed = f"{settings.action} {number}/{len(plan)}, after {_clock(seconds)}"
        finished = " is finished" if is_done else ""
        print(f"\n{passed}: {_name(step)}{finished}", flush=True)
        for command in () if is_done else step.commands:
            if not command.is_done():
                print(command.text(), flush=True)
                run(command.settings)
    processes.wait_for_all()


def _clock(seconds: int) -> str:
    return f"{seconds // 60} min {seconds % 60:02d} s"
