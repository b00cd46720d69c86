"""Read and write the files of a run; every file is written whole or not at all.

settings.json  history.csv  latest.pth  best.pth  ema.pth  scores.json  *.png  tensorboard/
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from utils import processes
from utils.disk.checkpoint import NewerFormatError, check_version, read_checkpoint, versioned
from utils.disk.files import json_object, written_whole
from utils.errors import UserError, check_is_file

LATEST, PREVIOUS, BEST, EMA, SCORES, SETTINGS, HISTORY = (
    "latest.pth",
    "previous.pth",
    "best.pth",
    "ema.pth",
    "scores.json",
    "settings.json",
    "history.csv",
)
TENSORBOARD, PICTURES = "tensorboard", "pictures"

HISTORY_COLUMNS = ("epoch", "loss", "train_seconds")
"""Columns of `HISTORY` that every epoch fills."""

PRECISION = "precision"
"""The one column of `HISTORY` that holds words."""

PNG_LEVEL = 4
"""Compression of pictures: it takes half the time of Pillow's 6 for files half a percent larger."""


class RunFiles:
    """Reads and writes the files of one run.

    Of several processes the first one writes for all, unless each has files of its own (`shared`).
    `flag` is the one that names another place for it.
    """

    def __init__(self, path: Path, flag: str = "save_model_path", *, shared: bool = False):
        self.path, self.flag = path, flag
        self.writes = shared or processes.is_first()
        self._begun = False

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write JSON with NaN as null, so that every reader takes it."""
        self.write_text(name, json.dumps(_without_nan(value), indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        self._write(name, lambda file: file.write(content))

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        check_is_file(path)
        try:
            return json_object(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): bring it back, or start afresh with --overwrite"
            ) from error

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one row per round; columns that only some rounds fill are empty in the others."""
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(HISTORY, text.getvalue())

    def read_history(self) -> list[dict[str, str]]:
        """Return a row of scalars per finished epoch; none where none was written.

        Cells are numbers or empty, but for `PRECISION`; those of `HISTORY_COLUMNS` are numbers.
        Raise UserError for another table.
        """
        path = self.path / HISTORY
        if not path.exists():
            return []
        check_is_file(path)
        try:
            with path.open(newline="", encoding="utf-8") as lines:
                rows = list(csv.DictReader(lines))
            if not rows:
                raise ValueError("it has no rows")
            for row in rows:
                _check_history_row(row)
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(
                f"{path} is not as the training wrote it ({error}): bring it back, or remove it, "
                "and this run is shown without its curves"
            ) from error
        return rows

    def save_checkpoint(self, name: str, value: Mapping[str, Any]) -> None:
        self._write(name, lambda file: torch.save(versioned(value), file))

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        path = self.path / name
        check_is_file(path)
        try:
            content = read_checkpoint(path)
        except Exception as error:  # torch raises many kinds for a broken file
            forbidden = isinstance(error, UnpicklingError)  # torch would say how to run it
            reason = "it is damaged, or holds objects that could run code" if forbidden else error
            raise UserError(
                f"{path} cannot be read as a checkpoint ({reason}): remove it, or start afresh "
                "with --overwrite"
            ) from error
        check_version(content, path)
        return content

    def save_latest(self, value: Mapping[str, Any]) -> None:
        """Save a run's latest checkpoint; the one before it stays as `PREVIOUS`."""

        def write(file: BinaryIO) -> None:
            torch.save(versioned(value), file)
            if self.has(LATEST):
                file.flush()
                os.fsync(file.fileno())
                (self.path / LATEST).replace(self.path / PREVIOUS)

        self._write(LATEST, write)

    def load_latest(self) -> dict[str, Any]:
        """Return the latest checkpoint that is whole. Raise UserError where there is none."""
        try:
            return self.load_checkpoint(LATEST)
        except NewerFormatError:
            raise
        except UserError as error:
            if not self.has(PREVIOUS):
                raise
            if self.has(LATEST):
                print(f"{error}; going on from {PREVIOUS}", flush=True)
            return self.load_checkpoint(PREVIOUS)

    def save_picture(
        self, name: str, picture: np.ndarray, kind: str = "PNG", **options: Any
    ) -> Path:
        """Write a picture, RGB uint8 [H, W, 3] or ids uint8 [H, W], and return its path.

        `kind` and options are those of Pillow's `save`.
        """
        options.setdefault("compress_level", PNG_LEVEL)  # read for PNG alone
        self._write(name, lambda file: Image.fromarray(picture).save(file, kind, **options))
        return self.path / name

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write compressed arrays by name, as `numpy.load` reads them."""
        self._write(
            name,
            lambda file: np.savez_compressed(file, **arrays),  # type: ignore[arg-type]  # numpy types `**` like its own `allow_pickle`
        )

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be made ({error.strerror}): name another --{self.flag}"
            ) from error

    def _write(self, name: str, write: Callable[[BinaryIO], Any]) -> None:
        if not self.writes:
            return
        path = self.path / name
        if self._begun and not self.has(SETTINGS):  # it must not be made anew in its place
            raise UserError(
                f"{self.path} has gone, or lost its {SETTINGS}: bring it back, a drive may have to "
                "be mounted again, and give the same command"
            )
        try:
            self._make()
            with written_whole(path) as temporary, temporary.open("wb") as file:
                write(file)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as the latter
            raise UserError(
                f"{path} cannot be written ({getattr(error, 'strerror', None) or error}): see to "
                f"the folder and its free space, or name another --{self.flag}"
            ) from error


def _check_history_row(row: Mapping[str | None, Any]) -> None:
    """Raise ValueError where a row of `HISTORY`, by column, is not one that a training writes."""
    if None in row or None in row.values():
        raise ValueError("a row has more or fewer cells than the head")
    numbers = {name: float(cell) for name, cell in row.items() if cell and name != PRECISION}
    for name in HISTORY_COLUMNS:
        if name not in numbers:
            raise ValueError(f"a row lacks {name}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
