"""Every step the users list, on the data given, and the report of all: `reproduce`, `demo`."""

import time
from collections.abc import Sequence

from trainings.reproduction.demo import make_toy_data, recipe, refuse_other_data
from trainings.reproduction.estimate import DataSizes, data_sizes, plan_table, toy_sizes
from trainings.reproduction.plan import Methods, Step, make_plan, plan_folder
from trainings.reproduction.report import write_report
from utils import processes
from utils.cli.settings import Settings

DEMO_SELF_TRAINING = (0.05,)
"""The demo's betas of SSL-FDA: one, for time."""


def reproduce(methods: Methods, settings: Settings) -> None:
    """Prints the plan, carries out what is not finished, writes the report."""
    plan = make_plan(methods, settings)
    _show(plan, data_sizes(settings), settings)
    if not settings.dry_run:
        _carry_out(plan, methods, settings)


def demo(methods: Methods, settings: Settings) -> None:
    """`reproduce` on Toy City, which is drawn first."""
    refuse_other_data(settings)
    plan = make_plan(
        methods,
        settings,
        recipe=recipe(settings.explicit()),
        self_training=DEMO_SELF_TRAINING,
    )
    if settings.dry_run:
        _show(plan, toy_sizes(settings), settings)
        return
    make_toy_data(settings)
    _show(plan, data_sizes(settings), settings)
    _carry_out(plan, methods, settings)


def report(methods: Methods, settings: Settings) -> None:
    """Writes the report again, from what lies in the run folders alone."""
    write_report(
        methods, settings.save_model_path / (settings.save_keyword or "reproduce"), settings
    )


def _show(plan: Sequence[Step], sizes: DataSizes, settings: Settings) -> None:
    """Prints the plan with its times."""
    done = [step.is_done() for step in plan]
    print(f"\n{plan_table(plan, done, sizes, plan_folder(settings))}", flush=True)


def _name(step: Step) -> str:
    return f"{step.number} {step.title}, {step.config}, seed {step.seed}"


def _carry_out(plan: Sequence[Step], methods: Methods, settings: Settings) -> None:
    """Runs the commands that are left, and writes the report."""
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
                command.run(command.settings)
    processes.wait_for_all()
    write_report(methods, plan_folder(settings), settings)


def _clock(seconds: int) -> str:
    return f"{seconds // 60} min {seconds % 60:02d} s"
