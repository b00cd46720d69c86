"""Every method compared with source-only, and with source-only of the target's statistics."""

import statistics
from collections.abc import Mapping, Sequence

from trainings.reproduction.conditions import Conditions
from trainings.reproduction.differences import Difference, paired_difference
from trainings.reproduction.kinds import ADAPTED, COMPARED, Compared
from trainings.reproduction.lines import Line
from trainings.reproduction.results import Scores


def compared(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with their comparisons with source-only of their config, over the seeds that
    both have; none for source-only itself, and for lines on the source."""
    return [line._replace(comparisons=_compare(line, _baseline_of(line, lines))) for line in lines]


def _baseline_of(line: Line, lines: Sequence[Line]) -> Line | None:
    """Return the source-only line that a line is compared with: that of its config, and of several
    the one whose training has the most settings in common with it."""
    found = [one for one in lines if one.step.baseline and one.config == line.config]
    return max(found, key=lambda one: _settings_in_common(one, line), default=None)


def _settings_in_common(one: Line, other: Line) -> int:
    settings = [next(iter(line.runs.values())).settings for line in (one, other) if line.runs]
    if len(settings) < 2:
        return 0
    ours, theirs = settings
    return sum(theirs.get(name) == value for name, value in ours.items())


def _compare(line: Line, source_only: Line | None) -> dict[Compared, Difference]:
    if source_only is None or line is source_only or not line.on_target:
        return {}
    found = {
        kinds: _difference(line.scores(kinds.method), source_only.scores(kinds.source_only))
        for kinds in COMPARED
        # Source-only with the target's statistics would be compared with itself.
        if not (line.is_free and kinds.source_only == ADAPTED)
    }
    return {kinds: difference for kinds, difference in found.items() if difference}


def _difference(method: Mapping[int, Scores], other: Mapping[int, Scores]) -> Difference | None:
    """Return None where no seed has both, or they were not scored on the same images."""
    seeds = [seed for seed in method if seed in other]
    pairs = [(method[seed], other[seed]) for seed in seeds]
    scored = [scores for pair in pairs for scores in pair]
    if not pairs or len({scores.validation.get("data_set") for scores in scored} - {None}) > 1:
        return None
    counted = [(one.counts(), two.counts()) for one, two in pairs]
    counts = [(one, two) for one, two in counted if one and two]
    if not counts:
        return _of_means(pairs)
    names = [one_of_two[0] for pair in counts for one_of_two in pair]
    if any(one != names[0] for one in names):
        return None
    return paired_difference([one[1] for one, _ in counts], [two[1] for _, two in counts])


def _of_means(pairs: Sequence[tuple[Scores, Scores]]) -> Difference | None:
    """Return a difference without its interval; None where the images may be others."""
    conditions = [Conditions.of(scores) for pair in pairs for scores in pair]
    if not all(conditions[0].alike(one) for one in conditions):
        return None
    mious = [(one.miou, two.miou) for one, two in pairs]
    values = [one - two for one, two in mious if one is not None and two is not None]
    if not values:
        return None
    return Difference(statistics.mean(values), None, None, conditions[0].images)
