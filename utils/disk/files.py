"""Files that are written whole or not at all, and their digests."""

import os
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

TEMPORARY = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
"""Names of `temporary_path`."""


def temporary_path(path: Path) -> Path:
    """Where this process writes that file until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
