"""Work in threads beside the main one, of which only so much waits that memory stays constant."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

AHEAD = 2
"""Tasks that wait or run, per thread."""


class Background:
    """Runs tasks in threads while this context lasts; one thread keeps their order.

    What a task raises is raised by a later `submit`, or at the end of the context. Whatever ends
    the context, tasks that were submitted are finished first.
    """

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(threads)
        self._most = AHEAD * threads
        self._tasks: deque[Future] = deque()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown()
        while kind is None and self._tasks:
            self._tasks.popleft().result()

    def submit(self, task: Callable, *arguments: Any) -> None:
        """Begin a task, once few enough are under way."""
        while len(self._tasks) >= self._most:
            self._tasks.popleft().result()
        self._tasks.append(self._pool.submit(task, *arguments))
