"""The runs of a reproduction and the rows of its tables, read from its run folders alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.catalog import ROWS, recorded_title
from datasets.data_set import Role
from trainings.options import Settings
from trainings.reproduction.steps import Step, run_flags
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.record import Kind, find_scores, scored_checkpoints
from trainings.val import different_classes
from utils.disk.run_folder import SCORES, SETTINGS, RunFolder
from utils.errors import UserError
from utils.text import dimensions

RUNS = "*/seed*/*"  # <config>/seed<k>/<run>, as `make_plan` lays them out

KINDS = (("last", TRAINING), ("best", TRAINING), ("last", TARGET), ("best", TARGET))
"""The kinds of scores in the tables; most runs have the first three."""

UNPAIRED = "; until then no difference is formed between it and scores on the other images"


class Key(NamedTuple):
    """The key of a run among those of one config and seed: the action and flags of a training, or
    the round of an ensemble."""

    action: str = ""
    flags: tuple[tuple[str, Any], ...] = ()
    ensemble_round: int | None = None


class Row(NamedTuple):
    """A line of the tables: a step and its run; `domain` is the data set of its scores. A row of
    TARGET statistics has no other scores."""

    number: str
    title: str
    beta: float | None
    key: Key
    domain: Role
    statistics: str

    def kind(self, column: Kind) -> Kind:
        """Return the kind of this row's scores in a column of the tables."""
        select, statistics = column
        return select, TARGET if self.statistics == TARGET else statistics

    @property
    def name(self) -> str:
        """The title with the beta, for pictures."""
        return self.title if self.beta is None else f"{self.title} {self.beta:g}"


class Scores(NamedTuple):
    """Scores of a checkpoint or an ensemble, 0 to 1 or None where undefined; their file, and its
    record of the validation."""

    accuracy: float | None
    miou: float | None
    class_iou: Mapping[str, float | None]
    file: Path
    validation: Mapping[str, Any]

    def counts(self) -> tuple[list[str], np.ndarray] | None:
        """Return the images' names and confusion counts [images, C, C]; None without their file.

        Raise UserError where they cannot be read.
        """
        path = self.file.with_suffix(".npz")
        if self.file.name == SCORES or not path.exists():
            return None
        try:
            with np.load(path) as arrays:
                return arrays["names"].tolist(), arrays["counts"]
        except Exception as error:  # numpy and zipfile raise many kinds for a broken file
            raise UserError(
                f"{path} cannot be read as counts of images ({type(error).__name__}): remove it "
                f"and {self.file.name} beside it, and give the same command again"
            ) from error


class Run(NamedTuple):
    """The folder of a training or an ensemble; a training scores itself on `validates_on`."""

    folder: Path
    settings: Mapping[str, Any]
    is_ensemble: bool
    validates_on: Role = Role.TARGET

    def scores(self, domain: Role) -> dict[Kind, Scores]:
        """Return all scores on that data set's validation split."""
        if domain is Role.SOURCE:
            return self._own_scores()
        size = tuple(self.settings["image_size"])
        found = find_scores(self.folder, self.title(domain), size)
        present = ((kind, *found[kind]) for kind in KINDS if kind in found)
        return {kind: _scores(record, file, record["validation"]) for kind, file, record in present}

    def title(self, domain: Role) -> str:
        """Return the name of that data set."""
        return recorded_title(domain, self.settings)

    def _own_scores(self) -> dict[Kind, Scores]:
        """Return the scores that the training itself wrote, on the split that it validates on."""
        file = self.folder / SCORES
        if not file.exists():
            return {}
        record = read_json(file)
        return {
            (select, TRAINING): _scores(record[select], file, record["validation"])
            for select in ("last", "best")
        }

    @property
    def validation_folder(self) -> tuple[str, str]:
        """Folder of the data set that a training validates on, and the share that splits it."""
        role = self.validates_on
        row = ROWS[self.settings[role.value]]
        root = self.settings[f"{role.value}_root"] or self.settings.get(row.root_flag, row.title)
        split = self.settings["gta5_val_fraction"] if self.validates_on is Role.SOURCE else ""
        return str(root), str(split)

    def record(self) -> Mapping[str, Any]:
        """Return the record that the training wrote when it finished; empty before."""
        file = self.folder / SCORES
        return read_json(file) if file.exists() else {}

    def history(self) -> list[dict[str, str]]:
        """Return a row of scalars for each epoch."""
        return RunFolder(self.folder).read_history()


Trial = tuple[str, int]
"""A config and a seed."""


