"""The report of a reproduction: tables and pictures, from its run folders alone."""

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.labels import CLASS_NAMES
from trainings.batch_norm import TARGET, TRAINING
from trainings.loaders import Domain, validation_samples
from trainings.mbt import BETAS
from trainings.plan import FOURIER, SELF_TRAINING, SOURCE_ONLY, Methods
from trainings.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.results import Row, Run, Scores, baseline, odd_scores, read_results, rows
from trainings.scoring import as_trained
from trainings.visualize import SIDE_BY_SIDE, comparison_sheet
from utils.bootstrap import DRAWS, Difference, paired_difference
from utils.errors import UserError
from utils.pictures import bar_chart, line_chart
from utils.run_folder import LATEST, RunFolder
from utils.settings import Settings
from utils.utils import markdown

MISSING = "–"
LAST, BEST, ADAPTED = ("last", TRAINING), ("best", TRAINING), ("last", TARGET)
HEADINGS = {LAST: "", BEST: ", best epoch", ADAPTED: ", target statistics"}
"""Of the three kinds of scores in the tables for a person, after the name of the score."""

IDENTITY = ("Step", "Method", "Config", "beta")
TIME = "Train time per epoch (s)"
NOTE = (
    "Scores on Cityscapes' validation split, unless the row names another one, and of the last "
    "epoch, unless the column says otherwise. The best epoch is chosen on the split that the "
    "training validates on: of source-only that is GTA5's own, of all others the target's with its "
    "labels, so that this column flatters adaptation. Target statistics: the last epoch's weights "
    "with batch-norm statistics of the target's training images, without labels (AdaBN)."
)
SEEDS_NOTE = "Mean ± standard deviation over the seeds."
DIFFERENCE_NOTE = (
    "mIoU points over source-only in the same column, and the 95 % interval of a paired bootstrap: "
    f"{DRAWS} draws of as many validation images with replacement and, of several seeds, of one "
    "less than there are, both methods on the same draw. Bold: the interval leaves 0 out, and "
    "there are ten images or more. With one seed it tells what other images would change and not "
    "what another seed would; with two or three it is still somewhat too narrow."
)
ORIGINS_NOTE = """
Each run folder holds `settings.json`, what the run was started with; `scores.json`, what it scored
itself; `history.csv`, its epochs; and `validation_cityscapes*.json` with `.npz`, its scores on
Cityscapes and the confusion counts of every image. `results.csv` names the file of each number.
"""
SHEET_ROWS = 3


class Line(NamedTuple):
    """A row of the tables for one config, with its runs by seed."""

    row: Row
    config: str
    runs: Mapping[int, Run]

    @property
    def identity(self) -> tuple[str, ...]:
        where = ", on GTA5" if self.row.domain is Domain.GTA5 else ""
        beta = "" if self.row.beta is None else f"{self.row.beta:g}"
        return self.row.number, f"{self.row.title}{where}", self.config, beta

    def scores(self, kind: tuple[str, str]) -> dict[int, Scores]:
        """Of one kind, by seed; of the seeds that have it."""
        found = ((seed, run.scores(self.row.domain)) for seed, run in self.runs.items())
        return {seed: scores[kind] for seed, scores in found if kind in scores}


def write_report(methods: Methods, folder: Path, settings: Settings) -> None:
    """Writes results.md, the CSVs and the pictures into the folder, and prints the tables.

    A config has lines where one of its runs is of one. Raises UserError where none is. The sheet of
    predictions needs the data set, and is left where that is not there.
    """
    results = read_results(folder, methods)
    of_rows = rows(results, methods)
    configs = [c for c in results.configs if any(results.of(row, c) for row in of_rows)]
    if not configs:
        raise UserError(
            f"no run in {folder} is of a step of the tables: --action reproduce makes them"
        )
    lines = [Line(row, config, results.of(row, config)) for row in of_rows for config in configs]
    differences = _differences(lines, baseline(of_rows))
    out = RunFolder(folder)
    out.write_text("results.csv", _csv(_records(lines, folder)))
    out.write_text("differences.csv", _csv(_difference_records(differences)))
    out.write_text("class_iou.csv", _csv(_class_records(lines)))
    pictures = [
        *_draw_charts(out, configs, lines),
        *(name for config in configs if (name := _draw_sheet(out, config, lines, settings))),
    ]
    warnings = odd_scores(results, of_rows)
    tables = "\n".join([_score_table(lines, warnings), _difference_table(lines, differences)])
    sections = [
        f"# {folder.name}\n",
        tables,
        _class_table(lines),
        _picture_list(pictures),
        _sources(lines, folder),
    ]
    out.write_text("results.md", "\n".join(sections))
    print(f"\n{tables}\ntables and pictures: {folder}/results.md, {', '.join(pictures)}")


