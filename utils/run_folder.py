"""One run on disk: settings, curves, TensorBoard, checkpoints and scores.

settings.json  history.csv  latest.pth  best.pth  scores.json  *.png  tensorboard/
"""

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from utils.errors import UsageError, UserError
from utils.settings import Settings
from utils.transforms import augmentation_codes

LATEST, BEST, SCORES, SETTINGS, HISTORY = (
    "latest.pth",
    "best.pth",
    "scores.json",
    "settings.json",
    "history.csv",
)
TENSORBOARD = "tensorboard"


class RunFolder:
    """Writes and reads the files of one run; every file is written whole or not at all."""

    def __init__(self, path: Path):
        self.path = path
        self._writer: SummaryWriter | None = None

    def finished(self, settings: Settings, data: str) -> bool:
        """Whether the run of these settings on these data has ended here.

        `data` is the data's fingerprint. Raises UsageError where a run with other settings or data
        lies here, unless it may be overwritten.
        """
        if not self.continues(settings):
            return False
        self._refuse_other({**settings.result_settings(), "data": data})
        return self.has(SCORES)

    def continues(self, settings: Settings) -> bool:
        """Whether training goes on from a checkpoint that lies here."""
        return self.has(LATEST) and not settings.overwrite

    def begin(self, settings: Settings, data: str) -> None:
        """Takes the folder for a run: a new one, or the same one continued."""
        if not self.continues(settings):
            self._clear()
        self.write_json(SETTINGS, {**settings.to_json(), "data": data})

    def _clear(self) -> None:
        """Removes what an earlier run left, and nothing else that may lie here."""
        try:
            for name in (LATEST, BEST, SCORES, HISTORY, SETTINGS):
                (self.path / name).unlink(missing_ok=True)
            if (self.path / TENSORBOARD).exists():
                shutil.rmtree(self.path / TENSORBOARD)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be cleared for a new run ({error.strerror}): close what uses "
                "it, or choose another --save_keyword"
            ) from error

    def _refuse_other(self, now: Mapping[str, Any]) -> None:
        # A flag that is younger than the run was at its default.
        before = Settings().to_json() | self.read_json(SETTINGS)
        differing = [
            "the images or their pseudo-labels"
            if name == "data"
            else f"--{name} was {before.get(name)!r}, is {value!r}"
            for name, value in now.items()
            if before.get(name) != value
        ]
        if differing:
            raise UsageError(
                f"{self.path} holds a run with other settings ({'; '.join(differing)}): repeat "
                "them to continue it, choose another --save_keyword, or start afresh with "
                "--overwrite"
            )

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """JSON with NaN as null, so that every reader takes it."""
        self.write_text(name, json.dumps(_without_nan(value), indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        self._write(name, lambda file: file.write(text.encode()))

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): remove it, or start afresh with --overwrite"
            ) from error

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One row per epoch; a column that only some epochs fill stays empty in the others."""
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(HISTORY, text.getvalue())

    def save_checkpoint(self, name: str, value: Mapping[str, Any]) -> None:
        self._write(name, lambda file: torch.save(dict(value), file))

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a broken file
            raise UserError(
                f"{path} cannot be read as a checkpoint ({error}): remove it, or start afresh "
                "with --overwrite"
            ) from error

    def save_picture(self, name: str, picture: np.ndarray) -> Path:
        """PNG of RGB uint8 [H, W, 3], or of ids, uint8 [H, W]; the path it lies at."""
        self._write(name, lambda file: Image.fromarray(picture).save(file, "PNG"))
        return self.path / name

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """TensorBoard curves."""
        for tag, value in values.items():
            self.board(step).add_scalar(tag, value, step)

    def board(self, step: int) -> SummaryWriter:
        """TensorBoard's writer; entries of an earlier attempt from `step` on are dropped."""
        if self._writer is None:
            self._writer = SummaryWriter(str(self.path / TENSORBOARD), purge_step=step)
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, name: str, write: Callable[[BinaryIO], Any]) -> None:
        path = self.path / name
        temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as the latter
            raise UserError(
                f"{path} cannot be written ({getattr(error, 'strerror', None) or error}): see to "
                "the folder and its free space, or name another --save_model_path"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def own_run(settings: Settings, stem: str) -> Path:
    """Folder of the run that these settings name. Raises UserError where it has no checkpoint."""
    folder = settings.save_model_path / settings.run_name(stem)
    name = selected(settings)
    if not (folder / name).exists():
        raise UserError(
            f"no {name} in {folder}: train it with --action {settings.action}, or name a "
            "checkpoint with --load_model_path"
        )
    return folder


def find_run(settings: Settings, stem: str, action: str, wanted: Mapping[str, Any]) -> Path:
    """Folder of the run of an action, for a command that names no checkpoint.

    Of the runs like these settings (see `find_runs`) that were made by this action with the wanted
    settings: with a `--save_keyword` the one of that name; else the one of equal augmentation, of
    several the one with the usual name; else the only one. Raises UserError with the command that
    makes it, or with the candidates.
    """
    name, folder = selected(settings), settings.save_model_path
    found = find_runs(settings, {"action": action, **wanted})
    codes = augmentation_codes(settings.aug_method)
    equal = [path for path, run in found.items() if augmentation_codes(run["aug_method"]) == codes]
    named = folder / settings.run_name(stem)
    if named in (found if settings.save_keyword else equal):
        return named
    for choice in () if settings.save_keyword else (equal, list(found)):
        if len(choice) == 1:
            return choice[0]
    flags = " ".join(
        f"--{flag} {value}" for flag, value in {"optimizer": settings.optimizer, **wanted}.items()
    )
    keyword = f" --save_keyword {settings.save_keyword}" if settings.save_keyword else ""
    if found and not keyword:
        names = ", ".join(sorted(path.name for path in found))
        raise UserError(
            f"{len(found)} runs in {folder} were made by --action {action} {flags} ({names})"
        )
    raise UserError(f"no {name} in {folder} made by --action {action} {flags}{keyword}")


def selected(settings: Settings) -> str:
    """The file of the checkpoint that `--select` means."""
    return {"best": BEST, "last": LATEST}[settings.select]


def find_runs(settings: Settings, wanted: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """The runs under `--save_model_path` with the wanted settings, of the same optimiser and
    network, that have the checkpoint which `--select` means: their folders, sorted, each with all
    its settings."""
    alike = {name: getattr(settings, name) for name in ("optimizer", "backbone", "base_width")}
    wanted = {**alike, **wanted}
    runs = {
        path.parent: RunFolder(path.parent).read_json(SETTINGS)
        for path in sorted(settings.save_model_path.glob(f"*/{SETTINGS}"))
        if (path.parent / selected(settings)).exists()
    }
    return {
        path: run
        for path, run in runs.items()
        if all(run.get(name) == value for name, value in wanted.items())
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
