"""Figures of a report: charts of the scores and the training curves, sheets of predictions."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets.catalog import data_set
from datasets.data_set import Role
from datasets.labels import CITYSCAPES, ClassTable
from datasets.loading.sets import validation_samples
from trainings.application.visualize import SIDE_BY_SIDE, comparison_rows
from trainings.engine.target_scores import COLUMNS
from trainings.options import Settings
from trainings.reproduction.kinds import LAST
from trainings.reproduction.lines import (
    Line,
    by_config,
    class_names,
    listed,
    shown_lines,
    subset_titles,
)
from trainings.reproduction.results import Run
from trainings.reproduction.steps import ADAPTED_SOURCE_ONLY, SOURCE_ONLY, Step
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.scoring.record import scored_checkpoints
from trainings.scoring.trained import as_trained
from trainings.val import scored_on
from utils.disk.run_folder import LATEST, RunFolder
from utils.errors import UserError
from utils.pictures.charts import HeatMap, LineChart, chart_files
from utils.pictures.looks import Look, looks
from utils.pictures.panels import ComparisonRow, comparison
from utils.spread import spread

SHEET_ROWS, SHOWN_IMAGES = 3, 6
"""Images on a sheet of predictions, and images that the page shows."""


def method_looks(lines: Iterable[Line], steps: Sequence[Step]) -> dict[str, Look]:
    """Return one look per method; a family, such as FDA with its betas, has one colour."""
    families = {line.series: _family(line.method) for line in lines}
    return looks(families, [_family(step.title) for step in steps if step.domain])


def _family(title: str) -> str:
    """Return what a method is a variant of: "Source-only" for "Source-only, C-S-HF", "MIC" for
    "Distillation of MIC"."""
    return title.partition(",")[0].rpartition(" of ")[2]


# ------------------------------------------------------------------------------------------- charts


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
    losses = {name: [_curve(run, "loss") for run in runs] for name, runs in trained.items()}
    return [*mious, LineChart(f"{config}: {loss}{summed_up}", losses, "epoch")]


Curve = list[tuple[float, float]]


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
            add(own, run.data_folder(run.validates_on), name, _curve(run, "val/mIoU"))
            if on_target := _curve(run, COLUMNS["mIoU"]):
                scored = next(iter(run.scores(Role.TARGET).values()), None)
                add(scored and scored.validation, run.data_folder(Role.TARGET), name, on_target)
    return found


def _curve(run: Run, column: str) -> Curve:
    rows = RunFolder(run.folder).read_history()
    points = ((float(row["epoch"]), float(row.get(column) or "nan")) for row in rows)
    return [point for point in points if math.isfinite(point[1])]


# ------------------------------------------------------------------------ sheets of predictions


class Pair(NamedTuple):
    """Places of two methods among `Shown.methods`, to be compared."""

    left: int
    right: int


class Shown(NamedTuple):
    """Predictions of all methods of a config's first seed on the same images, by the last epoch."""

    config: str
    title: str
    methods: list[str]
    rows: list[ComparisonRow]
    classes: ClassTable = CITYSCAPES

    def compared_first(self, lines: Iterable[Line]) -> Pair:
        """Return the places of source-only and of the best method that adapts, by the lines of the
        config: what a reader is to see first."""
        scored = {one.series: one for one in lines if one.config == self.config and one.on_target}
        own = {place: scored[name] for place, name in enumerate(self.methods) if name in scored}
        baselines = (place for place, line in own.items() if line.step.baseline)
        adapting = ((place, line.miou()) for place, line in own.items() if line.adapts)
        means = {place: miou.mean for place, miou in adapting if miou}
        best = max(means, key=means.__getitem__, default=len(self.methods) - 1)
        return Pair(left=next(baselines, 0), right=best)

    def rows_of_sheet(self) -> list[ComparisonRow]:
        """Return some of the images, spread over all."""
        return self.rows[:: max(1, math.ceil(len(self.rows) / SHEET_ROWS))]


