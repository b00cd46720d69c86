"""Letting a part of a command print into a log file instead of the terminal."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from utils import processes
from utils.errors import UserError

LOG = "log.txt"
"""Name of the log file in the folder of a step."""

CLEAR_LINE = "\r\033[K"


class OneLine:
    """A terminal that shows progress bars one after another on a single line.

    `prefix` is what `utils.utils.progress` writes in front of their descriptions.
    """

    def __init__(self, terminal: TextIO, prefix: str):
        self.terminal, self.prefix = terminal, prefix

    def write(self, text: str) -> int:
        return self.terminal.write(text.replace("\n", CLEAR_LINE))

    def flush(self) -> None:
        self.terminal.flush()

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.terminal.fileno()


@contextlib.contextmanager
def logged(path: Path, heading: str, *, bar: str = "") -> Iterator[None]:
    """Send standard output inside the block to the end of a log file, below a heading.

    So does standard error, unless it is a terminal: there a progress bar stays on one line, begins
    with `bar`, and vanishes at the end. Of several processes the first one writes. Raise UserError
    where the file cannot be written.
    """
    if not processes.is_first():
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): see to its folder, or print everything "
            "with --verbose"
        ) from error
    with log:
        log.write(f"\n$ {heading}\n")
        terminal = sys.stderr.isatty()
        bars = OneLine(sys.stderr, bar) if terminal else log
        sys.stdout.flush()
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(bars):
            try:
                yield
            finally:
                if terminal:
                    bars.write("\n")
