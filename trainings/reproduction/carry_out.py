"""Carry out the steps of a plan, one after another or several side by side."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from datasets.catalog import labelled
from trainings.engine.run import check_length
from trainings.experiment import build_network
from trainings.options import Settings
from trainings.reproduction.estimate import Estimator, duration, epochs_made
from trainings.reproduction.order import chains, needs
from trainings.reproduction.outcome import outcome
from trainings.reproduction.plan import PlannedStep
from trainings.reproduction.workers import Workers
from trainings.scoring.pseudo_label_folder import PROGRESS, SUMMARY
from utils import processes
from utils.cli.log_file import LOG, logged
from utils.disk.run_folder import RunFolder
from utils.utils import progress

Runner = Callable[[Settings], None]
"""Runs the command that settings mean, as `main.py` would."""

BAR_SECONDS = 1.0
"""The main process looks this often at how far the steps side by side have come."""


def cleared(plan: Sequence[PlannedStep]) -> list[PlannedStep]:
    """Remove, once, what an earlier attempt has left of all steps; return them as steps that go on
    from there. Without this an interrupted attempt would go on with what is older than itself.

    Raise UserError, and remove nothing, where a training cannot begin."""
    _check_trainings(plan)
    for folder in dict.fromkeys(command.folder for step in plan for command in step.commands):
        run = RunFolder(folder)
        with run.alone() if folder.exists() else contextlib.nullcontext():
            run.clear(SUMMARY, PROGRESS)
    processes.wait_for_all()
    return [
        step._replace(commands=tuple(command.without_overwrite() for command in step.commands))
        for step in plan
    ]


def _check_trainings(plan: Sequence[PlannedStep]) -> None:
    """Raise UserError where the settings do not fit the labelled images of a training, or the
    weights that all trainings start from cannot be loaded."""
    commands = [command for step in plan for command in step.commands]
    for experiment, settings in ((c.trains, c.settings) for c in commands):
        if experiment:
            own = experiment.own_settings(settings)
            check_length(experiment, own, len(labelled(experiment.source, "train", own)))
    with contextlib.redirect_stdout(io.StringIO()):  # the trainings say what they load
        build_network(commands[0].settings)


def one_by_one(
    plan: Sequence[PlannedStep], run: Runner, action: str, *, verbose: bool = False
) -> None:
    """Run the commands that are left; print a line for each step with what it has found.

    The commands print into `LOG` in the step's folder, or with `verbose` to the console.
    """
    start = time.perf_counter()
    for number, step in enumerate(plan):
        is_done = step.is_done()  # asked only now: what it was made from may be newer
        place = _place(number, plan)
        if verbose:
            passed = f"{action} {place}, after {duration(time.perf_counter() - start)}"
            finished = " is finished" if is_done else ""
            print(f"\n{passed}: {_name(step, plan)}{finished}", flush=True)
            for command in step.commands:
                if not command.is_done():
                    print(command.text(), flush=True)
                    run(command.settings)
            continue
        began = time.perf_counter()
        with _told(place, step):
            _carry_out(step, run, bar=f"{place} ")
        _print_outcome(number, plan, None if is_done else time.perf_counter() - began)
    processes.wait_for_all()


def side_by_side(
    plan: Sequence[PlannedStep], run: Runner, action: str, estimator: Estimator
) -> None:
    """Do the same with `estimator.jobs` steps at a time, each in a process of its own.

    A step begins once the steps that it needs are done. Where several can begin, seeds and configs
    keep their order; within one of them the step that begins the longest chain goes first. Results
    depend on the number of jobs by rounding alone: a process with more threads adds in another
    order.
    """
    needed = needs(plan)
    chain = chains(needed, [estimator.seconds(step) for step in plan])
    trials = list(dict.fromkeys((step.seed, step.config) for step in plan))

    def urgency(number: int) -> tuple[int, float]:
        return trials.index((plan[number].seed, plan[number].config)), -chain[number]

    waiting, done = set(range(len(plan))), set[int]()
    left = [estimator.epochs_left(step) for step in plan]
    before = [estimator.epochs(step) - own for step, own in zip(plan, left, strict=True)]
    torch.cuda.empty_cache()  # what the estimate took is the steps' now
    jobs = min(estimator.jobs, len(plan))
    bar = progress(None, action, total=round(sum(left)), unit="epoch", smoothing=0, miniters=0)
    with bar, Workers(jobs, plan[0].commands[0].settings.device) as workers:
        while waiting or workers.tasks:
            ready = [number for number in waiting if needed[number] <= done]
            for number in sorted(ready, key=urgency):
                if len(workers.tasks) == jobs:
                    break
                waiting.remove(number)
                if plan[number].is_done():
                    done.add(number)
                    bar.clear()
                    _print_outcome(number, plan, None)
                else:
                    step = plan[number]
                    workers.start(number, partial(_carry_out, step, run), step.folder / LOG)
            for number, seconds, error in workers.ended(BAR_SECONDS):
                bar.clear()
                with _told(_place(number, plan), plan[number]):
                    if error:
                        raise error
                done.add(number)
                _print_outcome(number, plan, seconds)
            so_far = [(n, epochs_made(plan[n].folder).epochs - before[n]) for n in workers.tasks]
            made = sum(left[n] for n in done) + sum(min(left[n], epochs) for n, epochs in so_far)
            bar.update(round(made) - bar.n)


def _carry_out(step: PlannedStep, run: Runner, bar: str = "") -> None:
    """Run the commands of a step that are left, into its log."""
    for command in step.commands:
        if not command.is_done():
            with logged(step.folder / LOG, command.text(), bar=bar):
                run(command.settings)


@contextlib.contextmanager
def _told(place: str, step: PlannedStep) -> Iterator[None]:
    """Say where to read on if the block fails."""
    try:
        yield
    except Exception:
        log = step.folder / LOG
        read_on = f"; what it has printed is in {log}" if log.is_file() else ""
        print(f"{place} failed{read_on}", flush=True)
        raise


def _print_outcome(number: int, plan: Sequence[PlannedStep], seconds: float | None) -> None:
    """Print what a step has found, and how long it took; None if it was finished before."""
    widest = max(len(_name(step, plan)) for step in plan)
    took = "finished before" if seconds is None else duration(seconds)
    name = _name(plan[number], plan)
    found = outcome(plan[number])
    print(f"{_place(number, plan)}  {name:{widest}}  {found}  ({took})", flush=True)


def _place(number: int, plan: Sequence[PlannedStep]) -> str:
    """Return a step's number among all, as in " 3/14"."""
    return f"{number + 1:>{len(str(len(plan)))}}/{len(plan)}"


def _name(step: PlannedStep, plan: Sequence[PlannedStep]) -> str:
    """Return the step's name, with its config and seed where the plan has several."""
    words = [f"{step.number} {step.title}"]
    words += [step.config] * (len({one.config for one in plan}) > 1)
    words += [f"seed {step.seed}"] * (len({one.seed for one in plan}) > 1)
    return ", ".join(words)
