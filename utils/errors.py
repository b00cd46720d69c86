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


def check_is_file(path: Path) -> None:
    """Raise UserError for a folder, a pipe, a socket or a device; what is missing passes.

    To read a pipe waits for its other end, and to read /dev/zero never ends.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it, such as {path / 'best.pth'}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a pipe, a socket or a device: name a regular file")
