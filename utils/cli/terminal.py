"""Adapt the output to a terminal, a log file, or a pipe that nobody reads."""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT, STDERR = 1, 2
STREAMS = {STDOUT: "standard output", STDERR: "standard error"}
WITHOUT_READER = "{error.filename}: {error.strerror}; the command goes on without it\n"


class Outlet(io.FileIO):
    """A standard stream that may stop taking words, as a pipe does in `main.py … | head -1`.

    From then on it takes them and drops them. The first failure ends a command, unless it
    `may_close`: quietly with 141 where a reader has gone, as SIGPIPE ends other tools.
    """

    may_close = False

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            with Path(os.devnull).open("wb") as nothing:
                os.dup2(nothing.fileno(), self.fileno())
            error.filename = STREAMS[self.fileno()]
            if Outlet.may_close:
                with contextlib.suppress(OSError):
                    os.write(STDERR, WITHOUT_READER.format(error=error).encode())
            elif error.errno == errno.EPIPE:
                raise SystemExit(128 + signal.SIGPIPE) from None
            else:
                raise
            return memoryview(data).nbytes


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Let standard output and error lose their readers inside the block, or have been closed from
    the start (`>&-`); they take any name of a file, which need not be text."""
    for number in (0, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:  # the next file to be opened, a checkpoint's, would get this number
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _outlet(sys.stdout), _outlet(sys.stderr)
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()  # at Python's own exit a failure would be a traceback
    except OSError as error:
        if error.filename not in STREAMS.values():
            raise
        with contextlib.suppress(OSError):
            os.write(STDERR, f"main.py: error: {error.filename}: {error.strerror}\n".encode())
        raise SystemExit(1) from None


def _outlet(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed
        return Path(os.devnull).open("w")
    return io.TextIOWrapper(
        io.BufferedWriter(Outlet(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=bool(stream.line_buffering),
        write_through=getattr(stream, "write_through", False),
    )


def error_word() -> str:
    """Return "error:", in red on a terminal that may show colours (no-color.org)."""
    allowed = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return "\033[31merror:\033[0m" if allowed and sys.stderr.isatty() else "error:"


class LogLines:
    """Takes a progress bar, which goes back to overwrite itself, and writes a line each time."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        self.stream.flush()
