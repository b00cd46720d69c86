"""results.html: the report as one file that opens from a disk, without a network.

`templates/results.html.jinja` holds its structure; `style.css` and `script.js` go into it. This
file turns the numbers into what the template shows: texts, and places on axes in %.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainings.reproduction.conditions import relative
from trainings.reproduction.differences import Difference
from trainings.reproduction.figures import curve_charts
from trainings.reproduction.indicators import indicator_sentence, indicators
from trainings.reproduction.kinds import ADAPTED, AS_TRAINED, BOTH_ADAPTED, LAST, WITH_FREE
from trainings.reproduction.lines import (
    Line,
    all_runs,
    by_config,
    class_names,
    columns,
    data_of,
    is_ranked,
    scored_on_target,
    shown_lines,
    source_data,
    subset_titles,
    target_data,
)
from trainings.reproduction.missing import not_measured
from trainings.reproduction.page_charts import svg_chart
from trainings.reproduction.results import Run
from trainings.reproduction.sheets import Shown
from trainings.reproduction.summary import reading
from trainings.reproduction.tables import (
    INDICATOR_HEAD,
    INDICATOR_NOTE,
    MISSING,
    cell,
    indicator_row,
    initial_weights,
    length,
    network,
)
from trainings.reproduction.viewer import viewer
from trainings.scoring.record import Kind
from utils.cli.options import Options
from utils.cli.repeat import repeating_command
from utils.pictures.charts import cell_text
from utils.pictures.looks import COLORS, DARK_COLORS, Look
from utils.text import dimensions

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "results.html.jinja"

Context = dict[str, Any]


class Report(NamedTuple):
    """Content of the page.

    Attributes:
        name: the folder's.
        lines: the rows of the tables, compared.
        shown: the pictures of each config that has any.
        looks: of each method.
        warnings: sentences on scores that cannot be compared.
        commands: those that repeat it all.
        folder: which paths are given from.
        settings_type: the dataclass of all flags.
    """

    name: str
    lines: Sequence[Line]
    shown: Sequence[Shown]
    looks: Mapping[str, Look]
    warnings: Sequence[str]
    commands: Sequence[str]
    folder: Path
    settings_type: type[Options]


def page(report: Report) -> str:
    """Return the page as HTML. All values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only reports need it

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(TEMPLATE).render(_context(report))


def _context(report: Report) -> Context:
    lines = report.lines
    kinds = columns(lines)
    configs = by_config(lines)
    return {
        "name": report.name,
        "data": data_of(lines),
        "target": target_data(lines),
        "source": source_data(lines) if scored_on_target(lines) else "",
        "warnings": report.warnings,
        "commands": report.commands,
        "palettes": [*zip(COLORS, DARK_COLORS, strict=True)],
        "ranked": is_ranked(lines),
        "stories": [_story(config, own, report) for config, own in configs.items()],
        "kinds": [ending.removeprefix(", ") for ending in kinds.values()],
        "numbers": [_numbers(line, kinds, report) for line in lines],
        "indicators": _indicators(report),
        "indicator_note": INDICATOR_NOTE,
        "several_configs": len(configs) > 1,
        "several_seeds": any(len(line.runs) > 1 for line in lines),
        "viewer": viewer(report.shown, lines, report.looks),
        "class_names": [
            *class_names(lines),
            *(f"mIoU of {title}" for title in subset_titles(lines)),
        ],
        "class_tables": [
            table for c, own in configs.items() for table in _class_tables(c, own, report)
        ],
        "charts": [
            svg_chart(chart, report.looks)
            for config, own in configs.items()
            for chart in curve_charts(config, shown_lines(own))
            if chart.names
        ],
        "runs": [_run(line, seed, run, report) for line, seed, run in all_runs(lines)],
        "not_measured": not_measured(lines),
    }


# ------------------------------------------------------------------------------- the story, numbers


def _story(config: str, lines: Sequence[Line], report: Report) -> Context:
    """Return a config's sentences and a row per method, with places on axes of their own."""
    mious = [line.miou(kind) for line in lines for kind in (LAST, ADAPTED)]
    means = [miou.mean for miou in mious if miou]
    scale = _Scale(0, max([1.0, *means]) * 1.04)
    found = [difference for line in lines for difference in line.comparisons.values()]
    axis = _Scale.around(
        [100 * value for d in found for value in (d.value, d.low, d.high) if value is not None]
    )
    return {
        "config": config,
        "sentences": reading(lines),
        "zero": axis.place(0),
        "rows": [
            _story_row(line, report.looks[line.series], scale, axis) for line in shown_lines(lines)
        ],
    }


def _story_row(line: Line, look: Look, scale: "_Scale", axis: "_Scale") -> Context:
    miou, adapted = line.miou(), None if line.is_free else line.miou(ADAPTED)
    return {
        "name": line.name,
        "look": look,
        "kind": _kind_of(line),
        "miou": miou and miou.text(),
        "value": miou.mean if miou else -1,
        "dot": miou and scale.place(miou.mean),
        "adapted": adapted and adapted.text(),
        "ring": adapted and scale.place(adapted.mean),
        "over": _bar(line.comparisons.get(AS_TRAINED), axis),
        "over_free": _bar(line.comparisons.get(WITH_FREE), axis),
        "both_adapted": _bar(line.comparisons.get(BOTH_ADAPTED), axis),
    }


