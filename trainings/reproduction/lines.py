"""Lines of the report: the rows of its tables, each for one config, with the runs of all seeds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from datasets.data_set import Role
from datasets.labels import CLASS_NAMES
from trainings.reproduction.results import Row, Run, Scores
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.record import Kind
from trainings.val import scored_on

LAST, BEST, ADAPTED = ("last", TRAINING), ("best", TRAINING), ("last", TARGET)
HEADINGS = {LAST: "", BEST: ", best epoch", ADAPTED: ", target statistics"}
"""Kinds of scores that have columns in the tables, and the ends of the columns' headings."""


class Line(NamedTuple):
    """A row of the tables for one config, with its runs by seed."""

    row: Row
    config: str
    runs: Mapping[int, Run]

    @property
    def identity(self) -> tuple[str, ...]:
        where = ", on the source" if self.row.domain is Role.SOURCE else ""
        beta = "" if self.row.beta is None else f"{self.row.beta:g}"
        return self.row.number, f"{self.row.title}{where}", self.config, beta

    def scores(self, column: Kind) -> dict[int, Scores]:
        """Return the scores of a column by seed, without the seeds that lack them."""
        kind = self.row.kind(column)
        found = ((seed, run.scores(self.row.domain)) for seed, run in self.runs.items())
        return {seed: scores[kind] for seed, scores in found if kind in scores}

    def data(self, column: Kind) -> str:
        """Return in words what a column's scores were computed on: a data set and its images."""
        return listed(scored_on(scores.validation) for scores in self.scores(column).values())

    def iou_means(self, column: Kind) -> list[float | None]:
        """Return mIoU and IoU per class, 0 to 1: means over the seeds that have the class."""
        of_seeds = self.scores(column).values()
        of_classes = [_mean([s.class_iou[name] for s in of_seeds]) for name in CLASS_NAMES]
        return [_mean([scores.miou for scores in of_seeds]), *of_classes]


def listed(texts: Iterable[str | None]) -> str:
    """Return the texts that are not empty, each once, joined by "and"."""
    return " and ".join(dict.fromkeys(filter(None, texts)))


def _mean(shares: Sequence[float | None]) -> float | None:
    """Return the mean of the shares that are present, None where none is."""
    present = [share for share in shares if share is not None]
    return statistics.mean(present) if present else None
