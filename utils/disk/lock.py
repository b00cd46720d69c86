"""One process at a time, by a lock that ends with its owner."""

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

HELD = (errno.EACCES, errno.EAGAIN)
"""Errors of a file system where another process has the lock."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of network drives that have no locks."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock that the file stands for; yield whether it was taken, which `wait` ensures.

    A record lock of POSIX: it ends with the process, and forked workers do not hold it on. Where a
    file system has no locks nobody is kept out.
    """
    with path.open("ab", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                if not wait:
                    yield False
                    return
                print(f"waiting for {owner(path)}, which holds {path}", flush=True)
                fcntl.lockf(file, fcntl.LOCK_EX)
            elif error.errno not in WITHOUT_LOCKS:
                raise
        _sign(file)
        yield True


def owner(path: Path) -> str:
    """Return who took the lock last."""
    return path.read_text().strip() or "another process"


def _sign(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # a full disk has no room for a name, but for a lock
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}".encode())
