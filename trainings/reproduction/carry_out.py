"""Carry out the steps of a plan, one after another or several side by side."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch

from trainings.options import Settings
from trainings.reproduction.estimate import Estimator, duration, epochs_made
from trainings.reproduction.order import chains, needs
from trainings.reproduction.outcome import outcome
from trainings.reproduction.plan import PlannedStep
from utils import processes
from utils.cli.log_file import LOG, logged
from utils.errors import UserError
from utils.signals import SIGNALS, Stop, Stopped, held_back
from utils.utils import progress

Runner = Callable[[Settings], None]
"""Runs the command that settings mean, as `main.py` would."""

BAR_SECONDS = 1.0
"""The main process looks this often at how far the steps side by side have come."""

ENDED = (
    "the process of this step was ended from outside, perhaps because memory ran out: the same "
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
    with bar, _Workers(jobs, plan[0].commands[0].settings.device) as workers:
        while waiting or workers.steps:
            ready = [number for number in waiting if needed[number] <= done]
            for number in sorted(ready, key=urgency):
                if len(workers.steps) == jobs:
                    break
                waiting.remove(number)
                if plan[number].is_done():
                    done.add(number)
                    bar.clear()
                    _print_outcome(number, plan, None)
                else:
                    workers.start(number, plan[number], run)
            for number, seconds, error in workers.ended(BAR_SECONDS):
                bar.clear()
                with _told(_place(number, plan), plan[number]):
                    if error:
                        raise error
                done.add(number)
                _print_outcome(number, plan, seconds)
            so_far = [(n, epochs_made(plan[n].folder).epochs - before[n]) for n in workers.steps]
            made = sum(left[n] for n in done) + sum(min(left[n], epochs) for n, epochs in so_far)
            bar.update(round(made) - bar.n)


class _Worker(NamedTuple):
    """A process that carries out steps: its share of the machine, and the line to it."""

    process: BaseProcess
    share: int
    line: Connection


class _Workers:
    """The processes of steps side by side, each of which is started when it is first needed.

    Whatever ends this context early stops them in order: trainings save what they have. A second
    signal ends them at once.

    Attributes:
        steps: the numbers of the steps that run, each with its process and the time of its start.
    """

    def __init__(self, jobs: int, device: str):
        self._jobs, self._device, self._stop = jobs, device, Stop()
        self._idle: list[_Worker] = []
        self.steps: dict[int, tuple[_Worker, float]] = {}

    def __enter__(self) -> "_Workers":
        self._stop.__enter__()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._stop.__exit__(kind or Stopped, None, None)  # raises nothing
        workers = [*self._idle, *(worker for worker, _ in self.steps.values())]
        for worker in workers:
            worker.line.close()
            if kind:
                worker.process.terminate()
        try:
            for worker in workers:
                worker.process.join()
        except KeyboardInterrupt:
            for worker in workers:
                worker.process.kill()
            raise

    def start(self, number: int, step: PlannedStep, run: Runner) -> None:
        """Let a process carry out a step."""
        alive = [worker for worker in self._idle if worker.process.is_alive()]
        worker = alive.pop() if alive else self._new_worker()
        self._idle = alive
        worker.line.send((step, run))
        self.steps[number] = worker, time.perf_counter()

    def _new_worker(self) -> _Worker:
        taken = [worker for worker, _ in self.steps.values()]
        share = min(set(range(self._jobs)) - {worker.share for worker in taken})
        context = multiprocessing.get_context("spawn")
        line, end = context.Pipe()
        usual = multiprocessing.get_start_method()
        process = context.Process(target=_serve, args=(end, share, self._jobs, self._device, usual))
        with held_back():  # until the process has handlers of its own
            process.start()
        end.close()
        return _Worker(process, share, line)

    def ended(self, seconds: float) -> Iterator[tuple[int, float, BaseException | None]]:
        """Yield the steps that end within these seconds: number, time taken, what went wrong."""
        self._stop.check()
        answered = wait([worker.line for worker, _ in self.steps.values()], seconds)
        for number, (worker, began) in list(self.steps.items()):
            if worker.line in answered:
                try:
                    error = worker.line.recv()
                except (EOFError, OSError):
                    error = UserError(ENDED)
                del self.steps[number]
                self._idle.append(worker)
                yield number, time.perf_counter() - began, error
        self._stop.check()


def _serve(line: Connection, share: int, jobs: int, device: str, start_method: str) -> None:
    """Carry out the steps that come, with this process's share of the machine; answer each with
    what went wrong."""
    os.setpgrp()  # Ctrl-C goes to the main process alone, which stops this one
    threading.Thread(target=_end_with_main_process, daemon=True).start()
    multiprocessing.set_start_method(start_method, force=True)  # of loaders
    processes.share_machine(share, jobs, device)
    with (
        contextlib.suppress(KeyboardInterrupt, EOFError, OSError),
        Stop() as stop,
        stop.immediately(),
    ):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while True:
            step, run = line.recv()
            line.send(_problem(step, run))


def _problem(step: PlannedStep, run: Runner) -> Exception | None:
    """Carry out a step; return what went wrong, in a form that can be sent."""
    try:
        _print_into(step.folder / LOG)
        _carry_out(step, run)
    except UserError as error:
        return error
    except Exception as error:
        traceback.print_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error
    return None


def _print_into(log: Path) -> None:
    """Send all that this process prints to the end of a file, also what its libraries print."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _end_with_main_process() -> None:
    main_process = multiprocessing.parent_process()
    assert main_process is not None
    main_process.join()
    os.kill(os.getpid(), signal.SIGKILL)


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
