"""Tables in Markdown, and lists, sizes and shares in sentences."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

SHOWN = 3
"""Items of a list that a sentence shows."""


def markdown(rows: Sequence[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """Return a table in Markdown that is aligned as text, too; the first row is its head, and the
    columns `numbers` are set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " | ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rules = [
        "-" * (width + 1) + (":" if column in numbers else "-")
        for column, width in enumerate(widths)
    ]
    head, *body = [f"| {line} |" for line in lines]
    return "\n".join([head, f"|{'|'.join(rules)}|", *body]) + "\n"


def dimensions(shape: Iterable[int]) -> str:
    """Return a size, such as 512x1024 of (512, 1024)."""
    return "x".join(map(str, shape))


def in_percent(share: float | None, decimals: int = 2) -> str:
    """Return a share in %, without the sign; None and NaN are nan."""
    return "nan" if share is None else f"{100 * share:.{decimals}f}"


def in_gigabytes(count: int) -> str:
    """Return a number of bytes, such as 1.25 GB."""
    return f"{count / 1e9:.2f} GB"


def first_few(items: Sequence[Any]) -> str:
    """Return the first few items as text, and how many more there are."""
    shown = ", ".join(map(str, items[:SHOWN])) or "none"
    more = len(items) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