class Results(NamedTuple):
    """The runs that were found: those of each config and seed by their key."""

    folder: Path
    runs: Mapping[Trial, Mapping[Key, Run]]

    @property
    def configs(self) -> list[str]:
        return list(dict.fromkeys(config for config, _ in self.runs))

    def of(self, row: Row, config: str) -> dict[int, Run]:
        """Return the run of a row for each seed that has one."""
        return {
            seed: runs[row.key]
            for (name, seed), runs in self.runs.items()
            if name == config and row.key in runs
        }


def read_results(folder: Path, steps: Sequence[Step], settings: Settings) -> Results:
    """Return the runs of the steps under a folder, with the flags that the settings have.

    Raise UserError where there are none."""
    found: dict[Trial, dict[Key, Run]] = {}
    for run in sorted(folder.glob(RUNS)):
        if entry := _read_run(run, steps, settings):
            key, read = entry
            trial = read.settings["config"] or read.settings["optimizer"], read.settings["seed"]
            runs = found.setdefault(trial, {})
            runs[key] = _usual(runs[key], read) if key in runs else read
    if not found:
        raise UserError(
            f"no run in {folder}/<config>/seed<k>/: --action reproduce makes them; another folder "
            "is named by --save_model_path and --save_keyword"
        )
    return Results(folder, dict(sorted(found.items())))


def _usual(one: Run, other: Run) -> Run:
    """Return which of two runs has the name that the plan gives; print that the other is left
    out."""
    if one.settings["save_keyword"] and not other.settings["save_keyword"]:
        one, other = other, one
    print(f"{other.folder} is not in the tables: {one.folder} has its place")
    return one


def _read_run(folder: Path, steps: Sequence[Step], command: Settings) -> tuple[Key, Run] | None:
    """Return a training of one of the steps, or an ensemble; None for any other folder."""
    run = RunFolder(folder)
    if run.has(SETTINGS):
        if "action" not in run.read_json(SETTINGS):  # another program's
            return None
        settings = run.read_settings(command)
        experiments = {step.experiment.action: step.experiment for step in steps}
        experiment = experiments.get(settings["action"])
        if experiment is None or settings["ssl_round"] != 1:
            return None
        flags = tuple((name, settings[name]) for name in run_flags(steps, experiment))
        return Key(experiment.action, flags), Run(folder, settings, False, experiment.validation)
    for file in sorted(folder.glob("*.json")):
        record = read_json(file)
        if "members" in record and scored_checkpoints(record):
            settings = record["settings"]
            return Key(ensemble_round=settings["ssl_round"]), Run(folder, settings, True)
    return None


def rows(results: Results, steps: Sequence[Step]) -> list[Row]:
    """Return the lines of the tables in the order of the steps.

    A step without a run has a line all the same. A step whose values are `found` has a line for
    each value that was trained; the ensemble of a single one has none.
    """
    keys = {key for runs in results.runs.values() for key in runs}
    others = keys - {_key(steps, step) for step in steps if not step.found}
    lines: list[Row] = []
    for step in (step for step in steps if step.domain):
        single = [line.key.action for line in lines].count(step.experiment.action) == 1
        if step.ensemble_round is not None and single and _key(steps, step) not in keys:
            continue
        values: Sequence[Any] = step.values or (None,)
        if step.found:
            own = [key for key in others if key.action == step.experiment.action]
            trained = sorted({dict(key.flags)[step.flag] for key in own})
            values = [value for value in trained if _key(steps, step, value) in own] or values
        for value in values:
            beta = value if step.flag == "fda_beta" else None
            title = step.title_with(value) if step.flag and beta is None else step.title
            key = _key(steps, step, value)
            lines.append(Row(step.number, title, beta, key, step.domain, step.statistics))
    return lines


def _key(steps: Sequence[Step], step: Step, value: Any = None) -> Key:
    """Return the key of the runs of a step, with a value of its flag."""
    if step.ensemble_round is not None:
        return Key(ensemble_round=step.ensemble_round)
    own = {step.flag: value} if step.flag else {}
    flags = run_flags(steps, step.experiment) | own
    return Key(step.experiment.action, tuple(flags.items()))


