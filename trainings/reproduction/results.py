"""Runs and their scores, read from their folders alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.catalog import ROWS, recorded_title
from datasets.data_set import Role
from trainings.reproduction.kinds import KINDS, OWN_SCORES
from trainings.scoring.record import Kind, find_scores, scored_checkpoints
from trainings.val import SUBSETS
from utils.disk.run_folder import SCORES, RunFolder
from utils.errors import UserError

Curve = list[tuple[float, float]]
"""Epochs and values."""


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
        scores = own | found
        return {kind: scores[kind] for kind in KINDS if kind in scores}

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

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """Return the rows of the training's epochs, by their columns."""
        return RunFolder(self.folder).read_history()

    def curve(self, column: str) -> Curve:
        """Return the epochs of the history that have a value in that column, with the value."""
        points = ((float(row["epoch"]), float(row.get(column) or "nan")) for row in self.history)
        return [point for point in points if math.isfinite(point[1])]

    def trained_on(self) -> list[str]:
        """Return the images of each data set of a training that has ended, in words."""
        training = self.record.get("training", {})
        return [
            f"{training[count]} of {training.get(f'{role}_data_set') or training[role]}"
            for role, count in (("source", "images"), ("target", "target_images"))
            if training.get(role)
        ]


def ensemble_record(folder: Path) -> dict[str, Any] | None:
    """Return a record of scores of an ensemble's own folder, None for any other folder."""
    for file in sorted(folder.glob("*.json")):
        record = read_json(file)
        if "members" in record and scored_checkpoints(record):
            return record
    return None


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