def _kind_of(line: Line) -> str:
    if line.has_target_labels:
        return "trained on the target's labels"
    if line.step.baseline:
        return "baseline"
    return "baseline that costs nothing" if line.is_free else ""


class _Scale(NamedTuple):
    """An axis from one value to another; places on it are in %."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "_Scale":
        """Return an axis that holds all values and 0, with some room at both ends."""
        low, high = min([0.0, *values]), max([0.0, *values])
        room = 0.04 * (high - low or 1)
        return cls(low - room, high + room)

    def place(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def _bar(difference: Difference | None, axis: _Scale) -> Context | None:
    """Return a difference in words, and the places of its value and its interval."""
    if difference is None:
        return None
    low, high = (
        axis.place(100 * (difference.value if end is None else end))
        for end in (difference.low, difference.high)
    )
    sign = "up" if difference.value > 0 else "down"
    return {
        "text": difference.points(),
        "interval": difference.interval(),
        "value": 100 * difference.value,
        "place": axis.place(100 * difference.value),
        "low": low,
        "width": round(high - low, 2),
        "sign": sign if difference.clear else "unclear",
    }


def _numbers(line: Line, kinds: Iterable[Kind], report: Report) -> Context:
    """Return every number of a line, each as a text and as a value to sort by."""
    spreads = [spread for kind in kinds for spread in (line.accuracy(kind), line.miou(kind))]
    return {
        "step": line.step.number,
        "name": line.name,
        "config": line.config,
        "look": report.looks[line.series],
        "seeds": ", ".join(map(str, line.runs)) or MISSING,
        "cells": [
            {"text": cell(spread), "value": spread.mean if spread else ""}
            for spread in (*spreads, line.epoch_seconds())
        ],
    }


def _indicators(report: Report) -> list[Context]:
    """Return the table of indicators of each target without labels."""
    return [
        {
            "target": target,
            "sentence": indicator_sentence(of_target),
            "head": INDICATOR_HEAD[1:],
            "rows": [
                {"look": report.looks[one.line.series], "cells": indicator_row(one)}
                for one in of_target
            ],
        }
        for target, of_target in indicators(report.lines).items()
    ]


# ------------------------------------------------------------------------------------------ classes


def _class_tables(config: str, lines: Sequence[Line], report: Report) -> list[Context]:
    """Return the IoU per class of a config's lines on the target, for each kind of scores."""
    tables, classes, subsets = [], class_names(report.lines), subset_titles(report.lines)
    for kind, title in ((LAST, "as trained"), (ADAPTED, "with target statistics")):
        scored = [
            (line, line.iou_means(kind, classes, subsets))
            for line in shown_lines(lines)
            # With target statistics, the row of source-only has these scores.
            if line.scores(kind) and not (kind == ADAPTED and line.is_free)
        ]
        top = max((share or 0 for _, means in scored for share in means), default=0) or 1
        rows = [
            {
                "name": line.series,
                "look": report.looks[line.series],
                "cells": [_class_cell(share, top) for share in means],
            }
            for line, means in scored
        ]
        if rows:
            tables.append({"config": config, "title": title, "rows": rows})
    return tables


def _class_cell(share: float | None, top: float) -> Context:
    percent = None if share is None else 100 * share
    return {
        "text": cell_text(percent),
        "absent": share is None,
        "shade": 0 if share is None else round(share / top, 3),
        "value": -1 if percent is None else round(percent, 3),
    }


# -------------------------------------------------------------------------------------------- runs


def _run(line: Line, seed: int, run: Run, report: Report) -> Context:
    """Return a run's command, its scores in short and its conditions."""
    scores = run.scores(line.domain).get(line.kind(LAST))
    miou = None if scores is None else scores.miou
    where = "" if line.on_target else " on the source"
    return {
        "name": line.series,
        "config": line.config,
        "look": report.looks[line.series],
        "seed": seed,
        "miou": "not scored" if miou is None else f"mIoU {100 * miou:.1f} %{where}",
        "command": repeating_command(report.settings_type, run.settings),
        "folder": relative(run.folder, report.folder),
        "conditions": {name: text for name, text in _conditions(run).items() if text},
    }


def _conditions(run: Run) -> dict[str, str]:
    of, record = run.settings, run.record
    optimizer = (
        f"{of['optimizer']}, learning rate {of['learning_rate']:g}, batch {of['batch_size']}"
    )
    found = {"Network": f"{network(of)}, at {dimensions(of['image_size'])}"}
    if run.is_ensemble:  # its flags are not those that its members were trained with
        return found
    found |= {
        "Trained with": f"{optimizer}, {length(of)}",
        "Augmentation": of["aug_method"] or "none",
        "Initial weights": initial_weights(of),
    }
    if not record:
        return found | {"State": "not finished"}
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return found | {
        "Images": ", ".join(run.trained_on()),
        "Scored on": f"{record['validation']['images']} images",
        "Seconds per epoch": f"{record['mean_epoch_seconds']:.1f}",
        "Machine": f"{record['device']}, {record['threads']} threads, {record['precision']}",
        "Versions": versions,
        "Revision": (record["git_revision"] or "unknown")[:12],
        "Finished": record["finished"],
    }