def baseline(of_rows: Sequence[Row], steps: Sequence[Step]) -> Row:
    """Return the row that the others are compared with."""
    number, title = next((step.number, step.title) for step in steps if step.baseline)
    return next(row for row in of_rows if (row.number, row.title) == (number, title))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raise UserError where it cannot be read."""
    return RunFolder(path.parent).read_json(path.name)


def _scores(scores: Mapping[str, Any], file: Path, validation: Mapping[str, Any]) -> Scores:
    return Scores(scores["pixel_accuracy"], scores["mIoU"], scores["class_IoU"], file, validation)


# -------------------------------------------------------------------------------- comparable scores


class Conditions(NamedTuple):
    """What scores depend on beside the network. The data set is None in old records; `names` are
    those of the images, empty where no counts tell them."""

    image_size: tuple[int, ...]
    proportions: str
    scales: tuple[float, ...]
    flip: bool
    label_sizes: tuple[tuple[int, ...], ...]
    data_set: str | None
    images: int
    names: frozenset[str]

    @classmethod
    def of(cls, scores: Scores) -> "Conditions":
        """Return the conditions of scores. The counts tell the images: an interrupted scoring may
        have left counts of other images than its record says."""
        found, counts = scores.validation, scores.counts()
        names = frozenset(counts[0] if counts else ())
        return cls(
            image_size=tuple(found.get("image_size") or ()),
            proportions=found.get("proportions", ""),
            scales=tuple(found.get("scales", ())),
            flip=found.get("flip", False),
            label_sizes=tuple(map(tuple, found.get("label_sizes", ()))),
            data_set=found.get("data_set"),
            images=len(names) or found["images"],
            names=names,
        )

    def same_images(self, other: "Conditions") -> bool:
        known = self.names and other.names
        same_names = self.images == other.images and (not known or self.names == other.names)
        return same_names and not self._of_another_set(other)

    def _of_another_set(self, other: "Conditions") -> bool:
        return None not in (self.data_set, other.data_set) and self.data_set != other.data_set

    def alike(self, other: "Conditions") -> bool:
        """Return whether scores under both conditions can be compared."""
        return self[:5] == other[:5] and self.same_images(other)

    def text(self, other: "Conditions") -> str:
        """Return the size and number of images in words, and what else differs from the other."""
        scales = f"scales {'-'.join(map(str, self.scales))}"
        words = [f"at {dimensions(self.image_size) if self.image_size else scales}"]
        if self.proportions != other.proportions:
            words += [f"with proportions {self.proportions or 'stretched'}"]
        words += ["and mirrored"] * (self.flip > other.flip)
        words += [f"on {self.images} images"]
        if self.label_sizes != other.label_sizes:
            words += [f"with labels of {' and '.join(map(dimensions, self.label_sizes))}"]
        if self._of_another_set(other):
            words += [f"of {self.data_set}"]
        elif self.images == other.images and not self.same_images(other):
            words += [f"such as {min(self.names - other.names)}"]
        return " ".join(words)


def odd_scores(results: Results, of_rows: Sequence[Row]) -> list[str]:
    """A sentence for each file whose numbers cannot be compared with most others of its config and
    domain: it was scored at another size or on other images."""
    return [
        f"{file.relative_to(results.folder).as_posix()} was scored {found.text(usual)}, the others "
        f"of {config} {usual.text(found)}: score it again (remove the file and "
        f"give the command of the reproduction again){'' if found.same_images(usual) else UNPAIRED}"
        for config in results.configs
        for domain in Role
        for file, found, usual in _odd(_scored(results, of_rows, config, domain))
    ]


def odd_means(results: Results, of_rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each config and domain whose mIoU average over different classes."""
    return [
        f"{config} on {_title(results, config, domain)}: {sentence}"
        for config in results.configs
        for domain in Role
        if (
            sentence := different_classes(
                scores.class_iou for scores in _scored(results, of_rows, config, domain)
            )
        )
    ]


def _title(results: Results, config: str, domain: Role) -> str:
    """Return the name of a data set in the runs of a config."""
    runs = next(runs for (name, _), runs in results.runs.items() if name == config)
    return next(iter(runs.values())).title(domain)


def _scored(
    results: Results, of_rows: Iterable[Row], config: str, domain: Role
) -> Iterator[Scores]:
    """Yield all scores of a config on a domain."""
    for row in of_rows:
        if row.domain is domain:
            for run in results.of(row, config).values():
                yield from run.scores(domain).values()


def _odd(scored: Iterable[Scores]) -> Iterator[tuple[Path, Conditions, Conditions]]:
    """The files that are unlike most, with what they were scored under and what most were; of two
    halves that is the one with the oldest file."""
    by_age = sorted(scored, key=lambda scores: scores.file.stat().st_mtime)
    files = {scores.file: Conditions.of(scores) for scores in by_age}
    for usual, _ in Counter(files.values()).most_common(1):
        for file, found in files.items():
            if not found.alike(usual):
                yield file, found, usual
