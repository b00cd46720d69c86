"""Carry out the steps of a plan, one after another or several side by side."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from trainings.options import Settings
from trainings.reproduction.estimate import Estimator, duration
from trainings.reproduction.order import chains, needs
from trainings.reproduction.outcome import outcome
from trainings.reproduction.plan import PlannedStep
from utils import processes
from utils.cli.log_file import LOG, logged
from utils.errors import UserError
from utils.signals import Stop
from utils.utils import progress

Runner = Callable[[Settings], None]
"""Runs the command that settings mean, as `main.py` would."""

BAR_SECONDS = 1.0
"""Between two looks at how far the steps side by side have come."""

ENDED = (
    "{place} failed: its process was ended from outside, perhaps because memory ran out; the same "
    "command goes on from there, with a smaller --jobs where memory is short"
)


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
        began = time.perf_counter()
        for command in () if is_done else step.commands:
            if verbose and not command.is_done():
                print(command.text(), flush=True)
                run(command.settings)
        if not verbose:
            with _told(place, step):
                if not is_done:
                    _carry_out(step, run, bar=f"{place} ")
            _print_outcome(number, plan, None if is_done else time.perf_counter() - began)
    processes.wait_for_all()


def side_by_side(
    plan: Sequence[PlannedStep], run: Runner, action: str, jobs: int, estimator: Estimator
) -> None:
    """Do the same with as many processes as `jobs`, each of which carries out one step at a time.

    A step begins once the steps that it needs are done: of the earliest seed and config one that
    can begin, first the one on which the longest chain of others waits. What the steps find does
    not depend on `jobs`, but for rounding, where the number of threads of each is another one.
    """
    needed = needs(plan)
    chain = chains(needed, [estimator.seconds(step) for step in plan])
    trials = list(dict.fromkeys((step.seed, step.config) for step in plan))

    def urgency(number: int) -> tuple[int, float]:
        return trials.index((plan[number].seed, plan[number].config)), -chain[number]

    waiting, done = set(range(len(plan))), set[int]()
    running: dict[Future, tuple[int, float]] = {}
    left = sum(map(estimator.epochs_left, plan))
    bar = progress(None, action, total=round(left), unit="epoch", smoothing=0, miniters=0)
    with bar, _workers(jobs) as pool:
        while waiting or running:
            ready = [number for number in waiting if needed[number] <= done]
            for number in sorted(ready, key=urgency)[: jobs - len(running)]:
                waiting.remove(number)
                if plan[number].is_done():
                    done.add(number)
                    _print_outcome(number, plan, None)
                else:
                    future = pool.submit(_carry_out, plan[number], run)
                    running[future] = number, time.perf_counter()
            finished, _ = wait(running, BAR_SECONDS, FIRST_COMPLETED)
            bar.update(round(left - sum(map(estimator.epochs_left, plan))) - bar.n)
            for future in finished:
                number, began = running.pop(future)
                bar.clear()
                with _told(_place(number, plan), plan[number]):
                    future.result()
                done.add(number)
                _print_outcome(number, plan, time.perf_counter() - began)


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes among which this machine's cores and GPUs are shared; whatever ends
    the block early ends their trainings after the update that they are at."""
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(jobs):
        numbers.put(number)
    usual = multiprocessing.get_start_method()
    pool = ProcessPoolExecutor(jobs, context, _begin, (numbers, jobs, usual))
    try:
        with Stop() as stop, stop.immediately():
            yield pool
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # once more to leave at once
            for child in multiprocessing.active_children():
                child.kill()
        raise
    pool.shutdown()


def _begin(numbers: "multiprocessing.SimpleQueue[int]", jobs: int, start_method: str) -> None:
    """Prepare a process of the pool: its share of the machine, its signals, its silence."""
    multiprocessing.set_start_method(start_method, force=True)  # else its loaders import torch anew
    os.setpgrp()  # Ctrl-C goes to the main process alone, which ends this one
    threading.Thread(target=_end_with_main_process, daemon=True).start()
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)
    processes.share_machine(numbers.get(), jobs)


def _end_with_main_process() -> None:
    main_process = multiprocessing.parent_process()
    assert main_process is not None
    main_process.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _carry_out(step: PlannedStep, run: Runner, bar: str | None = None) -> None:
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
    except BrokenProcessPool as error:
        raise UserError(ENDED.format(place=place)) from error
    except Exception:
        print(f"{place} failed; what it has printed is in {step.folder / LOG}", flush=True)
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