# ------------------------------------------------------------------------------------------- tables


def _score_table(lines: Sequence[Line], warnings: Sequence[str]) -> str:
    """The table, and under it what in it cannot be compared."""
    columns = [f"{name} %{end}" for end in HEADINGS.values() for name in ("Accuracy", "mIoU")]
    head = (*IDENTITY, *columns[:2], TIME, *columns[2:])
    body = []
    for line in lines:
        cells = [cell for kind in HEADINGS for cell in _score_cells(line, kind)]
        body.append((*line.identity, *cells[:2], _seconds(line), *cells[2:]))
    several = any(len(line.runs) > 1 for line in lines)
    note = f"{NOTE} {SEEDS_NOTE}" if several else NOTE
    warned = "".join(f"- Warning: {warning}.\n" for warning in warnings)
    return "\n".join([markdown([head, *body]), *([warned] if warned else []), f"{note}\n"])


def _score_cells(line: Line, kind: tuple[str, str]) -> tuple[str, str]:
    scores = line.scores(kind).values()
    return _spread([s.accuracy for s in scores]), _spread([s.miou for s in scores])


def _spread(shares: Sequence[float | None]) -> str:
    """Shares 0 to 1 in %: their mean, and the deviation of two or more."""
    return _mean_and_deviation([100 * share for share in shares if share is not None])


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def _seconds(line: Line) -> str:
    """An ensemble has not been trained."""
    if line.row.key.ensemble_round is not None:
        return ""
    records = (run.record() for run in line.runs.values())
    return _mean_and_deviation([r["mean_epoch_seconds"] for r in records if r])


def _records(lines: Sequence[Line], folder: Path) -> Iterator[Sequence[Any]]:
    """A row per config, seed, method and kind of scores, as a program would like it."""
    of_scores = ("Seed", "Domain", "Epoch", "Batch-norm statistics", "Accuracy %", "mIoU %")
    yield (*IDENTITY, *of_scores, TIME, "Run folder", "Scores")
    for line in lines:
        for seed, run in line.runs.items():
            record = run.record()
            seconds = f"{record['mean_epoch_seconds']:.3f}" if record else ""
            for kind, scores in run.scores(line.row.domain).items():
                run_folder, file = (
                    p.relative_to(folder).as_posix() for p in (run.folder, scores.file)
                )
                shares = (_exact(scores.accuracy), _exact(scores.miou))
                domain = line.row.domain.value
                yield (*line.identity, seed, domain, *kind, *shares, seconds, run_folder, file)


def _exact(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3f}"


def _class_records(lines: Sequence[Line]) -> Iterator[Sequence[Any]]:
    """mIoU and IoU per class in %, means over the seeds; an absent class is empty."""
    yield (*IDENTITY, "Epoch", "Batch-norm statistics", "mIoU %", *CLASS_NAMES)
    for line in lines:
        for kind in HEADINGS:
            if line.scores(kind):
                yield (*line.identity, *kind, *map(_exact, _iou_means(line, kind)))


def _class_table(lines: Sequence[Line]) -> str:
    head = (*IDENTITY, "mIoU %", *CLASS_NAMES)
    body = []
    for line in lines:
        if line.scores(LAST):
            means = _iou_means(line, LAST)
            cells = (MISSING if share is None else f"{100 * share:.1f}" for share in means)
            body.append((*line.identity, *cells))
    numbers = range(len(IDENTITY), len(head))
    return (
        f"## IoU per class\n\n{markdown([head, *body], numbers=numbers)}\n"
        "In %, of the last epoch, mean over the seeds; –: absent. `class_iou.csv` has the best "
        "epoch and the target's statistics, too.\n"
    )


def _iou_means(line: Line, kind: tuple[str, str]) -> list[float | None]:
    """mIoU and IoU per class 0 to 1, mean over the seeds in which the class is not absent."""
    of_seeds = line.scores(kind).values()
    of_classes = [_mean(scores.class_iou[name] for scores in of_seeds) for name in CLASS_NAMES]
    return [_mean(scores.miou for scores in of_seeds), *of_classes]


def _mean(shares: Iterable[float | None]) -> float | None:
    """Of those that are there."""
    present = [share for share in shares if share is not None]
    return statistics.mean(present) if present else None


# -------------------------------------------------------------------------------------- differences

Differences = Mapping[tuple[Row, str], Mapping[tuple[str, str], Difference]]


