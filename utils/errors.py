"""The exceptions that a user can mend."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class UserError(ValueError):
    """Wrong data: one sentence that says what, where, and what to do.

    Only this exception is shown as a sentence; any other one is a defect of ours and keeps its
    traceback.
    """

    exit_code = 1


class UsageError(UserError):
    """Wrong usage: settings that cannot go together, found after the parser has let them in."""

    exit_code = 2


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, an error of the system that names no file, such as a full disk, gets this path."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
