"""The report of a reproduction: its tables, and its figures among them, from run folders alone."""

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.data_set import Role
from datasets.labels import CLASS_NAMES
from trainings.options import Settings
from trainings.reproduction.differences import DRAWS, Difference, paired_difference
from trainings.reproduction.figures import draw_figures
from trainings.reproduction.lines import ADAPTED, HEADINGS, LAST, Line, listed
from trainings.reproduction.results import (
    Row,
    Scores,
    baseline,
    odd_means,
    odd_scores,
    read_results,
    rows,
)
from trainings.reproduction.steps import Step
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.val import scored_on
from utils.disk.run_folder import RunFolder
from utils.errors import UserError
from utils.text import markdown

MISSING = "–"
IDENTITY = ("Step", "Method", "Config", "beta")
TIME = "Train time per epoch (s)"
NOTE = (
    "Scores on the target's validation split, unless the row names the source, and of the last "
    "epoch, unless the column says otherwise. The best epoch is chosen on the split that the "
    "training validates on: of source-only that is the source's own, of all others the target's "
    "with its labels, so that this column flatters adaptation. Target statistics: the same weights "
    "with batch-norm statistics of the target's training images, without labels (AdaBN)."
)
SEEDS_NOTE = "Mean ± standard deviation over the seeds."
DIFFERENCE_NOTE = (
    "mIoU points over source-only (as trained, for its own row with target statistics) in the same "
    "column, and the 95 % interval of a paired bootstrap: "
    f"{DRAWS} draws of as many validation images with replacement and, of several seeds, of one "
    "less than there are, both methods on the same draw. Bold: the interval leaves 0 out, and "
    "there are ten images or more. With one seed it tells what other images would change and not "
    "what another seed would; with two or three it is still somewhat too narrow."
)
ORIGINS_NOTE = """
Each run folder holds `settings.json`, what the run was started with; `scores.json`, what it scored
itself; `history.csv`, its epochs; and `validation_cityscapes*.json` with `.npz`, its scores on
the target and the confusion counts of every image. `results.csv` names the file of each number.
"""


def write_report(steps: Sequence[Step], folder: Path, settings: Settings) -> None:
    """Write results.md, the CSVs and the figures into the folder, and print the tables.

    A config is in the tables if one of its runs is of a row. Raises UserError where no config is.
    """
    results = read_results(folder, steps, settings)
    of_rows = rows(results, steps)
    configs = [c for c in results.configs if any(results.of(row, c) for row in of_rows)]
    if not configs:
        raise UserError(
            f"no run in {folder} is of a step of the tables: --action reproduce makes them"
        )
    lines = [Line(row, config, results.of(row, config)) for row in of_rows for config in configs]
    of_files = [line for line in lines if line.row.statistics == TRAINING]
    differences = _differences(lines, baseline(of_rows, steps))
    out = RunFolder(folder)
    out.write_text("results.csv", _csv(_records(of_files, folder)))
    out.write_text("differences.csv", _csv(_difference_records(lines, differences)))
    out.write_text("class_iou.csv", _csv(_class_records(of_files)))
    pictures = draw_figures(out, configs, lines, settings)
    warnings = [f"Warning: {sentence}" for sentence in odd_scores(results, of_rows)]
    warnings += [f"Classes: {sentence}" for sentence in odd_means(results, of_rows)]
    heading = f"# {folder.name}: {_data(lines)}\n"
    tables = "\n".join(
        [heading, _score_table(lines, warnings), _difference_table(lines, differences)]
    )
    listing = [_picture_list(pictures, out)] if pictures else []
    sections = [tables, _class_table(lines), *listing, _sources(lines, folder)]
    out.write_text("results.md", "\n".join(sections))
    print(f"\n{tables}\ntables and pictures: {', '.join([f'{folder}/results.md', *pictures])}")


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
    on_source = listed(line.data(LAST) for line in lines if line.row.domain is Role.SOURCE)
    source_note = f" On the source: {on_source}." if on_source else ""
    note = f"{NOTE}{source_note} {SEEDS_NOTE}" if several else f"{NOTE}{source_note}"
    warned = "".join(f"- {warning}.\n" for warning in warnings)
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
    yield (*IDENTITY, *of_scores, TIME, "Run folder", "Scores", "Data")
    for line in lines:
        for seed, run in line.runs.items():
            record = run.record()
            seconds = f"{record['mean_epoch_seconds']:.3f}" if record else ""
            for kind, scores in run.scores(line.row.domain).items():
                run_folder, file = (
                    p.relative_to(folder).as_posix() for p in (run.folder, scores.file)
                )
                shares = (_exact(scores.accuracy), _exact(scores.miou))
                domain = run.title(line.row.domain)
                data = scored_on(scores.validation)
                where = (run_folder, file, data)
                yield (*line.identity, seed, domain, *kind, *shares, seconds, *where)


def _exact(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3f}"