def _differences(lines: Sequence[Line], source_only: Row) -> Differences:
    """Of every method on the target to source-only of the same config and kind, over the seeds that
    both have."""
    base = {line.config: line for line in lines if line.row == source_only}
    compared = [
        line for line in lines if line.row != source_only and line.row.domain is Domain.CITYSCAPES
    ]
    found: dict[tuple[Row, str], dict[tuple[str, str], Difference]] = {}
    for line in compared:
        for kind in HEADINGS:
            if difference := _difference(line.scores(kind), base[line.config].scores(kind)):
                found.setdefault((line.row, line.config), {})[kind] = difference
    return found


def _difference(method: Mapping[int, Scores], other: Mapping[int, Scores]) -> Difference | None:
    """None where no seed has both, or they were not scored on the same images."""
    pairs = [(method[seed].counts(), other[seed].counts()) for seed in method if seed in other]
    pairs = [(one, two) for one, two in pairs if one and two]
    names = [one_of_two[0] for pair in pairs for one_of_two in pair]
    if not pairs or any(one != names[0] for one in names):
        return None
    return paired_difference([one[1] for one, _ in pairs], [two[1] for _, two in pairs])


def _difference_table(lines: Sequence[Line], differences: Differences) -> str:
    head = (*IDENTITY, *(f"mIoU{end}" for end in HEADINGS.values()))
    body = []
    for line in lines:
        if found := differences.get((line.row, line.config)):
            body.append((*line.identity, *(_difference_cell(found.get(k)) for k in HEADINGS)))
    if not body:
        return ""
    return f"## Differences to source-only\n\n{markdown([head, *body])}\n{DIFFERENCE_NOTE}\n"


def _difference_cell(difference: Difference | None) -> str:
    if difference is None:
        return MISSING
    value = f"{round(100 * difference.value, 1) + 0:+.1f}"  # no "-0.0"
    value = f"**{value}**" if difference.clear else value
    return f"{value} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def _difference_records(differences: Differences) -> Iterator[Sequence[Any]]:
    of_scores = ("Epoch", "Batch-norm statistics", "Difference", "Low", "High", "Leaves 0 out")
    yield (*IDENTITY, *of_scores)
    for (row, config), of_kinds in differences.items():
        for kind, difference in of_kinds.items():
            identity = Line(row, config, {}).identity
            *shares, _ = difference
            yield (*identity, *kind, *map(_exact, shares), difference.clear)


# ----------------------------------------------------------------------------------------- pictures


def _draw_charts(out: RunFolder, configs: Sequence[str], lines: Sequence[Line]) -> Iterator[str]:
    for config in configs:
        own = [line for line in lines if line.config == config]
        on_target = [line for line in own if line.row.domain is Domain.CITYSCAPES]
        order = [line.row.name for line in on_target]
        if scored := [line for line in on_target if line.scores(LAST)]:
            yield _draw_class_iou(out, config, scored, order)
        trainings = [line for line in on_target if line.row.key.action]
        if any(line.runs for line in trainings):
            yield _draw_curves(out, config, trainings, order)


def _draw_class_iou(
    out: RunFolder, config: str, lines: Sequence[Line], order: Sequence[str]
) -> str:
    series = {line.row.name: _iou_means(line, LAST) for line in lines}
    name = f"class_iou_{config}.png"
    title = f"{config}: mIoU and IoU per class on Cityscapes, last epoch, in %"
    out.save_picture(name, bar_chart(series, ("mIoU", *CLASS_NAMES), title=title, order=order))
    return name


def _draw_curves(out: RunFolder, config: str, lines: Sequence[Line], order: Sequence[str]) -> str:
    """Loss and validation mIoU of every training, over its seeds."""
    trained = {line.row.name: [run.history() for run in line.runs.values()] for line in lines}
    counts = sorted({len(line.runs) for line in lines if line.runs})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    summed_up = f", mean and range over {seeds} seeds" if counts[-1] > 1 else ""
    charts = [
        line_chart(
            {name: [_curve(h, column) for h in of_seeds] for name, of_seeds in trained.items()},
            title=f"{config}: {title}{summed_up}",
            x_name="epoch",
            unit=unit,
            order=order,
        )
        for title, column, unit in (
            ("training loss, the sum of the method's terms", "loss", ""),
            ("mIoU on Cityscapes' validation split, of source-only on GTA5's own", "val/mIoU", "%"),
        )
    ]
    name = f"curves_{config}.png"
    out.save_picture(name, np.concatenate(charts))
    return name


def _curve(history: Sequence[Mapping[str, str]], column: str) -> list[tuple[float, float]]:
    return [(float(row["epoch"]), float(row[column])) for row in history if row.get(column)]


