"""Write the measurements of `benchmark` as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from utils.text import markdown

NAMING = ("network", "backend", "precision", "method")
"""Entries that name a case that was not measured."""


def report(record: Mapping[str, Any]) -> str:
    """Return the record as Markdown."""
    included = record["included"]
    packages = [f"{name} {record['versions'][name]}" for name in record["packages"]]
    cpu = () if record["cpu"] in record["machine"] else (f"CPU {record['cpu']}",)
    lines = [
        ", ".join([record["machine"], *packages, *cpu]),
        *map(_in_a_line, record["networks"]),
        f"FLOPs: {included['FLOPs']}.",
        _table(record["inference"]),
        f"Inference: {included['inference']}.",
        _table(record["training"]),
        f"Training: {included['training']}." if record["training"] else "",
        *dict.fromkeys(f"Not measured: {_not_measured(case)}" for case in record["not_measured"]),
    ]
    return "\n\n".join(line.strip() for line in lines if line) + "\n"


def _in_a_line(network: Mapping[str, Any]) -> str:
    """Return the description of a network as a sentence."""
    gflops = ", ".join(f"{value:.2f} at {size}" for size, value in network["GFLOPs"].items())
    return (
        f"{network['network']}, {network['backbone']} of width {network['base_width']}: "
        f"{network['parameters'] / 1e6:.2f} M parameters as deployed, "
        f"{network['training_parameters'] / 1e6:.2f} M in training; GFLOPs {gflops}."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of rows that have the same names; nothing without a row."""
    if not rows:
        return ""
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    head = [name.replace("_", " ") for name in columns]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    right = [place for place, name in enumerate(columns) if not isinstance(rows[0][name], str)]
    return markdown([head, *cells], numbers=right)


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _not_measured(case: Mapping[str, str]) -> str:
    """Return why a case is not in the tables; the sentence is equal for all sizes."""
    names = (case[name] for name in NAMING if name in case)
    return f"{' '.join(names)}: {case['why']}"
