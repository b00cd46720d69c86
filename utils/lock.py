"""One process at a time, by a lock that ends with its owner."""

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What network drives answer that have no locks."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock that the file stands for; yields whether it got it, which `wait` ensures.

    A record lock of POSIX: it ends with the process, and forked workers do not hold it on. Where a
    file system has no locks nobody is kept out.
    """
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(file)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                if not wait:
                    yield False
                    return
                print(f"waiting for {owner(path)}, which holds {path}", flush=True)
                fcntl.lockf(file, fcntl.LOCK_EX)
                _sign(file)
        yield True


def owner(path: Path) -> str:
    """Who took the lock last."""
    return path.read_text().strip() or "another process"


def _sign(file: TextIO) -> None:
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
