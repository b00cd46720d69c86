"""Lines of the report: the rows of its tables, each for one config, with the runs of all seeds."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.data_set import Role
from datasets.labels import CLASS_NAMES
from trainings.reproduction.differences import Difference
from trainings.reproduction.kinds import AVERAGE_HEADINGS, HEADINGS, LAST, Compared
from trainings.reproduction.results import Run, Scores
from trainings.reproduction.steps import Step
from trainings.scoring.batch_norm import TARGET
from trainings.scoring.record import Kind
from trainings.val import scored_on


class Spread(NamedTuple):
    """A mean over seeds, and the standard deviation of two or more."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return the spread of values, None where there are none."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.mean(values), deviation)

    def text(self) -> str:
        mean = f"{self.mean:.1f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.1f}"


class Line(NamedTuple):
    """A row of the tables: a step for one config, with its runs.

    Attributes:
        method: the step's title, with what tells its lines apart beside the beta.
        beta: in words; empty where it has none.
        runs: by seed.
        domain: the data set of its scores.
        comparisons: with source-only of its config; none for lines that are not compared.
    """

    step: Step
    method: str
    beta: str
    config: str
    runs: Mapping[int, Run]
    domain: Role
    comparisons: Mapping[Compared, Difference] = {}

    @property
    def on_target(self) -> bool:
        """Whether its scores are of the target."""
        return self.domain is Role.TARGET

    @property
    def is_ensemble(self) -> bool:
        return self.step.ensemble_round is not None

    @property
    def is_free(self) -> bool:
        """Whether it is source-only with the target's statistics: it has no other scores."""
        return self.step.statistics == TARGET

    @property
    def has_target_labels(self) -> bool:
        """Whether it is trained on the target's labels."""
        return self.step.experiment.source is Role.TARGET

    @property
    def is_source_only(self) -> bool:
        """Whether it is trained on the source alone."""
        experiment = self.step.experiment
        return experiment.source is Role.SOURCE and not experiment.target

    @property
    def adapts(self) -> bool:
        """Whether it is a method that is to beat source-only: trained without target labels."""
        is_reference = self.step.baseline or self.is_free or self.has_target_labels
        return self.on_target and not is_reference

    @property
    def title(self) -> str:
        """The method, and the data set of its scores where it is the source."""
        return self.method if self.on_target else f"{self.method}, on the source"

    @property
    def name(self) -> str:
        """The method with the beta, and the data set of its scores where it is the source."""
        return self.series if self.on_target else f"{self.series}, on the source"

    @property
    def series(self) -> str:
        """The method with the beta, which is its name in pictures."""
        return f"{self.method} {self.beta}".strip()

    @property
    def unlabelled_target(self) -> str:
        """Return the data set that the runs adapt to without any scores on it; else empty."""
        if self.on_target:
            return ""
        return listed(
            run.record.get("training", {}).get("target_data_set") for run in self.runs.values()
        )

    @property
    def identity(self) -> tuple[str, ...]:
        return self.step.number, self.title, self.config, self.beta

    def kind(self, column: Kind) -> Kind:
        """Return the kind of this line's scores in a column of the tables."""
        select, statistics = column
        return select, TARGET if self.is_free else statistics

    def scores(self, column: Kind) -> dict[int, Scores]:
        """Return the scores of a column by seed, without the seeds that lack them."""
        kind = self.kind(column)
        found = ((seed, run.scores(self.domain)) for seed, run in self.runs.items())
        return {seed: scores[kind] for seed, scores in found if kind in scores}

    def accuracy(self, column: Kind = LAST) -> Spread | None:
        """Return the pixel accuracy in %."""
        return _in_percent(scores.accuracy for scores in self.scores(column).values())

    def miou(self, column: Kind = LAST) -> Spread | None:
        """Return the mIoU in %."""
        return _in_percent(scores.miou for scores in self.scores(column).values())

    def epoch_seconds(self) -> Spread | None:
        """Return the seconds of an epoch; None for an ensemble, which is not trained."""
        records = [] if self.is_ensemble else [run.record for run in self.runs.values()]
        return Spread.of([record["mean_epoch_seconds"] for record in records if record])

    def data(self, column: Kind) -> str:
        """Return in words what a column's scores were computed on: a data set and its images."""
        return listed(scored_on(scores.validation) for scores in self.scores(column).values())

    def iou_means(
        self, column: Kind, classes: Sequence[str], subsets: Sequence[str] = ()
    ) -> list[float | None]:
        """Return the mIoU, the IoU of the classes of these names, and the mIoU of the subsets of
        these titles, 0 to 1: means over the seeds that have them."""
        of_seeds = self.scores(column).values()
        return [
            _mean([scores.miou for scores in of_seeds]),
            *(_mean([scores.class_iou.get(name) for scores in of_seeds]) for name in classes),
            *(_mean([scores.subsets.get(title) for scores in of_seeds]) for title in subsets),
        ]


