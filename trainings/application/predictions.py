"""The results of `predict` in their folder: what made them, and what could not be read.

label_ids/  train_ids/  color/  overlay/  predictions.json  contact_sheet.png

label_ids/ is what the Cityscapes evaluation and its test server take: one PNG per image whose name
begins as the image's.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.catalog import fingerprint, unlabelled
from datasets.data_set import Role
from datasets.inputs import RECORD
from trainings.application.contact_sheet import SHEET, Kept
from trainings.application.options import PredictionOptions
from trainings.application.segmenter import Segmenter
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET
from trainings.scoring.provenance import differences, made_with
from utils.disk.machine import git_revision, versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.pictures.panels import label_sheet, overlay

KINDS: Mapping[str, str] = {
    "label_ids": "_pred_labelIds.png",
    "train_ids": "_pred_labelTrainIds.png",
    "color": "_pred_color.png",
    "overlay": "_pred_overlay.jpg",
}
"""The folders of results, and how the names in them end."""

COMPARED = ("input", "image_size", "bn_statistics", "statistics_of", "precision", "side_by_side")
"""Flags that all results in a folder share, beside the checkpoints."""

VIDEO_KINDS = ("color", "overlay")
SHOWN = 20
"""Bad files that are printed; the record has them all."""


class Predictions:
    """One making of results, which may take several attempts."""

    def __init__(
        self, folder: RunFolder, checkpoints: tuple[Path, ...], path: Path, settings: Settings
    ):
        self.folder, self.checkpoints, self.path = folder, checkpoints, path
        self.settings, self.classes = settings, settings.class_table
        self.identity = {
            "input": str(path),
            "statistics_of": _statistics_of(settings),
            **made_with(checkpoints, settings),
        }
        self.side_by_side = PredictionOptions.of(settings).side_by_side
        if self.side_by_side:
            self.identity["side_by_side"] = True
        self.problems: list[tuple[Path, str]] = []

    def begin(self) -> None:
        """Take the folder. Raise UsageError where other results lie there, unless they may be
        overwritten."""
        if self.settings.overwrite:
            self._clear()
        elif self.folder.has(RECORD):
            self._refuse_other(self.folder.read_json(RECORD))
        elif found := [kind for kind in KINDS if self.folder.has(kind)]:
            raise UsageError(
                f"{self.folder.path} holds {', '.join(found)} and no {RECORD} that says what made "
                "them: choose another --output, or write over them with --overwrite"
            )

    def load(self) -> Segmenter:
        """Return the networks; from here on the folder belongs to this prediction."""
        segment = Segmenter(self.checkpoints, self.settings)
        if not self.folder.has(RECORD):
            self.folder.write_json(RECORD, self._record())
        return segment

    def _clear(self) -> None:
        (self.folder.path / RECORD).unlink(missing_ok=True)
        for kind, suffix in KINDS.items():
            for path in self.folder.path.glob(f"{kind}/**/*{suffix}"):
                path.unlink()
        for path in (*self.videos(), self.folder.path / SHEET):
            path.unlink(missing_ok=True)

    def _refuse_other(self, before: dict[str, Any]) -> None:
        if differing := differences(before, self.identity, COMPARED):
            raise UsageError(
                f"{self.folder.path} holds other predictions ({differing}): choose another "
                "--output, or make them afresh with --overwrite"
            )

    def results(self, name: str) -> dict[str, Path]:
        """Return the files of a picture's results by kind."""
        return {kind: self.folder.path / kind / f"{name}{end}" for kind, end in KINDS.items()}

    def overlay(self, image: np.ndarray, train_ids: np.ndarray) -> np.ndarray:
        """Return the overlay, beside its picture if that is asked for."""
        drawn = overlay(image, train_ids, self.classes)
        return np.concatenate([image, drawn], axis=1) if self.side_by_side else drawn

    def draw_sheet(self, pictures: Iterable[Kept]) -> None:
        """Write the contact sheet of what was predicted, if anything was."""
        if shown := list(pictures):
            networks = ", ".join(path.resolve().parent.name for path in self.checkpoints)
            title = f"{self.path.name}, as {networks} sees it"
            self.folder.save_picture(SHEET, label_sheet(shown, title=title, classes=self.classes))
            print(f"contact sheet: {self.folder.path / SHEET}")

    def videos(self) -> list[Path]:
        """Return the files of a video's results, in the order of `VIDEO_KINDS`."""
        return [self.folder.path / f"{self.path.stem}_pred_{kind}.mp4" for kind in VIDEO_KINDS]

    def finish(self, unit: str, total: int, done: int, seconds: float) -> None:
        """Say and record what was done. Raise UserError where something could not be."""
        there = total - done - len(self.problems) if unit == "image" else 0
        result = {
            unit + "s": total,
            "predicted_last": done,
            "seconds": seconds,
            "bad": [{"path": str(path), "problem": why} for path, why in self.problems],
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self.folder.write_json(RECORD, {**self._record(), **result})
        if there:
            print(f"{_counted(there, unit)} predicted before; --overwrite makes all afresh")
        if done:
            rate = f"{done / seconds:.2f} {unit}s/s"
            print(f"{_counted(done, unit)} in {seconds:.1f} s, {rate}")
        print(f"results: {self.folder.path}", flush=True)
        self.say_problems()

    def say_problems(self) -> None:
        """Raise UserError if there are problems."""
        if not self.problems:
            return
        for _, sentence in self.problems[:SHOWN]:
            # Names of files are bytes to the system; not all of them are text.
            text = sentence.replace("\n", "\\n").encode(errors="backslashreplace").decode()
            print(f"bad: {text}", flush=True)
        raise UserError(
            f"{_counted(len(self.problems), 'file')} could not be read, named above and in "
            f"{self.folder.path / RECORD}; everything else is done: mend or remove them"
        )

    def _record(self) -> dict[str, Any]:
        return {
            **self.identity,
            "settings": self.settings.to_json(),
            "versions": versions(),
            "git_revision": git_revision(),
        }


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _statistics_of(settings: Settings) -> str | None:
    """Return a digest of the images whose batch-norm statistics are taken, if those of the training
    are not."""
    if settings.bn_statistics != TARGET:
        return None
    return fingerprint(unlabelled(Role.TARGET, "train", settings))


def are_newer(results: Iterable[Path], source: Path) -> bool:
    """Return whether all results are there, and none is older than what it was made from."""
    try:
        oldest = min(result.stat().st_mtime_ns for result in results)
        return oldest >= source.stat().st_mtime_ns
    except OSError:
        return False
