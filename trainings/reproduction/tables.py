"""The tables of results.md. Each names its data, begins with a sentence that reads it, and ends
with the command that makes it again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainings.engine.target import INDICATORS
from trainings.experiment import Experiment
from trainings.reproduction.conditions import relative
from trainings.reproduction.differences import DRAWS, Difference
from trainings.reproduction.indicators import Indicators, indicator_sentence, indicators
from trainings.reproduction.kinds import (
    ADAPTED,
    AS_TRAINED,
    AVERAGE,
    BEST,
    BOTH_ADAPTED,
    COMPARED,
    LAST,
    WITH_FREE,
    Compared,
)
from trainings.reproduction.lines import (
    Line,
    Spread,
    all_runs,
    by_config,
    class_names,
    columns,
    data_of,
    is_ranked,
    shown_lines,
    source_data,
    subset_titles,
    target_data,
)
from trainings.reproduction.summary import reading
from utils.text import dimensions, markdown

MISSING = "–"
IDENTITY = ("Step", "Method", "Config", "beta")

MAIN = (
    *("Method", "beta", "Accuracy %", "mIoU %", "Over source-only", "Target statistics"),
    "Seconds per epoch",
)
NOTE_ON_SOURCE = (
    "Scores of the last epoch on the source's validation split. The target has no labels; those of "
    "a few of its pictures would tell more (docs/own_camera.md)."
)
NOTE = (
    "Scores of the last epoch on the target's validation split, unless the row names the source. "
    "Over source-only: difference of mIoU in points; * marks one whose 95 % interval leaves 0 out. "
    "Target statistics: mIoU of the same weights with batch-norm statistics of the target's "
    "training images, without labels (AdaBN), and in brackets how far that is over source-only "
    "with them, the baseline that costs nothing."
)
SEEDS_NOTE = "Mean ± standard deviation over the seeds."
KINDS_NOTE = (
    "The best epoch is chosen on the split that a training validates on: the source's for "
    "source-only, the target's, with its labels, for all others. So this column flatters "
    "adaptation. Without labels of the target, an adaptation has no best epoch."
)
AVERAGE_NOTE = (
    "Averaged weights: those of the teacher of a method that has one, else of --ema_decay, after "
    "the last epoch."
)
INDICATOR_HEAD = (
    "Method",
    *(f"{name.capitalize()} %" for name in INDICATORS),
    "Most frequent class, % of the pixels",
)
INDICATOR_NOTE = (
    "After the last epoch, means over up to 64 images: mean of the largest probability; mean "
    "entropy, of at most 100; share of pixels where the network and its moving average agree; half "
    "the sum of the differences between the predicted classes' shares and those of the source's "
    "labels. An entropy near 0 with one class nearly everywhere is a collapse."
)
DIFFERENCE_NOTE = (
    "Points of mIoU over source-only in the same column, unless the heading names another "
    "baseline; source-only with target statistics is compared with source-only as trained. "
    f"Brackets: the 95 % interval of a paired bootstrap. Each of its {DRAWS} draws takes as many "
    "validation images as there are, with replacement, and of several seeds one fewer than there "
    "are; both methods are scored on the same draw. Bold: the interval leaves 0 out, and there are "
    "ten images or more. With one seed the interval tells what other images would change, not what "
    "another seed would; with two or three it is still somewhat too narrow. Without an interval: "
    "the counts of each image are not known."
)
ORIGINS_NOTE = """
Each run folder holds `settings.json`, what the run was started with; `scores.json`, what it scored
itself; `history.csv`, its epochs; `log.txt`, what it printed as a step of a demo or reproduction;
and `validation_<data set>*.json` with `.npz`, its scores on the target and the confusion counts of
every image. `results.csv` names the file of each number.
"""


def main_tables(
    name: str, lines: Sequence[Line], warnings: Sequence[str], commands: Sequence[str]
) -> str:
    """Return the main table of each config, and under them what in them cannot be compared."""
    configs = by_config(lines)
    parts = [f"# {name}: {data_of(lines)}\n"]
    for config, own in configs.items():
        if len(configs) > 1:
            parts.append(f"## {config}: {target_data(own)}\n")
        rows = [MAIN, *map(main_row, own)]
        parts += [f"{' '.join(reading(own))}\n", markdown(rows, numbers=range(1, len(MAIN)))]
    if warnings:
        parts.append("".join(f"- {warning}.\n" for warning in warnings))
    several = any(len(line.runs) > 1 for line in lines)
    if is_ranked(lines):
        notes = [NOTE]
        notes += [f"On the source: {on_source}."] if (on_source := source_data(lines)) else []
    else:
        notes = [NOTE_ON_SOURCE]
    notes += [SEEDS_NOTE] if several else []
    return "\n".join([*parts, f"{' '.join(notes)}\n", repeat(commands)])


def main_row(line: Line) -> tuple[str, ...]:
    """Return the cells of a line of the main table; * marks a difference that is clear."""

    def difference(compared: Compared) -> str:
        one = line.comparisons.get(compared)
        return "" if one is None else f"{one.points()}{'*' if one.clear else ''}"

    adapted = "" if line.is_free else cell(line.miou(ADAPTED))
    over = difference(BOTH_ADAPTED)
    return (
        line.title,
        line.beta,
        cell(line.accuracy()),
        cell(line.miou()),
        difference(AS_TRAINED),
        f"{adapted} ({over})" if over else adapted,
        "" if line.is_ensemble else cell(line.epoch_seconds()),
    )


def cell(spread: Spread | None) -> str:
    """Return a spread as a table shows it."""
    return spread.text() if spread else MISSING


def repeat(commands: Sequence[str]) -> str:
    """Return the line below a table that says how to make it again."""
    return "To repeat: " + ", then ".join(f"`{command}`" for command in commands) + "\n"


def kinds_table(lines: Sequence[Line], commands: Sequence[str]) -> str:
    """Return accuracy and mIoU of every kind of scores."""
    kinds = columns(lines)
    titles = [f"{name} %{end}" for end in kinds.values() for name in ("Accuracy", "mIoU")]
    body = []
    for line in lines:
        spreads = (spread for k in kinds for spread in (line.accuracy(k), line.miou(k)))
        body.append((*line.identity, *map(cell, spreads)))
    heading = f"Best epoch and target statistics: {target_data(lines)}"
    table = markdown([(*IDENTITY, *titles), *body], numbers=range(3, len(IDENTITY) + len(titles)))
    note = f"{KINDS_NOTE} {AVERAGE_NOTE}" if AVERAGE in kinds else KINDS_NOTE
    return _section(heading, _best_epoch_sentence(lines), table, note, commands)


def _section(heading: str, sentence: str, table: str, note: str, commands: Sequence[str]) -> str:
    """Return a table below the sentence that reads it, and above a note and its commands."""
    return "\n".join([f"## {heading}\n", f"{sentence}\n", table, f"{note}\n", repeat(commands)])


def _best_epoch_sentence(lines: Sequence[Line]) -> str:
    pairs = [
        (one.miou, line.scores(LAST)[seed].miou)
        for line in lines
        for seed, one in line.scores(BEST).items()
        if seed in line.scores(LAST)
    ]
    gains = [100 * (one - two) for one, two in pairs if one is not None and two is not None]
    if not gains:
        return "No best epoch has been scored yet."
    most = max(gains)
    if most < 0.05:
        least = min(gains)
        if least > -0.05:
            return "The best epoch is the last one of every run that has a best one."
        return (
            "No best epoch scores more here than the last one: other data may have chosen the best."
        )
    return f"The best epoch scores up to {most:.1f} points more than the last one."


def difference_table(lines: Sequence[Line], commands: Sequence[str]) -> str:
    """Return the differences to source-only with their intervals; empty where there are none."""
    compared = [line for line in lines if line.comparisons]
    if not compared:
        return ""
    head = (*IDENTITY, *COMPARED.values())
    body = [
        (*line.identity, *(difference_cell(line.comparisons.get(k)) for k in COMPARED))
        for line in compared
    ]
    methods = [line for line in compared if line.adapts]
    with_free = [line.comparisons.get(WITH_FREE) for line in methods]
    ahead = [difference for difference in with_free if difference and difference.is_gain]
    sentence = (
        f"As trained, {len(ahead)} of {len(methods)} methods are clearly over source-only with "
        "target statistics."
    )
    heading = f"Differences to source-only: {target_data(lines)}"
    return _section(heading, sentence, markdown([head, *body]), DIFFERENCE_NOTE, commands)


def difference_cell(difference: Difference | None) -> str:
    """Return a difference in points with its interval, bold where the interval leaves 0 out."""
    if difference is None:
        return MISSING
    value = f"**{difference.points()}**" if difference.clear else difference.points()
    return f"{value} {difference.interval()}".rstrip()


def indicator_tables(lines: Sequence[Line], commands: Sequence[str]) -> str:
    """Return the indicators of every target without labels; empty where there is none."""
    sections = []
    for target, of_target in indicators(lines).items():
        table = markdown(
            [INDICATOR_HEAD, *map(indicator_row, of_target)], numbers=range(1, len(INDICATOR_HEAD))
        )
        heading = f"Without labels: {target}"
        said = indicator_sentence(of_target)
        sections.append(_section(heading, said, table, INDICATOR_NOTE, commands))
    return "\n".join(sections)


def indicator_row(of_line: Indicators) -> tuple[str, ...]:
    """Return the cells of a line of the table of indicators."""
    values = (cell(of_line.values[name]) for name in INDICATORS)
    common, share = of_line.common
    return (of_line.line.series, *values, f"{common} {share.text()}")


def class_table(lines: Sequence[Line], commands: Sequence[str]) -> str:
    """Return mIoU and IoU per class of the last epochs."""
    classes = class_names(lines)
    subsets = subset_titles(lines)
    of_subsets = (f"mIoU of {title} %" for title in subsets)
    head = (*IDENTITY, "mIoU %", *classes, *of_subsets)
    scored = [(line, line.iou_means(LAST, classes, subsets)) for line in lines if line.scores(LAST)]
    body = [
        (*line.identity, *(MISSING if one is None else f"{100 * one:.1f}" for one in means))
        for line, means in scored
    ]
    table = markdown([head, *body], numbers=range(len(IDENTITY), len(head)))
    shown = [line for own in by_config(lines).values() for line in shown_lines(own)]
    note = (
        "In %, of the last epoch, mean over the seeds; –: the class is in no label and no "
        "prediction. `class_iou.csv` has the best epoch and the target's statistics, too."
    )
    sentence = _never_found([means for line, means in scored if line in shown], classes)
    return _section(f"IoU per class: {target_data(lines)}", sentence, table, note, commands)


def _never_found(scored: Sequence[Sequence[float | None]], classes: Sequence[str]) -> str:
    """Return a sentence on the classes that no method finds on the target, given the mIoU and the
    IoU per class of each."""
    shares = {
        name: [share for means in scored if (share := means[place]) is not None]
        for place, name in enumerate(classes, start=1)
    }
    never = [name for name, found in shares.items() if found and max(found) < 0.0005]
    if not never:
        return "Every class that occurs is found by at least one method."
    return f"No method finds {', '.join(never)}."


# -------------------------------------------------------------------------------- pictures, origins


def picture_list(pictures: Sequence[str], folder: Path) -> str:
    """Return the pictures as Markdown, each chart with a link to its SVG."""
    links = []
    for picture in pictures:
        stem = Path(picture).stem
        links.append(f"![{stem}]({picture})")
        if (folder / f"{stem}.svg").exists():
            links.append(f"For a paper: [{stem}.svg]({stem}.svg)")
    return "\n\n".join(["## Pictures", *links]) + "\n"


def sources(lines: Sequence[Line], folder: Path) -> str:
    """Return what every number depends on, and the run folder that it is from."""
    recipes = [recipe(own) for own in by_config(lines).values()]
    table: list[tuple[str, ...]] = [("Step", "Method", "Config", "beta", "Seed", "Run folder")]
    for line in lines:
        for seed, run in line.runs.items():
            link = f"[{run.folder.name}]({relative(run.folder, folder)})"
            table.append((*line.identity, str(seed), link))
    return "\n\n".join(["## Where the numbers are from", *recipes, markdown(table) + ORIGINS_NOTE])


def recipe(lines: Sequence[Line]) -> str:
    """Return the settings that most trainings of a config share, and the data, machine and versions
    of the first adaptation that has ended."""
    runs = [run for _, _, run in all_runs(lines)]
    seeds = sorted({seed for _, seed, _ in all_runs(lines)})
    pairs = [(line.step.experiment, run) for line, _, run in all_runs(lines)]
    trainings = [pair for pair in pairs if not pair[1].is_ensemble] or pairs
    columns = zip(*(_of_training(of, run.settings) for of, run in trainings), strict=True)
    counts = (Counter(word for word in column if word is not None) for column in columns)
    words = [word for count in counts for word, _ in count.most_common(1)]
    words.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    for record in (run.record for run in runs):
        if record and record["training"]["target"]:
            words += _made(record)
            break
    return f"{lines[0].config}: {', '.join(filter(None, words))}."


def _of_training(experiment: Experiment, settings: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return what a training depends on, in words; an empty word for what it does without, None for
    what its method cannot have."""
    discriminates = "discriminator" in experiment.method.Options.own_flags()
    return (
        network(settings),
        dimensions(settings["image_size"]),
        f"{settings['optimizer']} {settings['learning_rate']:g}",
        f"batch {settings['batch_size']}",
        length(settings),
        f"augmentation {settings['aug_method']}" if settings["aug_method"] else "",
        f"discriminator {settings['discriminator']}" if discriminates else None,
        f"initial weights: {initial_weights(settings)}",
        "OHEM" if settings["ohem"] else "",
    )


def network(settings: Mapping[str, Any]) -> str:
    """Return what is trained."""
    return f"{settings['network']} on {settings['backbone']} of width {settings['base_width']}"


def initial_weights(settings: Mapping[str, Any]) -> str:
    """Return the file of the weights that a run starts from, or that they are random."""
    return Path(settings["pretrain_path"]).name if settings["pretrain_path"] else "random"


def length(settings: Mapping[str, Any]) -> str:
    """Return how long a run is trained."""
    steps, epochs = settings["num_steps"], settings["num_epochs"]
    count, unit = (steps, "step") if steps else (epochs, "epoch")
    return f"{count} {unit}{'s' * (count != 1)}"


def _made(record: Mapping[str, Any]) -> list[str]:
    """Return data, machine and versions of an adaptation that has ended."""
    training, validation = record["training"], record["validation"]
    return [
        f"{training['images']} training images and {training['target_images']} of the target",
        f"{validation['images']} validation images",
        f"{record['precision']} on {record['device']}",
        f"torch {record['versions']['torch']}",
        f"revision {(record['git_revision'] or 'unknown')[:12]}",
    ]
