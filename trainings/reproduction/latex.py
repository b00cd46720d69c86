"""The main tables as LaTeX, for a paper with the package booktabs."""

import re
from collections.abc import Sequence

from trainings.reproduction.lines import Line, by_config, target_data
from trainings.reproduction.summary import reading
from trainings.reproduction.tables import MAIN, NOTE, SEEDS_NOTE, main_row

SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "–": "--",
}


def latex_tables(lines: Sequence[Line], commands: Sequence[str]) -> str:
    """Return a `table` for each config, under comments that name the package it needs and the
    commands that repeat it."""
    comments = [r"\usepackage{booktabs}", *(one for c in commands for one in c.splitlines())]
    comment = "".join(f"% {one}\n" for one in comments)
    return comment + "\n".join(_table(config, own) for config, own in by_config(lines).items())


def _table(config: str, lines: Sequence[Line]) -> str:
    caption = f"{config}: {target_data(lines)}."
    several = any(len(line.runs) > 1 for line in lines)
    notes = " ".join([caption, *reading(lines), NOTE, *([SEEDS_NOTE] if several else [])])
    body = "\n".join(_row([math_minus(escaped(c)) for c in main_row(line)]) for line in lines)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(notes)}}}",
            r"\begin{tabular}{ll" + "r" * (len(MAIN) - 2) + "}",
            r"\toprule",
            _row([escaped(heading) for heading in MAIN]),
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def math_minus(cell: str) -> str:
    """Return the cell with minus signs in front of numbers, not hyphens."""
    return re.sub(r"-(?=\d)", "$-$", cell)


def escaped(text: str) -> str:
    """Return the text with LaTeX's special characters as they print."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)
