"""How well the indicators of a target without labels follow its mIoU, on targets that have labels.

Spearman's rank correlation with `val/mIoU`: over the epochs of each run, over the last half of
them, and, over methods, between the last epochs of all runs on a data set. No correlation of a row
of fewer than three points, or of equal ones, exists.

python benchmarks/indicators.py checkpoints/*     # runs that were trained with --watch_target
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trainings.engine.target import column_of
from trainings.val import scored_on
from utils.disk.run_folder import SCORES, RunFolder
from utils.text import markdown

MIOU = "val/mIoU"
INDICATORS = ("class difference", "entropy", "confidence", "agreement")
FEWEST = 3

Points = Mapping[str, np.ndarray]
"""The values of each column, float64 [epochs]; NaN where a run has none."""


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values, from 1 on; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation of two rows, without the points that lack either; NaN
    where there is none."""
    known = np.isfinite(one) & np.isfinite(other)
    first, second = ranks(one[known]), ranks(other[known])
    if known.sum() < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def points_of(run: Path) -> Points:
    """Return mIoU and the indicators of each epoch of a run."""
    rows = RunFolder(run).read_history()
    columns = {MIOU: MIOU, **{name: column_of(name) for name in INDICATORS}}
    return {
        name: np.array([float(row.get(column) or "nan") for row in rows])
        for name, column in columns.items()
    }


def is_watched(points: Points) -> bool:
    """Return whether some epoch has mIoU and an indicator."""
    return bool(np.isfinite(points[MIOU] + points["entropy"]).any())


def correlations(points: Points) -> list[str]:
    """Return the correlation of each indicator with mIoU, as text."""
    found = (rank_correlation(points[name], points[MIOU]) for name in INDICATORS)
    return ["–" if np.isnan(value) else f"{value:.2f}" for value in found]


def last_half(points: Points) -> Points:
    return {name: values[len(values) // 2 :] for name, values in points.items()}


def table(runs: Mapping[str, Points]) -> str:
    """Return a table of the runs on one data set, by their names."""
    rows: list[Sequence[str]] = [("run", "mIoU %", *(n.replace("_", " ") for n in INDICATORS))]
    for name, points in runs.items():
        first, last = (100 * points[MIOU][place] for place in (0, -1))
        half = correlations(last_half(points))
        cells = (f"{a}, {b}" for a, b in zip(correlations(points), half, strict=True))
        rows.append((name, f"{first:.1f} to {last:.1f}", *cells))
    ends = {
        name: np.array([points[name][-1] for points in runs.values()])
        for name in (MIOU, *INDICATORS)
    }
    rows.append((f"last epochs of the {len(runs)}", "", *correlations(ends)))
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    of_data: dict[str, dict[str, Points]] = {}
    for run in parser.parse_args().runs:
        if not RunFolder(run).has(SCORES) or not is_watched(points := points_of(run)):
            print(f"passed over, no finished run with indicators and mIoU: {run}", file=sys.stderr)
            continue
        validation = RunFolder(run).read_json(SCORES)["validation"]
        of_data.setdefault(scored_on(validation), {})[run.name] = points
    for data, runs in of_data.items():
        print(f"\n{data}: over all epochs, over the last half of them\n\n{table(runs)}")


if __name__ == "__main__":
    main()
