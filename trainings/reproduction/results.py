"""The runs of a reproduction and the rows of its tables, read from its run folders alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.catalog import ROWS, recorded_title
from datasets.data_set import Role
from trainings.options import Settings
from trainings.reproduction.steps import Step, by_action, run_flags
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.record import Kind, find_scores, scored_checkpoints
from trainings.scoring.runs import command_flags
from trainings.val import SUBSETS
from utils.disk.run_folder import SCORES, SETTINGS, RunFolder
from utils.errors import UserError

RUNS = "*/seed*/*"  # <config>/seed<k>/<run>, as `make_plan` lays them out

KINDS = (
    *(("last", TRAINING), ("best", TRAINING), ("last", TARGET), ("best", TARGET)),
    *(("ema", TRAINING), ("ema", TARGET)),
)
"""The kinds of scores in the tables. Most runs have the first three; those with a teacher, or with
`--ema_decay`, have those of the averaged weights."""

OWN_SCORES = {
    ("last", TRAINING): "last",
    ("best", TRAINING): "best",
    ("last", TARGET): "last_target_statistics",
    ("ema", TRAINING): "last_average",
    ("ema", TARGET): "last_average_target_statistics",
}
"""Names of the scores that a training itself writes, by kind."""


class Key(NamedTuple):
    """The key of a run among those of one config and seed: the action and flags of a training, or
    the round of an ensemble."""

    action: str = ""
    flags: tuple[tuple[str, Any], ...] = ()
    ensemble_round: int | None = None


class Scores(NamedTuple):
    """Scores of a checkpoint or an ensemble, 0 to 1 or None where undefined; their file, its record
    of the validation, and the mIoU of subsets of the classes by their titles."""

    accuracy: float | None
    miou: float | None
    class_iou: Mapping[str, float | None]
    file: Path
    validation: Mapping[str, Any]
    subsets: Mapping[str, float | None] = {}

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


@dataclass(frozen=True, eq=False)
class Run:
    """The folder of a training or an ensemble; a training scores itself on `validates_on`.

    Its files are read once.
    """

    folder: Path
    settings: Mapping[str, Any]
    is_ensemble: bool
    validates_on: Role = Role.TARGET
    target_title: str = ""  # of the scores on the target, where the settings name another one
    _scores: dict[Role, dict[Kind, Scores]] = field(init=False, default_factory=dict, repr=False)

    def scores(self, domain: Role) -> dict[Kind, Scores]:
        """Return all scores on that data set's validation split: those of a scoring afterwards,
        which has the counts of each image, else those that the training itself wrote."""
        if domain not in self._scores:
            self._scores[domain] = self._read_scores(domain)
        return self._scores[domain]

    def _read_scores(self, domain: Role) -> dict[Kind, Scores]:
        own = self._own_scores() if domain is self.validates_on else {}
        if domain is Role.SOURCE:
            return own
        size = tuple(self.settings["image_size"])
        found = {
            kind: _scores(record, file, record["validation"])
            for kind, (file, record) in find_scores(self.folder, self.title(domain), size).items()
        }
        return {kind: (own | found)[kind] for kind in KINDS if kind in own or kind in found}

    def title(self, domain: Role) -> str:
        """Return the name of that data set."""
        named = self.target_title if domain is Role.TARGET else ""
        return named or recorded_title(domain, self.settings)

    def _own_scores(self) -> dict[Kind, Scores]:
        """Return the scores that the training itself wrote, on the split that it validates on."""
        record, file = self.record, self.folder / SCORES
        return {
            kind: _scores(record[name], file, record["validation"])
            for kind, name in OWN_SCORES.items()
            if record.get(name)
        }

    def data_folder(self, role: Role) -> tuple[str, str]:
        """Return the folder of a data set, and the share that splits it."""
        row = ROWS[self.settings[role.value]]
        root = self.settings[f"{role.value}_root"] or self.settings.get(row.root_flag, row.title)
        split = self.settings["gta5_val_fraction"] if role is Role.SOURCE else ""
        return str(root), str(split)

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """Return the record that the training wrote when it finished; empty before."""
        file = self.folder / SCORES
        return read_json(file) if file.exists() else {}

    def trained_on(self) -> list[str]:
        """Return the images of each data set of a training that has ended, in words."""
        training = self.record.get("training", {})
        return [
            f"{training[count]} of {training.get(f'{role}_data_set') or training[role]}"
            for role, count in (("source", "images"), ("target", "target_images"))
            if training.get(role)
        ]


Results = Mapping[str, Mapping[Key, Mapping[int, Run]]]
"""The runs that were found, by config, key and seed."""


def read_results(folder: Path, steps: Sequence[Step], settings: Settings) -> Results:
    """Return the runs of the steps under a folder, with the flags that the settings have.

    Raise UserError where there are none."""
    found: dict[str, dict[Key, dict[int, Run]]] = {}
    for run in sorted(folder.glob(RUNS)):
        if entry := _read_run(run, steps, settings):
            key, read = entry
            config = read.settings["config"] or read.settings["optimizer"]
            runs, seed = found.setdefault(config, {}).setdefault(key, {}), read.settings["seed"]
            runs[seed] = _usual(runs[seed], read) if seed in runs else read
    if not found:
        raise UserError(
            f"no run in {folder}/<config>/seed<k>/: "
            f"{command_flags({'action': 'reproduce'}, settings)} makes them; another folder "
            "is named by --save_model_path and --save_keyword"
        )
    return {
        config: {key: dict(sorted(runs.items())) for key, runs in found[config].items()}
        for config in sorted(found)
    }


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
        experiment = by_action(steps).get(settings["action"])
        if experiment is None or settings["ssl_round"] != 1:
            return None
        flags = tuple((name, settings[name]) for name in run_flags(steps, experiment))
        return Key(experiment.action, flags), Run(folder, settings, False, experiment.validation)
    if record := ensemble_record(folder):
        settings = type(command).from_json(record["settings"]).to_json()
        return Key(ensemble_round=settings["ssl_round"]), Run(folder, settings, True)
    return None


def ensemble_record(folder: Path) -> dict[str, Any] | None:
    """Return a record of scores of an ensemble's own folder, None for any other folder."""
    for file in sorted(folder.glob("*.json")):
        record = read_json(file)
        if "members" in record and scored_checkpoints(record):
            return record
    return None


