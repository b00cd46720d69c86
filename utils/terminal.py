"""What differs between a terminal and a log file."""

import os
from typing import TextIO

RED = 31


def coloured(text: str, colour: int, stream: TextIO) -> str:
    """The text in an ANSI colour where the stream is a terminal that may show it (no-color.org)."""
    shown = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[{colour}m{text}\033[0m" if shown else text


class LogLines:
    """Takes a progress bar, which goes back to overwrite itself, and writes a line each time."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        self.stream.flush()
