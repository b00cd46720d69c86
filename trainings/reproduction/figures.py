"""Charts of a report: the scores and the training curves."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets.data_set import Role
from trainings.engine.target_scores import COLUMNS
from trainings.reproduction.kinds import LAST
from trainings.reproduction.lines import (
    Line,
    by_config,
    class_names,
    listed,
    shown_lines,
    subset_titles,
)
from trainings.reproduction.results import Curve, Run
from trainings.reproduction.steps import ADAPTED_SOURCE_ONLY, Step
from trainings.val import scored_on
from utils.disk.run_folder import RunFolder
from utils.pictures.charts import HeatMap, LineChart, chart_files
from utils.pictures.looks import Look, looks


def method_looks(lines: Iterable[Line], steps: Sequence[Step]) -> dict[str, Look]:
    """Return one look per method; a family, such as FDA with its betas, has one colour."""
    families = {line.series: _family(line.method) for line in lines}
    families.setdefault(ADAPTED_SOURCE_ONLY, _family(ADAPTED_SOURCE_ONLY))  # drawn without a line
    return looks(families, [_family(step.title) for step in steps if step.domain])


def _family(title: str) -> str:
    """Return what a method is a variant of: "Source-only" for "Source-only, C-S-HF", "MIC" for
    "Distillation of MIC"."""
    return title.partition(",")[0].rpartition(" of ")[2]


def draw_charts(out: RunFolder, lines: Sequence[Line], of_methods: Mapping[str, Look]) -> list[str]:
    """Write the charts of every config as PNG and SVG, and return the names of the PNGs."""
    names = []
    for config, own in by_config(lines).items():
        shown = shown_lines(own)
        of_name: dict[str, Sequence[HeatMap | LineChart]] = {
            f"class_iou_{file_name(config)}": _class_iou_charts(config, shown),
            f"curves_{file_name(config)}": curve_charts(config, shown),
        }
        for name, charts in of_name.items():
            files = chart_files(charts, of_methods)
            for suffix, content in files.items():
                out.write_bytes(f"{name}{suffix}", content)
            names += [f"{name}.png"] if files else []
    return names


def file_name(config: str) -> str:
    """Return a config as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", config).strip("_")


def _class_iou_charts(config: str, lines: Sequence[Line]) -> list[HeatMap]:
    """Return a chart for each data set that the lines were scored on: usually one."""
    classes, subsets = class_names(lines), subset_titles(lines)
    of_data: dict[str, dict[str, list[float | None]]] = {}
    for line in lines:
        means = line.iou_means(LAST, classes, subsets)
        of_data.setdefault(line.data(LAST), {})[line.series] = means
    return [
        HeatMap(
            f"{config}: mIoU and IoU per class on {data}, last epoch, in %",
            series,
            ("mIoU", *classes, *(f"mIoU of {title}" for title in subsets)),
        )
        for data, series in of_data.items()
    ]


def curve_charts(config: str, lines: Sequence[Line]) -> list[LineChart]:
    """Return the training loss, and the validation mIoU in a chart for each data set, of the lines
    on the target whose networks were trained."""
    trained = {
        line.series: [*line.runs.values()]
        for line in lines
        if not (line.is_ensemble or line.is_free)
    }
    counts = sorted({len(runs) for runs in trained.values() if runs})
    seeds = " to ".join(map(str, dict.fromkeys((*counts[:1], *counts[-1:]))))
    summed_up = f", mean and range over {seeds} seeds" if counts[-1:] > [1] else ""
    on = listed(
        run.record.get("training", {}).get(f"{role}_data_set")
        for runs in trained.values()
        for run in runs
        for role in ("source", "target")
    )
    where = f" on {on}" if on else ""
    mious = [
        LineChart(f"{config}: mIoU on {data}{summed_up}", curves, "epoch", in_percent=True)
        for (data, _), curves in _miou_curves(trained).items()
    ]
    loss = f"training loss{where} (terms differ between methods: do not compare heights)"
    losses = {name: [run.curve("loss") for run in runs] for name, runs in trained.items()}
    return [*mious, LineChart(f"{config}: {loss}{summed_up}", losses, "epoch")]


def _miou_curves(
    trained: Mapping[str, Sequence[Run]],
) -> dict[tuple[str, str], dict[str, list[Curve]]]:
    """Return the mIoU over time by title, by the data of the validation: in words, and its
    fingerprint. Source-only has a curve on the source, and one on the target where it was scored.

    A training that has not ended has no record of its data, nor has one on the source alone of the
    target. The data are taken to be those of an ended training that validates on the same folder.
    """
    runs = [run for several in trained.values() for run in several]
    known = {
        run.data_folder(run.validates_on): run.record["validation"] for run in runs if run.record
    }
    found: dict[tuple[str, str], dict[str, list[Curve]]] = {}

    def add(
        validation: Mapping[str, Any] | None, folder: tuple[str, str], name: str, curve: Curve
    ) -> None:
        if validation := validation or known.get(folder):
            data = scored_on(validation), validation.get("fingerprint", "")
        else:
            data = f"{folder[0]}, where no training has ended yet", folder[1]
        found.setdefault(data, {}).setdefault(name, []).append(curve)

    for name, several in trained.items():
        for run in several:
            own = run.record.get("validation")
            add(own, run.data_folder(run.validates_on), name, run.curve("val/mIoU"))
            if on_target := run.curve(COLUMNS["mIoU"]):
                scored = next(iter(run.scores(Role.TARGET).values()), None)
                add(scored and scored.validation, run.data_folder(Role.TARGET), name, on_target)
    return found