def predicted_images(lines: Sequence[Line], settings: Settings) -> Iterator[Shown]:
    """Yield the images of each config that has a network, and say of which there are no data."""
    for config, own in by_config(lines).items():
        seed = min((seed for line in own for seed in line.runs), default=0)
        shown = [(line, line.runs[seed]) for line in own if seed in line.runs]
        predictors = _predictors(shown)
        if not predictors:
            continue
        trained = shown[0][1].settings
        chosen = _as_trained(trained, predictors[0].checkpoints[0], settings)
        try:
            samples = validation_samples(Role.TARGET, chosen)
            several = _loaded(predictors, chosen)
        except UserError as error:
            print(f"predictions of {config} are not drawn, everything else is: {error}")
            continue
        places = dict.fromkeys(spread(len(samples), SHOWN_IMAGES), "")
        data = f"{data_set(Role.TARGET, chosen)}, {len(samples)} validation images"
        methods = [predictor.title for one in several for predictor in one.predictors]
        rows = comparison_rows(several, places, samples, chosen)
        title = f"{data}: {config}, seed {seed}, last epochs"
        yield Shown(config, title, methods, rows, chosen.class_table)


def draw_sheet(out: RunFolder, shown: Shown) -> str:
    """Write some of the images as every method sees them, and return the file's name."""
    title = f"{shown.title}: {SIDE_BY_SIDE}"
    name = f"predictions_{file_name(shown.config)}.png"
    picture = comparison(shown.rows_of_sheet(), shown.methods, title=title, classes=shown.classes)
    out.save_picture(name, picture)
    return name


def draw_overview(out: RunFolder, shown: Shown, lines: Iterable[Line]) -> list[str]:
    """Write the same images as source-only and the best method that adapts see them, and their
    truth, small enough for a screen. Return the file's name, or nothing where there are no two
    methods to compare."""
    pair = shown.compared_first(lines)
    if pair.left == pair.right:
        return []
    rows = [
        row._replace(predictions=[row.predictions[place] for place in pair])
        for row in shown.rows_of_sheet()
    ]
    methods = [shown.methods[place] for place in pair]
    name = f"overview_{file_name(shown.config)}.png"
    sheet = comparison(rows, methods, title=shown.title, truth_last=True, classes=shown.classes)
    out.save_picture(name, sheet)
    return [name]


def _predictors(shown: Iterable[tuple[Line, Run]]) -> list[Predictor]:
    """Return every network on the target, and the ensembles whose members are all there."""
    predictors = []
    for line, run in shown:
        if line.on_target and not line.is_free:
            paths = _members(run) if run.is_ensemble else [run.folder / LATEST]
            if paths and all(path.exists() for path in paths):
                predictors.append(Predictor(line.series, tuple(paths)))
    return predictors


def _members(run: Run) -> list[Path]:
    """Return the checkpoints of an ensemble's last epochs; their folders may have moved with it."""
    scores = run.scores(Role.TARGET).get(LAST)
    if scores is None:
        return []
    recorded = scored_checkpoints(RunFolder(run.folder).read_json(scores.file.name))
    beside = [run.folder.parent / path.parent.name / path.name for path in recorded]
    return [one if one.exists() else path for one, path in zip(beside, recorded, strict=True)]


def _as_trained(trained: Mapping[str, Any], checkpoint: Path, settings: Settings) -> Settings:
    """Return the command's settings with the network and sizes of a checkpoint's training.

    Precision and data are those of the run `trained`, unless the command names others.
    """
    places = {
        "precision": trained["precision"],
        "cityscapes_root": Path(trained["cityscapes_root"]),
        "target": trained["target"],
        "target_root": trained["target_root"] and Path(trained["target_root"]),
    }
    places = {name: value for name, value in places.items() if name not in settings.given}
    same = as_trained(replace(settings, given=frozenset()), checkpoint)
    same = replace(same, batch_size=trained["batch_size"], given=settings.given)
    return replace(same, **places, bn_statistics=TRAINING)


def _loaded(predictors: Sequence[Predictor], settings: Settings) -> list[LoadedPredictors]:
    """Return all predictors, and after source-only the same one with the target's statistics."""
    loaded = load_predictors(predictors, Role.TARGET, settings)
    for place, predictor in enumerate(predictors):
        if predictor.title == SOURCE_ONLY:
            adapted = predictor._replace(title=ADAPTED_SOURCE_ONLY)
            chosen = replace(settings, bn_statistics=TARGET)
            beside = load_predictors([adapted], Role.TARGET, chosen)
            first, rest = range(place + 1), range(place + 1, len(predictors))
            return [loaded.only(*first), beside, loaded.only(*rest)]
    return [loaded]
