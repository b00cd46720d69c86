"""Sentences that say why a command ends early."""

import errno
import sys

from utils import processes
from utils.cli.flags import PROGRAM
from utils.cli.terminal import error_word

OUT_OF_MEMORY = (
    "out of memory: lower --batch_size (2 at least in training), --image_size or --base_width"
)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = "interrupted; the same command, without --overwrite, goes on from there"
"""Sentence after Ctrl-C in an action that a second command continues."""


def refused(error: Exception) -> str | None:
    """Return a sentence about what the system has refused, such as access to a folder; None if the
    error is of another kind."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    remedy = ": make room, and give the same command again" if error.errno in FULL_DISK else ""
    return f"{error.filename or 'the system'}: {error.strerror}{remedy}"


def failed(problem: str, code: int) -> int:
    """Print the problem in one line, whatever is in the names of files, and return the code."""
    say(f"{PROGRAM}: {error_word()} " + problem.replace("\n", "\\n"))
    return code


def say(text: str) -> None:
    """Print why the command ends; print once what several processes have to say alike."""
    if processes.first_to_say(text):
        sys.stdout.flush()  # in a log, what was printed before stands before
        print(text, file=sys.stderr, flush=True)
