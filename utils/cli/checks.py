"""Checks of a flag's value; each raises a ValueError that ends the sentence "--flag: value …"."""

import os
from collections.abc import Callable
from unicodedata import category

AUTO = "auto"
MOST_WORKERS, WORKERS_PER_CORE = 64, 4
"""Processes that load data: so many are always allowed, and so many for each core."""

CONTROLS = ("Cc", "Zl", "Zp")
"""Unicode's categories of control characters and of line breaks."""


def at_least(minimum: float) -> Callable[[float], None]:
    """Return the check that a number is not below the minimum."""

    def check(value: float) -> None:
        if not value >= minimum:
            raise ValueError(f"must be at least {minimum}")

    return check


def above(minimum: float) -> Callable[[float], None]:
    """Return the check that a number is above the minimum, and finite."""

    def check(value: float) -> None:
        if not minimum < value < float("inf"):
            raise ValueError(f"must be above {minimum} and finite")

    return check


def share(value: float) -> None:
    """Check a share of which something is left, or the decay of an average: [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError("must be at least 0 and below 1")


def probability(value: float) -> None:
    """Check a probability: [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError("must lie in 0 to 1")


def workers(value: int) -> None:
    """Check a number of processes that load data."""
    most = max(MOST_WORKERS, WORKERS_PER_CORE * (os.cpu_count() or 1))
    if not 0 <= value <= most:
        raise ValueError(f"must lie in 0 to {most} on this machine; {AUTO} suits most")


def seed_range(value: int) -> None:
    """Check a seed: what torch and NumPy both take."""
    if not 0 <= value < 2**63:
        raise ValueError("must lie in 0 to 2^63 - 1")


def one_of(*allowed: str) -> Callable[[str], None]:
    """Return the check that a word is one of those allowed."""

    def check(value: str) -> None:
        if value not in allowed:
            raise ValueError(f"is none of {', '.join(allowed)}")

    return check


def folder_name(value: str) -> None:
    """Check the name of a folder, which is no path."""
    if value in (".", "..") or set(value) & set("/\\:"):
        raise ValueError("is a name, not a path: the folder goes into --save_model_path")
    if not value.strip() or any(category(letter) in CONTROLS for letter in value):
        raise ValueError("must not be blank, nor hold a line break or another control character")
