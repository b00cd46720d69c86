"""Indicators of targets without labels: what each method has recorded after its last epoch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from datasets.data_set import Role
from trainings.engine.target import INDICATORS, SHARE_COLUMN, column_of
from trainings.reproduction.lines import Line, Spread, listed
from trainings.reproduction.results import Run

MOSTLY_ONE_CLASS = 0.8
"""Share of the pixels from which one class is said to have taken over the pictures."""


class Indicators(NamedTuple):
    """The indicators of a line on a target without labels, in %: means over the seeds.

    Attributes:
        values: by the names in `INDICATORS`, None where the runs have no such one.
        common: the class that is predicted most often, and its share of the pixels.
    """

    line: Line
    values: Mapping[str, Spread | None]
    common: tuple[str, Spread]

    @property
    def is_collapse(self) -> bool:
        """Whether one class is predicted nearly everywhere."""
        return self.common[1].mean > 100 * MOSTLY_ONE_CLASS


def indicators(lines: Sequence[Line]) -> dict[str, list[Indicators]]:
    """Return the indicators of all lines that have any, by the target without labels."""
    found: dict[str, list[Indicators]] = {
        line.unlabelled_target: [] for line in lines if line.unlabelled_target
    }
    for line in lines:
        runs = [*line.runs.values()]
        target = line.unlabelled_target
        if line.is_source_only and not line.on_target:  # which may have looked at it, too
            target = listed(run.title(Role.TARGET) for run in runs)
        shares = {name: spread for name in _classes(runs) if (spread := _last(runs, name))}
        if target in found and shares:
            common = max(shares, key=lambda name: shares[name].mean)
            values = {name: _last(runs, column_of(name)) for name in INDICATORS}
            one = Indicators(line, values, (common.removeprefix(SHARE_COLUMN), shares[common]))
            found[target].append(one)
    return {target: of_target for target, of_target in found.items() if of_target}


def indicator_sentence(of_target: Sequence[Indicators]) -> str:
    """Return what a reader of the indicators must know, and which methods have collapsed."""
    alarms = [
        f"{one.line.series} sees {one.common[0]} in {one.common[1].text()} % of the pixels: look "
        "at its pictures before you use it."
        for one in of_target
        if one.is_collapse
    ]
    return " ".join(
        [
            "No indicator is a score and none may choose a method: a network can be sure, agree "
            "with its own average, and be wrong.",
            *alarms,
        ]
    )


def _classes(runs: Sequence[Run]) -> list[str]:
    """Return the columns of the classes' shares."""
    names = (name for run in runs for row in run.history[-1:] for name in row)
    return [*dict.fromkeys(name for name in names if name.startswith(SHARE_COLUMN))]


def _last(runs: Sequence[Run], column: str) -> Spread | None:
    """Return the spread of a column's last values, in %."""
    return Spread.of([100 * curve[-1][1] for run in runs if (curve := run.curve(column))])
