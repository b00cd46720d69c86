"""The exceptions that a user can mend."""

import contextlib
from collections.abc import Iterator, Sequence
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
    """Give this path to an error of the system inside the block that names no file, such as a full
    disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


CHECKPOINT_NAMES = ("best.pth", "latest.pth", "*.pth", "*.pt", "*.tar")
"""Patterns of the files that a user who names a folder may mean, the likeliest first."""


def check_is_file(path: Path, likely: Sequence[str] = CHECKPOINT_NAMES) -> None:
    """Raise UserError for a folder, a pipe, a socket or a device; what is missing passes.

    The error suggests the first file in the folder that has one of the `likely` names. To read a
    pipe waits for its other end, and to read /dev/zero never ends.
    """
    if path.is_dir():
        there = next((file for name in likely for file in sorted(path.glob(name))), None)
        such_as = f", such as {there}" if there else ""
        raise UserError(f"{path} is a folder: name a file in it{such_as}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a pipe, a socket or a device: name a regular file")
