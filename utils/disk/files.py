"""Files that are written whole or not at all."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

TEMPORARY = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
"""Names of files that are not whole yet."""


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the path to write to; afterwards the file lies at `path`, safe on the disk.

    Where the block raises, what lay at `path` is untouched and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def removed_unless_used(folder: Path, lock: str) -> Iterator[None]:
    """Remove a folder where the block raises and nothing but the file of a lock lies in it, which
    the block holds."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if [path.name for path in folder.iterdir()] == [lock]:
                (folder / lock).unlink()
                folder.rmdir()
        raise


def remove_unfinished(candidates: Iterable[Path]) -> None:
    """Remove those of the files that a killed process was writing with `written_whole`."""
    for path in candidates:
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def json_object(path: Path) -> dict[str, Any]:
    """Return the names and values of a JSON file. Raise ValueError where it holds none, or OSError
    where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("it holds no names with values")
    return value