def _draw_sheet(
    out: RunFolder, config: str, lines: Sequence[Line], settings: Settings
) -> str | None:
    """The same images as every method sees them, by the last epochs of the config's first seed; the
    picture's name, None where there is nothing to draw it from."""
    own = [line for line in lines if line.config == config]
    seed = min(seed for line in own for seed in line.runs)
    shown = {line.row: line.runs[seed] for line in own if seed in line.runs}
    predictors = _predictors(shown)
    if not predictors:
        return None
    name = f"predictions_{config}.png"
    trained = next(iter(shown.values())).settings
    chosen = _as_trained(trained, predictors[0].checkpoints[0], settings)
    try:
        samples = validation_samples(Domain.CITYSCAPES, chosen)
        several = _loaded(predictors, chosen)
    except UserError as error:
        print(f"{out.path / name} is not drawn, everything else is: {error}")
        return None
    shares = (part / (SHEET_ROWS - 1) for part in range(SHEET_ROWS))
    places = {round(share * (len(samples) - 1)): "" for share in shares}
    title = f"{config}, seed {seed}, last epochs: {SIDE_BY_SIDE}"
    out.save_picture(name, comparison_sheet(several, places, samples, chosen, title=title))
    return name


def _predictors(shown: Mapping[Row, Run]) -> list[Predictor]:
    """Every network on the target, and the ensembles whose members are all there."""
    target = {row: run for row, run in shown.items() if row.domain is Domain.CITYSCAPES}
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
    """The command's settings with the network and sizes of a checkpoint's training; with precision
    and data of a run, too, unless the command names others."""
    places = {
        "precision": trained["precision"],
        "cityscapes_root": Path(trained["cityscapes_root"]),
    }
    places = {name: value for name, value in places.items() if name not in settings.given}
    same = as_trained(replace(settings, given=frozenset()), checkpoint)
    same = replace(same, batch_size=trained["batch_size"], given=settings.given)
    return replace(same, **places, bn_statistics=TRAINING)


def _loaded(predictors: Sequence[Predictor], settings: Settings) -> list[LoadedPredictors]:
    """All, and beside source-only the same with the target's statistics."""
    loaded = load_predictors(predictors, Domain.CITYSCAPES, settings)
    for place, predictor in enumerate(predictors):
        if predictor.title == SOURCE_ONLY:
            adapted = predictor._replace(title=f"{SOURCE_ONLY}, target statistics")
            chosen = replace(settings, bn_statistics=TARGET)
            beside = load_predictors([adapted], Domain.CITYSCAPES, chosen)
            first, rest = range(place + 1), range(place + 1, len(predictors))
            return [loaded.only(*first), beside, loaded.only(*rest)]
    return [loaded]


def _picture_list(pictures: Sequence[str]) -> str:
    return "\n\n".join(["## Pictures", *(f"![{Path(p).stem}]({p})" for p in pictures)]) + "\n"


# ------------------------------------------------------------------------------------------ origins


def _sources(lines: Sequence[Line], folder: Path) -> str:
    """What every number depends on, and the run folder that it is from."""
    recipes = [_recipe(config, lines) for config in dict.fromkeys(line.config for line in lines)]
    table = [("Step", "Method", "Config", "beta", "Seed", "Run folder")]
    for line in lines:
        for seed, run in line.runs.items():
            link = f"[{run.folder.name}]({run.folder.relative_to(folder).as_posix()})"
            table.append((*line.identity, str(seed), link))
    return "\n\n".join(["## Where the numbers are from", *recipes, markdown(table) + ORIGINS_NOTE])


def _recipe(config: str, lines: Sequence[Line]) -> str:
    """What the trainings of a config have in common, by the first that has ended."""
    own = [line.runs for line in lines if line.config == config]
    runs = [run for by_seed in own for run in by_seed.values()]
    seeds = sorted({seed for by_seed in own for seed in by_seed})
    of = runs[0].settings
    height, width = of["image_size"]
    words = [
        f"{config}: {of['backbone']} of width {of['base_width']}",
        f"{height}x{width}",
        f"{of['optimizer']} {of['learning_rate']:g}",
        f"batch {of['batch_size']}",
        f"{of['num_epochs']} epochs",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        f"discriminator {of['discriminator']}",
        f"weights at first: {_name(of['pretrain_path']) or 'random'}",
        *(["OHEM"] if of["ohem"] else []),
    ]
    for record in (run.record() for run in runs):
        if record and record["training"]["target"]:
            words += _made(record)
            break
    return ", ".join(words) + "."


def _name(path: str | None) -> str:
    return Path(path).name if path else ""


def _made(record: Mapping[str, Any]) -> list[str]:
    """Data, machine and versions of an adaptation that has ended."""
    training, validation = record["training"], record["validation"]
    return [
        f"{training['images']} training images and {training['target_images']} of the target",
        f"{validation['images']} validation images",
        f"{record['precision']} on {record['device']}",
        f"torch {record['versions']['torch']}",
        f"revision {(record['git_revision'] or 'unknown')[:12]}",
    ]


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
