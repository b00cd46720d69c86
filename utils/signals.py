"""Orderly stops: a signal is heard at once and obeyed where nothing is lost."""

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from utils import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2
NOTICE = b"\nstopping after this step; once more to leave at once\n"


def ignore_interrupts(_worker: int) -> None:
    """Leave Ctrl-C, which goes to the whole group, to the main process, which ends its data
    workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back inside the block, and let workers that are forked there ignore them from
    the start: otherwise they would at first obey as the main process does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _SignalStack(ctypes.Structure):
    """Linux' `stack_t`: where a thread handles signals."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread its stack for signals back after the block.

    OpenVINO's plugin for CPUs sets another one and releases it; if a thread of its own does the
    latter, the old one is not set again, and the next signal, such as Ctrl-C, ends the process in a
    segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


class Stopped(KeyboardInterrupt):
    """Training ended by a signal, everything saved.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__()
        self.signum = signum


class Stop:
    """Whether a signal has asked to stop, while this context lasts; a second one ends at once.

    A signal that comes too late for the last `check` raises Stopped at the end of the context:
    otherwise the trainings after this one would begin. Under several processes it does not, because
    they stop together or not at all.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._immediate = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        self._report = sys.unraisablehook
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            self._before = {signum: signal.signal(signum, self._hear) for signum in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if sys.unraisablehook == self._report_all_but_loaders:
            traceback.clear_frames(trace)  # deletes half-made loaders while the hook is in place
            sys.unraisablehook = self._report
        if kind is None and processes.count() == 1:
            self.check()

    def _report_all_but_loaders(self, unraisable: Any) -> None:
        """Report what could not be raised, but for loaders that a stop has left half made."""
        if "DataLoaderIter" not in repr(unraisable.object):
            self._report(unraisable)

    def check(self) -> None:
        """Raise Stopped where a signal has come to this process."""
        if self.requested is not None:
            raise Stopped(self.requested)

    @contextlib.contextmanager
    def immediately(self) -> Iterator[None]:
        """Let a signal act inside the block without waiting for `check`."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested is not None, self.requested or signum
        if again or self._immediate:
            sys.unraisablehook = self._report_all_but_loaders
        if again:
            raise KeyboardInterrupt
        if processes.is_first():
            with contextlib.suppress(OSError):  # a signal may come in the middle of a print
                os.write(STDERR, NOTICE)
        if self._immediate:
            self.check()
