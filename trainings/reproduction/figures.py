"""Figures of a report: charts of the scores and the training curves, the sheet of predictions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.catalog import data_set
from datasets.data_set import Role
from datasets.labels import CLASS_NAMES
from datasets.loading.sets import validation_samples
from trainings.application.visualize import SIDE_BY_SIDE, comparison_sheet
from trainings.options import Settings
from trainings.reproduction.lines import LAST, Line, listed
from trainings.reproduction.results import Row, Run
from trainings.reproduction.steps import ADAPTED_SOURCE_ONLY, FOURIER, SELF_TRAINING, SOURCE_ONLY
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.mbt import BETAS
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.scoring.trained import as_trained
from trainings.val import scored_on
from utils.disk.run_folder import LATEST, RunFolder
from utils.errors import UserError
from utils.pictures.charts import BarChart, LineChart, chart_files

SHEET_ROWS = 3


def draw_figures(
    out: RunFolder, configs: Sequence[str], lines: Sequence[Line], settings: Settings
) -> list[str]:
    """Write the figures of every config, and return the names of their PNGs.

    A chart is also written as SVG. The sheet of predictions needs the data set, and is left out
    where the data set is not found.
    """
    of_configs = {config: [line for line in lines if line.config == config] for config in configs}
    return [
        *(name for config, own in of_configs.items() for name in _draw_charts(out, config, own)),
        *(name for c, own in of_configs.items() if (name := _draw_sheet(out, c, own, settings))),
    ]


# ------------------------------------------------------------------------------------------- charts


def _draw_charts(out: RunFolder, config: str, lines: Sequence[Line]) -> Iterator[str]:
    on_target = [line for line in lines if line.row.domain is Role.TARGET]
    order = [line.row.name for line in on_target]
    trained = {
        line.row.name: [*line.runs.values()]
        for line in on_target
        if line.row.key.action and line.row.statistics == TRAINING
    }
    for name, charts in {
        f"class_iou_{config}": _class_iou_charts(config, on_target),
        f"curves_{config}": _curve_charts(config, trained),
    }.items():
        files = chart_files(charts, order)
        for suffix, content in files.items():
            out.write_bytes(f"{name}{suffix}", content)
        if files:
            yield f"{name}.png"


def _class_iou_charts(config: str, lines: Sequence[Line]) -> list[BarChart]:
    """Return a chart for each data set that the lines were scored on: usually one."""
    of_data: dict[str, dict[str, list[float | None]]] = {}
    for line in lines:
        of_data.setdefault(line.data(LAST), {})[line.row.name] = line.iou_means(LAST)
    return [
        BarChart(
            f"{config}: mIoU and IoU per class on {data}, last epoch, in %",
            series,
            ("mIoU", *CLASS_NAMES),
        )
        for data, series in of_data.items()
    ]


def _curve_charts(config: str, trained: Mapping[str, Sequence[Run]]) -> list[LineChart]:
    """Return the training loss, and the validation mIoU in a chart for each data set.

    `trained` holds the runs of all seeds by the title of their method.
    """
    counts = sorted({len(runs) for runs in trained.values() if runs})
    seeds = " to ".join(map(str, dict.fromkeys((*counts[:1], *counts[-1:]))))
    summed_up = f", mean and range over {seeds} seeds" if counts[-1:] > [1] else ""
    on = listed(
        run.record().get("training", {}).get(f"{role}_data_set")
        for runs in trained.values()
        for run in runs
        for role in ("source", "target")
    )
    where = f" on {on}" if on else ""
    loss = f"training loss{where} (terms differ between methods: do not compare heights)"
    return [
        LineChart(
            f"{config}: {title}{summed_up}",
            {name: [_curve(run, column) for run in runs] for name, runs in series.items()},
            x_name="epoch",
            in_percent=column != "loss",
        )
        for title, column, series in (
            (loss, "loss", trained),
            *(
                (f"mIoU on {data}", "val/mIoU", series)
                for (data, _), series in _by_validation(trained).items()
            ),
        )
    ]


def _by_validation(
    trained: Mapping[str, Sequence[Run]],
) -> dict[tuple[str, str], dict[str, list[Run]]]:
    """Return the runs by title, by the data that they validate on: in words, and its fingerprint.

    A training that has not ended has no record of its data. It is taken to have the data of an
    ended training with the same validation folder.
    """
    runs = [run for several in trained.values() for run in several]
    known = {run.validation_folder: run.record()["validation"] for run in runs if run.record()}
    found: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for name, several in trained.items():
        for run in several:
            folder = run.validation_folder
            if validation := run.record().get("validation") or known.get(folder):
                data = scored_on(validation), validation.get("fingerprint", "")
            else:
                data = f"{folder[0]}, where no training has ended yet", folder[1]
            found.setdefault(data, {}).setdefault(name, []).append(run)
    return found


def _curve(run: Run, column: str) -> list[tuple[float, float]]:
    points = ((float(row["epoch"]), float(row.get(column) or "nan")) for row in run.history())
    return [point for point in points if math.isfinite(point[1])]


# ------------------------------------------------------------------------ the sheet of predictions


def _draw_sheet(
    out: RunFolder, config: str, lines: Sequence[Line], settings: Settings
) -> str | None:
    """Write the same images as every method of the config's first seed sees them.

    Each network is that of its last epoch. Return the picture's name, None where there is no
    network or no data to draw it from.
    """
    seed = min(seed for line in lines for seed in line.runs)
    shown = {line.row: line.runs[seed] for line in lines if seed in line.runs}
    predictors = _predictors(shown)
    if not predictors:
        return None
    name = f"predictions_{config}.png"
    trained = next(iter(shown.values())).settings
    chosen = _as_trained(trained, predictors[0].checkpoints[0], settings)
    try:
        samples = validation_samples(Role.TARGET, chosen)
        several = _loaded(predictors, chosen)
    except UserError as error:
        print(f"{out.path / name} is not drawn, everything else is: {error}")
        return None
    shares = (part / (SHEET_ROWS - 1) for part in range(SHEET_ROWS))
    places = {round(share * (len(samples) - 1)): "" for share in shares}
    data = f"{data_set(Role.TARGET, chosen)}, {len(samples)} validation images"
    title = f"{data}: {config}, seed {seed}, last epochs: {SIDE_BY_SIDE}"
    out.save_picture(name, comparison_sheet(several, places, samples, chosen, title=title))
    return name


def _predictors(shown: Mapping[Row, Run]) -> list[Predictor]:
    """Return every network on the target, and the ensembles whose members are all there."""
    target = {
        row: run
        for row, run in shown.items()
        if row.domain is Role.TARGET and row.statistics == TRAINING
    }
    paths = {row: run.folder / LATEST for row, run in target.items() if not run.is_ensemble}
    paths = {row: path for row, path in paths.items() if path.exists()}
    predictors = []
    for row, run in target.items():
        if row in paths:
            predictors.append(Predictor(row.name, (paths[row],)))
        elif run.is_ensemble:
            of = FOURIER if row.key.ensemble_round == 0 else SELF_TRAINING
            members = tuple(path for member, path in paths.items() if member.title == of)
            if len(members) == len(BETAS):
                predictors.append(Predictor(row.name, members))
    return predictors


def _as_trained(trained: Mapping[str, Any], checkpoint: Path, settings: Settings) -> Settings:
    """Return the command's settings with the network and sizes of a checkpoint's training.

    Precision and data are those of the run `trained`, unless the command names others.
    """
    places = {
        "precision": trained["precision"],
        "cityscapes_root": Path(trained["cityscapes_root"]),
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