def columns(lines: Sequence[Line]) -> dict[Kind, str]:
    """Return `HEADINGS`, with those of averaged weights that some line has scores of."""
    averaged = {
        kind: end
        for kind, end in AVERAGE_HEADINGS.items()
        if any(line.scores(kind) for line in lines)
    }
    return HEADINGS | averaged


def _all(lines: Iterable[Line]) -> Iterator[Scores]:
    """Yield the scores of every kind that has columns."""
    for line in lines:
        for kind in HEADINGS:
            yield from line.scores(kind).values()


def subset_titles(lines: Iterable[Line]) -> tuple[str, ...]:
    """Return the titles of all subsets of classes that some line has a mean of."""
    return tuple(dict.fromkeys(title for scores in _all(lines) for title in scores.subsets))


def class_names(lines: Iterable[Line]) -> tuple[str, ...]:
    """Return the names of all classes that are scored in some line, in their order."""
    names = dict.fromkeys(name for scores in _all(lines) for name in scores.class_iou)
    return tuple(names) or CLASS_NAMES


def by_config(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Return the lines of each config."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.config, []).append(line)
    return found


def all_runs(lines: Iterable[Line]) -> Iterator[tuple[Line, int, Run]]:
    """Yield every run once, with its seed and the first line that it is in."""
    seen: set[Path] = set()
    for line in lines:
        for seed, run in line.runs.items():
            if run.folder not in seen:
                seen.add(run.folder)
                yield line, seed, run


def data_of(lines: Sequence[Line]) -> str:
    """Return in words what the trainings adapt from and what the scores are of, as in "GTA5 →
    Cityscapes, 500 validation images"."""
    records = [
        (run.record.get("training", {}), run.title(Role.SOURCE)) for _, _, run in all_runs(lines)
    ]
    sources = (
        record.get("source_data_set") for record, title in records if record.get("source") == title
    )
    source = listed(sources) or "unrecorded source"
    target = target_data(lines)
    unlabelled = listed(line.unlabelled_target for line in lines)
    if unlabelled and scored_on_target(lines):
        target += f"; adapted to {unlabelled} without labels: on {own_split(lines)}"
    elif unlabelled:
        return f"{source} → {unlabelled}, scored on {target}"
    city, _, look = source.partition(", ")
    return f"{source} → {target.removeprefix(f'{city}, ') if look else target}"


def scored_on_target(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that have scores on the target."""
    on_target = (line for line in lines if line.on_target)
    return [line for line in on_target if any(line.scores(kind) for kind in HEADINGS)]


def is_ranked(lines: Sequence[Line]) -> bool:
    """Return whether methods are ranked: not where the target has no labels and no scores."""
    return bool(scored_on_target(lines)) or not any(line.unlabelled_target for line in lines)


def shown_lines(lines: Sequence[Line]) -> list[Line]:
    """Return the lines on the target, or those on the source where the target has no labels."""
    on_target = [line for line in lines if line.on_target]
    return on_target or [line for line in lines if line.scores(LAST)]


def target_data(lines: Sequence[Line]) -> str:
    """Return in words what the scores on the target are of; where the target has no labels, those
    on the source."""
    on_target = listed(line.data(kind) for line in scored_on_target(lines) for kind in HEADINGS)
    return on_target or own_split(lines) or "no scores"


def own_split(lines: Sequence[Line]) -> str:
    """Return in words what the scores of runs are of whose target has no labels, else nothing."""
    of = listed(line.data(LAST) for line in lines if line.unlabelled_target)
    return f"the source, {of}" if of else ""


def source_data(lines: Sequence[Line]) -> str:
    """Return in words what the scores on the source are of; empty where there are none."""
    return listed(line.data(LAST) for line in lines if not line.on_target)


def listed(texts: Iterable[str | None]) -> str:
    """Return the texts that are not empty, each once, joined by "and", as one reads texts that
    have commas and texts that have none."""
    found = [*dict.fromkeys(filter(None, texts))]
    return (", and " if any("," in text for text in found) else " and ").join(found)


def _in_percent(shares: Iterable[float | None]) -> Spread | None:
    return Spread.of([100 * share for share in shares if share is not None])


def _mean(shares: Sequence[float | None]) -> float | None:
    """Return the mean of the shares that are present, None where none is."""
    present = [share for share in shares if share is not None]
    return statistics.mean(present) if present else None
