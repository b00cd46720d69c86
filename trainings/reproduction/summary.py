"""Collect the entries of the main table for each method, and write the sentences that read it."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from trainings.reproduction.comparisons import (
    AS_TRAINED,
    BOTH_ADAPTED,
    WITH_FREE,
    Comparisons,
    compare,
)
from trainings.reproduction.differences import FEWEST_IMAGES, Difference
from trainings.reproduction.lines import ADAPTED, LAST, Line, listed
from trainings.scoring.batch_norm import TARGET


class Spread(NamedTuple):
    """A mean over seeds, and the standard deviation of two or more."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread | None":
        """Return the spread of the values that are present, None where none is."""
        present = [value for value in values if value is not None]
        if not present:
            return None
        deviation = statistics.stdev(present) if len(present) > 1 else None
        return cls(statistics.mean(present), deviation)

    def text(self) -> str:
        mean = f"{self.mean:.1f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.1f}"


class Entry(NamedTuple):
    """A line of the main table: shares in %, seconds of an epoch."""

    line: Line
    accuracy: Spread | None
    miou: Spread | None
    adapted: Spread | None
    seconds: Spread | None
    comparisons: Comparisons

    @property
    def name(self) -> str:
        """The method with its beta."""
        return f"{self.line.title} {self.line.beta}".strip()

    @property
    def over_source_only(self) -> Difference | None:
        return self.comparisons.get(AS_TRAINED)

    @property
    def over_adapted(self) -> Difference | None:
        """The difference to source-only where both have the target's statistics."""
        return self.comparisons.get(BOTH_ADAPTED)

    @property
    def is_free(self) -> bool:
        """Whether it is source-only with the target's statistics."""
        return self.line.row.statistics == TARGET

    @property
    def adapts(self) -> bool:
        """Whether it is a method that is to beat source-only: trained without target labels."""
        row = self.line.row
        return row.on_target and not (row.is_baseline or row.has_target_labels or self.is_free)


def summarise(lines: Sequence[Line]) -> list[Entry]:
    """Return the entries of lines, in their order."""
    pairs = zip(lines, compare(lines), strict=True)
    return [_entry(line, comparisons) for line, comparisons in pairs]


def _entry(line: Line, comparisons: Comparisons) -> Entry:
    last, adapted = line.scores(LAST).values(), line.scores(ADAPTED).values()
    records = [] if line.row.is_ensemble else [run.record for run in line.runs.values()]
    return Entry(
        line,
        accuracy=_percent([scores.accuracy for scores in last]),
        miou=_percent([scores.miou for scores in last]),
        adapted=_percent([scores.miou for scores in adapted]),
        seconds=Spread.of([record["mean_epoch_seconds"] for record in records if record]),
        comparisons=comparisons,
    )


def _percent(shares: Sequence[float | None]) -> Spread | None:
    return Spread.of([None if share is None else 100 * share for share in shares])


def points(difference: Difference) -> str:
    """Return a difference in points of mIoU, as in "+6.5"; there is no "-0.0"."""
    return f"{round(100 * difference.value, 1) + 0:+.1f}"


def interval(difference: Difference) -> str:
    """Return the 95 % interval of a difference in points; empty where it is not known."""
    if difference.low is None or difference.high is None:
        return ""
    return f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def reading(entries: Sequence[Entry]) -> list[str]:
    """Return the sentences that say what the main table of one config shows."""
    methods = [entry for entry in entries if entry.adapts and entry.miou]
    unlabelled = listed(entry.line.unlabelled_target for entry in entries)
    if not methods and unlabelled:
        return [
            f"No method is ranked: {unlabelled} has no labels, so that these scores are of the "
            "source's validation split and do not tell how well a network does on the target."
        ]
    if not methods:
        return ["No method that adapts to the target has been scored yet."]
    scored = [(entry, entry.miou) for entry in methods if entry.miou]
    best, miou = max(scored, key=lambda pair: pair[1].mean)
    over = f" ({_in_words(best.over_source_only)} source-only)" if best.over_source_only else ""
    sentences = [f"{best.name} has the highest mIoU without target labels: {miou.text()}{over}."]
    return sentences + _against_free(entries, methods)


def _against_free(entries: Sequence[Entry], methods: Sequence[Entry]) -> list[str]:
    """Return a sentence that compares with what costs nothing, where that has been scored."""
    free = next((entry.miou for entry in entries if entry.is_free and entry.miou), None)
    if free is None:
        return []
    what = f"source-only with target statistics ({free.text()}), which costs nothing"
    for kind, how in ((WITH_FREE, "as trained"), (BOTH_ADAPTED, "with target statistics")):
        found = [(entry.comparisons[kind], entry) for entry in methods if kind in entry.comparisons]
        if found and found[0][0].images < FEWEST_IMAGES:
            return [f"{found[0][0].images} images are too few to compare with {what}."]
        winners = [one for one in found if one[0].clear and one[0].value > 0]
        if winners:
            difference, entry = max(winners, key=lambda one: one[0].value)
            return [f"{entry.name} {how} beats {what}, by {points(difference)[1:]} points."]
    return [f"No method is shown to beat {what}."]


def _in_words(difference: Difference) -> str:
    return f"{points(difference)[1:]} points {'over' if difference.value >= 0 else 'below'}"
