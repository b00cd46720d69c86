"""Sheets of predictions: what the networks of a report see on the same images of the target."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets.catalog import data_set
from datasets.data_set import Role
from datasets.labels import CITYSCAPES, ClassTable
from datasets.loading.sets import unlabelled_samples, validation_samples
from datasets.samples import SampleDataset
from trainings.application.visualize import SIDE_BY_SIDE, comparison_rows
from trainings.options import Settings
from trainings.reproduction.figures import file_name
from trainings.reproduction.kinds import LAST
from trainings.reproduction.lines import Line, by_config
from trainings.reproduction.results import Run
from trainings.reproduction.steps import ADAPTED_SOURCE_ONLY, SOURCE_ONLY
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.scoring.record import scored_checkpoints
from trainings.scoring.trained import as_trained
from utils.disk.run_folder import LATEST, RunFolder
from utils.errors import UserError
from utils.pictures.panels import ComparisonRow, comparison
from utils.spread import spread

SHEET_ROWS, SHOWN_IMAGES = 3, 6
"""Images on a sheet of predictions, and images that the page shows."""


class Pair(NamedTuple):
    """Places of two methods among `Shown.methods`, to be compared."""

    left: int
    right: int


class Shown(NamedTuple):
    """Predictions of all methods of a config's first seed on the same images, by the last epoch.

    Attributes:
        unlabelled: the target's name where it has no labels; else empty.
    """

    config: str
    title: str
    methods: list[str]
    rows: list[ComparisonRow]
    classes: ClassTable = CITYSCAPES
    unlabelled: str = ""

    @property
    def name(self) -> str:
        """The part of the file names that tells its pictures from those of others."""
        return file_name(f"{self.config} {self.unlabelled}")

    def compared_first(self, lines: Iterable[Line]) -> Pair:
        """Return the places of source-only and of the best method that adapts, by the lines of the
        config: what a reader is to see first. Without labels none is best, and the last one is
        taken."""
        if self.unlabelled:
            return Pair(left=0, right=len(self.methods) - 1)
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
    """Yield the images of each config that has a network, and of each of its targets that have no
    labels; say of which there are no data."""
    for config, own in by_config(lines).items():
        for unlabelled, of_target in _by_target(own, lines).items():
            seed = min((seed for line in of_target for seed in line.runs), default=0)
            shown = [(line, line.runs[seed]) for line in of_target if seed in line.runs]
            predictors = _predictors(shown)
            if not predictors:
                continue
            of_lines = (_recorded(line, run) for line, run in shown)
            recorded = next(filter(None, of_lines), shown[0][1].settings)
            chosen = _as_trained(recorded, predictors[0].checkpoints[0], settings)
            try:
                samples = _samples(chosen, bool(unlabelled))
                several = _loaded(predictors, chosen, samples)
            except UserError as error:
                print(f"predictions of {config} are not drawn, everything else is: {error}")
                continue
            images = f"{len(samples)} {'' if unlabelled else 'validation '}images"
            title = f"{data_set(Role.TARGET, chosen)}, {images}: {config}, seed {seed}, last epochs"
            methods = [predictor.title for one in several for predictor in one.predictors]
            places = dict.fromkeys(spread(len(samples), SHOWN_IMAGES), "")
            rows = comparison_rows(several, places, samples, chosen)
            yield Shown(config, title, methods, rows, chosen.class_table, unlabelled)


def draw_sheet(out: RunFolder, shown: Shown) -> str:
    """Write some of the images as every method sees them, and return the file's name."""
    title = f"{shown.title}: {SIDE_BY_SIDE}"
    name = f"predictions_{shown.name}.png"
    picture = comparison(shown.rows_of_sheet(), shown.methods, title=title, classes=shown.classes)
    out.save_picture(name, picture)
    return name


def draw_overview(out: RunFolder, shown: Shown, lines: Iterable[Line]) -> list[str]:
    """Write the same images as source-only and the best method that adapts see them, and their
    truth, small enough for a screen. Return the file's name, or nothing where there are no two
    methods to compare, or none is best because there are no labels."""
    pair = shown.compared_first(lines)
    if pair.left == pair.right or shown.unlabelled:
        return []
    rows = [
        row._replace(predictions=[row.predictions[place] for place in pair])
        for row in shown.rows_of_sheet()
    ]
    methods = [shown.methods[place] for place in pair]
    name = f"overview_{shown.name}.png"
    sheet = comparison(rows, methods, title=shown.title, truth_last=True, classes=shown.classes)
    out.save_picture(name, sheet)
    return [name]


def _by_target(own: Sequence[Line], lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return a config's own lines on the target, under the empty name, and those that adapt to each
    target without labels, behind those of the source alone, under its name. The latter are another
    config's where their scores on labelled images have made them one."""
    found = {"": [line for line in own if line.on_target and not line.is_free]}
    alone = {
        line.series: line for line in [*lines, *own] if line.is_source_only and not line.is_free
    }
    for line in own:
        if name := line.unlabelled_target:
            found.setdefault(name, [*alone.values()]).append(line)
    return found


def _predictors(shown: Iterable[tuple[Line, Run]]) -> list[Predictor]:
    """Return every network, and the ensembles whose members are all there."""
    predictors = []
    for line, run in shown:
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


def _recorded(line: Line, run: Run) -> Mapping[str, Any] | None:
    """Return the settings that name the target of a line: those of its scoring, or of its training
    where that scores the target itself, or adapts to one without labels."""
    if line.unlabelled_target or run.validates_on is Role.TARGET:
        return run.settings
    scores = run.scores(line.domain).get(LAST) if line.on_target else None
    return scores and RunFolder(run.folder).read_json(scores.file.name).get("settings")


def _as_trained(recorded: Mapping[str, Any], checkpoint: Path, settings: Settings) -> Settings:
    """Return the command's settings with the network and sizes of a checkpoint's training.

    Precision and data are the `recorded` ones, unless the command names others.
    """
    places = {
        "precision": recorded["precision"],
        "cityscapes_root": Path(recorded["cityscapes_root"]),
        "target": recorded["target"],
        "target_root": recorded["target_root"] and Path(recorded["target_root"]),
    }
    given = {*settings.given, *(("target", "target_root") if "target" in settings.given else ())}
    places = {name: value for name, value in places.items() if name not in given}
    same = as_trained(replace(settings, given=frozenset()), checkpoint)
    same = replace(same, batch_size=recorded["batch_size"], given=settings.given)
    return replace(same, **places, bn_statistics=TRAINING)


def _samples(settings: Settings, without_labels: bool) -> SampleDataset:
    """Return the images of the target that are shown."""
    if without_labels:
        return unlabelled_samples(Role.TARGET, settings, whole=True)
    return validation_samples(Role.TARGET, settings)


def _loaded(
    predictors: Sequence[Predictor], settings: Settings, samples: SampleDataset
) -> list[LoadedPredictors]:
    """Return all predictors, and after source-only the same one with the target's statistics."""
    files = samples.files
    loaded = load_predictors(predictors, Role.TARGET, settings, seen=files)
    for place, predictor in enumerate(predictors):
        if predictor.title == SOURCE_ONLY:
            adapted = predictor._replace(title=ADAPTED_SOURCE_ONLY)
            chosen = replace(settings, bn_statistics=TARGET)
            beside = load_predictors([adapted], Role.TARGET, chosen, seen=files)
            first, rest = range(place + 1), range(place + 1, len(predictors))
            return [loaded.only(*first), beside, loaded.only(*rest)]
    return [loaded]