def _class_records(lines: Sequence[Line]) -> Iterator[Sequence[Any]]:
    """mIoU and IoU per class in %, means over the seeds; an absent class is empty."""
    yield (*IDENTITY, "Epoch", "Batch-norm statistics", "mIoU %", *CLASS_NAMES, "Data")
    for line in lines:
        for kind in HEADINGS:
            if line.scores(kind):
                shares = map(_exact, line.iou_means(kind))
                yield (*line.identity, *kind, *shares, line.data(kind))


def _class_table(lines: Sequence[Line]) -> str:
    head = (*IDENTITY, "mIoU %", *CLASS_NAMES)
    body = []
    for line in lines:
        if line.scores(LAST):
            means = line.iou_means(LAST)
            cells = (MISSING if share is None else f"{100 * share:.1f}" for share in means)
            body.append((*line.identity, *cells))
    numbers = range(len(IDENTITY), len(head))
    return (
        f"## IoU per class: {_target_data(lines)}\n\n{markdown([head, *body], numbers=numbers)}\n"
        "In %, of the last epoch, mean over the seeds; –: absent. `class_iou.csv` has the best "
        "epoch and the target's statistics, too.\n"
    )


# -------------------------------------------------------------------------------------- differences

Differences = Mapping[tuple[Row, str], Mapping[tuple[str, str], Difference]]


def _differences(lines: Sequence[Line], source_only: Row) -> Differences:
    """Of every method on the target to source-only of the same config and kind, over the seeds that
    both have."""
    base = {line.config: line for line in lines if line.row == source_only}
    compared = [
        line for line in lines if line.row != source_only and line.row.domain is Role.TARGET
    ]
    found: dict[tuple[Row, str], dict[tuple[str, str], Difference]] = {}
    for line in compared:
        for kind in HEADINGS:
            if line.row.statistics == TARGET and kind == ADAPTED:
                continue  # source-only with target statistics is compared with itself there
            if difference := _difference(line.scores(kind), base[line.config].scores(kind)):
                found.setdefault((line.row, line.config), {})[kind] = difference
    return found


def _difference(method: Mapping[int, Scores], other: Mapping[int, Scores]) -> Difference | None:
    """None where no seed has both, or they were not scored on the same images."""
    seeds = [seed for seed in method if seed in other]
    scored = [scores for seed in seeds for scores in (method[seed], other[seed])]
    if len({scores.validation.get("data_set") for scores in scored} - {None}) > 1:
        return None
    pairs = [(method[seed].counts(), other[seed].counts()) for seed in seeds]
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
    heading = f"## Differences to source-only: {_target_data(lines)}"
    return f"{heading}\n\n{markdown([head, *body])}\n{DIFFERENCE_NOTE}\n"


def _difference_cell(difference: Difference | None) -> str:
    if difference is None:
        return MISSING
    value = f"{round(100 * difference.value, 1) + 0:+.1f}"  # no "-0.0"
    value = f"**{value}**" if difference.clear else value
    return f"{value} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def _difference_records(lines: Sequence[Line], differences: Differences) -> Iterator[Sequence[Any]]:
    of_scores = ("Epoch", "Batch-norm statistics", "Difference", "Low", "High", "Leaves 0 out")
    yield (*IDENTITY, *of_scores, "Data")
    for line in lines:
        for column, difference in differences.get((line.row, line.config), {}).items():
            *shares, _ = difference
            numbers = (*line.row.kind(column), *map(_exact, shares), difference.clear)
            yield (*line.identity, *numbers, line.data(column))


# ----------------------------------------------------------------------------------------- the data


def _data(lines: Sequence[Line]) -> str:
    """Return in words what the trainings adapt from and what the scores are of, as in "GTA5 →
    Cityscapes, 500 validation images"."""
    runs = [run for line in lines for run in line.runs.values()]
    records = [(run.record().get("training", {}), run.title(Role.SOURCE)) for run in runs]
    source = listed(one["source_data_set"] for one, title in records if one.get("source") == title)
    target = _target_data(lines)
    city, _, look = source.partition(", ")
    return (
        f"{source or 'unrecorded source'} → {target.removeprefix(f'{city}, ') if look else target}"
    )


def _target_data(lines: Sequence[Line]) -> str:
    on_target = [line for line in lines if line.row.domain is Role.TARGET]
    return listed(line.data(kind) for line in on_target for kind in HEADINGS) or "no scores"


def _picture_list(pictures: Sequence[str], out: RunFolder) -> str:
    """Return the pictures as Markdown, each chart with a link to its SVG."""
    links = []
    for picture in pictures:
        stem = Path(picture).stem
        links.append(f"![{stem}]({picture})")
        if out.has(f"{stem}.svg"):
            links.append(f"For a paper: [{stem}.svg]({stem}.svg)")
    return "\n\n".join(["## Pictures", *links]) + "\n"


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
        f"{config}: {of['network']} on {of['backbone']} of width {of['base_width']}",
        f"{height}x{width}",
        f"{of['optimizer']} {of['learning_rate']:g}",
        f"batch {of['batch_size']}",
        f"{of['num_steps']} steps" if of["num_steps"] else f"{of['num_epochs']} epochs",
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