def rows(results: Results, steps: Sequence[Step]) -> list[tuple[Step, Any, Key]]:
    """Return step, value of its flag and key of the lines of the tables, in the order of the steps.

    A step without a run has a line all the same. A step whose values are `found` has a line for
    each value that was trained; the ensemble of a single one has none.
    """
    keys = {key for of_config in results.values() for key in of_config}
    others = keys - {_key(steps, step) for step in steps if not step.found}
    lines: list[tuple[Step, Any, Key]] = []
    for step in (step for step in steps if step.domain):
        single = [key.action for _, _, key in lines].count(step.experiment.action) == 1
        if step.ensemble_round is not None and single and _key(steps, step) not in keys:
            continue
        values: Sequence[Any] = step.values or (None,)
        if step.found:
            own = [key for key in others if key.action == step.experiment.action]
            trained = sorted({dict(key.flags)[step.flag] for key in own})
            values = [value for value in trained if _key(steps, step, value) in own] or values
        lines += [(step, value, _key(steps, step, value)) for value in values]
    return lines


def _key(steps: Sequence[Step], step: Step, value: Any = None) -> Key:
    """Return the key of the runs of a step, with a value of its flag."""
    if step.ensemble_round is not None:
        return Key(ensemble_round=step.ensemble_round)
    own = {step.flag: value} if step.flag else {}
    flags = run_flags(steps, step.experiment) | own
    return Key(step.experiment.action, tuple(flags.items()))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raise UserError where it cannot be read."""
    return RunFolder(path.parent).read_json(path.name)


def _scores(scores: Mapping[str, Any], file: Path, validation: Mapping[str, Any]) -> Scores:
    return Scores(
        scores["pixel_accuracy"],
        scores["mIoU"],
        scores["class_IoU"],
        file,
        validation,
        scores.get(SUBSETS, {}),
    )
