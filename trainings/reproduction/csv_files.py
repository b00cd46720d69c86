"""The tables as a program would like them: results.csv, differences.csv, class_iou.csv."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainings.reproduction.conditions import relative
from trainings.reproduction.lines import Line, class_names, columns, subset_titles
from trainings.reproduction.tables import IDENTITY
from trainings.val import scored_on

TIME = "Train time per epoch (s)"


def csv_files(lines: Sequence[Line], folder: Path) -> dict[str, str]:
    """Return the contents of the files by name. Paths in them are as seen from the folder."""
    of_files = [line for line in lines if not line.is_free]
    return {
        "results.csv": _csv(_scores(of_files, folder)),
        "differences.csv": _csv(_differences(lines)),
        "class_iou.csv": _csv(_classes(of_files)),
    }


def _scores(lines: Sequence[Line], folder: Path) -> Iterator[Sequence[Any]]:
    """Yield a row per config, seed, method and kind of scores."""
    of_scores = ("Seed", "Domain", "Epoch", "Batch-norm statistics", "Accuracy %", "mIoU %")
    subsets = subset_titles(lines)
    of_subsets = (f"mIoU of {title} %" for title in subsets)
    yield (*IDENTITY, *of_scores, TIME, "Run folder", "Scores", "Data", *of_subsets)
    for line in lines:
        for seed, run in line.runs.items():
            record = run.record
            seconds = f"{record['mean_epoch_seconds']:.3f}" if record else ""
            for kind, scores in run.scores(line.domain).items():
                shares = (_exact(scores.accuracy), _exact(scores.miou))
                places = (relative(run.folder, folder), relative(scores.file, folder))
                where = (run.title(line.domain), *kind, *shares, seconds, *places)
                means = (_exact(scores.subsets.get(title)) for title in subsets)
                yield (*line.identity, seed, *where, scored_on(scores.validation), *means)


def _differences(lines: Sequence[Line]) -> Iterator[Sequence[Any]]:
    of_scores = ("Epoch", "Batch-norm statistics", "Difference", "Low", "High", "Leaves 0 out")
    yield (*IDENTITY, *of_scores, "Source-only's statistics", "Data")
    for line in lines:
        for compared, difference in line.comparisons.items():
            *shares, _ = difference
            kind = line.kind(compared.method)
            numbers = (*kind, *map(_exact, shares), difference.clear, compared.source_only[1])
            yield (*line.identity, *numbers, line.data(compared.method))


def _classes(lines: Sequence[Line]) -> Iterator[Sequence[Any]]:
    """Yield mIoU and IoU per class in %, means over the seeds; an absent class is empty."""
    classes, kinds = class_names(lines), columns(lines)
    yield (*IDENTITY, "Epoch", "Batch-norm statistics", "mIoU %", *classes, "Data")
    for line in lines:
        for kind in kinds:
            if line.scores(kind):
                shares = map(_exact, line.iou_means(kind, classes))
                yield (*line.identity, *kind, *shares, line.data(kind))


def _exact(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3f}"


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
