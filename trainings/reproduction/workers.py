"""Processes that carry out tasks side by side, each with its share of the machine.

A pool of the standard library is not enough: it can hang once a process has died or has got a
signal, and its processes do not stop in order.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from utils import processes
from utils.errors import UserError
from utils.signals import SIGNALS, Stop, Stopped, held_back

Task = Callable[[], None]

ENDED = (
    "the process of this step was ended from outside, perhaps because memory ran out: the same "
    "command goes on from there, with a smaller --jobs where memory is short"
)


class _Worker(NamedTuple):
    """A process that carries out tasks: its share of the machine, and the line to it."""

    process: BaseProcess
    share: int
    line: Connection


class Ended(NamedTuple):
    """A task that has ended: its number, the seconds that it took, and what went wrong."""

    number: int
    seconds: float
    error: BaseException | None


class Workers:
    """The processes of tasks side by side, each of which is started when it is first needed.

    Whatever ends this context early stops them in order: trainings save what they have. A second
    signal ends them at once.

    Args:
        jobs: how many tasks run at a time.
        device: `--device`; if it has GPUs, the processes are spread over them.

    Attributes:
        tasks: the numbers of the tasks that run, each with its process and the time of its start.
    """

    def __init__(self, jobs: int, device: str):
        self._jobs, self._device, self._stop = jobs, device, Stop()
        self._idle: list[_Worker] = []
        self.tasks: dict[int, tuple[_Worker, float]] = {}

    def __enter__(self) -> "Workers":
        self._stop.__enter__()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._stop.__exit__(kind or Stopped, None, None)  # raises nothing
        workers = [*self._idle, *(worker for worker, _ in self.tasks.values())]
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

    def start(self, number: int, task: Task, log: Path) -> None:
        """Let a process carry out a task, which must be picklable, and print into a log."""
        alive = [worker for worker in self._idle if worker.process.is_alive()]
        worker = alive.pop() if alive else self._new_worker()
        self._idle = alive
        worker.line.send((task, log))
        self.tasks[number] = worker, time.perf_counter()

    def _new_worker(self) -> _Worker:
        taken = [worker for worker, _ in self.tasks.values()]
        share = min(set(range(self._jobs)) - {worker.share for worker in taken})
        context = multiprocessing.get_context("spawn")
        line, end = context.Pipe()
        usual = multiprocessing.get_start_method()
        process = context.Process(target=_serve, args=(end, share, self._jobs, self._device, usual))
        with held_back():  # until the process has handlers of its own
            process.start()
        end.close()
        return _Worker(process, share, line)

    def ended(self, seconds: float) -> Iterator[Ended]:
        """Yield the tasks that end within these seconds."""
        self._stop.check()
        answered = wait([worker.line for worker, _ in self.tasks.values()], seconds)
        for number, (worker, began) in list(self.tasks.items()):
            if worker.line in answered:
                try:
                    error = worker.line.recv()
                except (EOFError, OSError):
                    error = UserError(ENDED)
                del self.tasks[number]
                self._idle.append(worker)
                yield Ended(number, time.perf_counter() - began, error)
        self._stop.check()


def _serve(line: Connection, share: int, jobs: int, device: str, start_method: str) -> None:
    """Carry out the tasks that come, with this process's share of the machine; answer each with
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
            task, log = line.recv()
            line.send(_problem(task, log))


def _problem(task: Task, log: Path) -> Exception | None:
    """Carry out a task; return what went wrong, in a form that can be sent."""
    try:
        _print_into(log)
        task()
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
