"""One run on disk: settings, curves, TensorBoard, checkpoints and scores.

settings.json  history.csv  latest.pth  best.pth  ema.pth  scores.json  *.png  tensorboard/
"""

import contextlib
import csv
import io
import itertools
import json
import math
import os
import reprlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from datasets.labels import CLASS_TABLE, USUAL
from utils import processes
from utils.cli.common import CommandOptions
from utils.cli.options import flags_of, takes
from utils.disk.checkpoint import NewerFormatError, check_version, read_checkpoint, versioned
from utils.disk.files import remove_unfinished, removed_unless_used, written_whole
from utils.disk.lock import locked, owner
from utils.errors import UsageError, UserError, check_is_file
from utils.event_files import Summary, SummaryWriter, event_writer

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
LOCK = ".lock"

IDENTIFYING = ("action", "backbone", "base_width", "image_size")
"""Settings that every run has recorded since the first release."""

HISTORY_COLUMNS = ("epoch", "loss", "train_seconds")
"""Columns of `HISTORY` that every epoch fills."""

PRECISION = "precision"
"""The one column of `HISTORY` that holds words."""

SELECTION, LAST = "selection", "last"
"""The one of the `INPUTS` that says that no epoch is selected, and what it then is."""

USED_PRECISIONS = "precisions_used"
"""In settings.json of a run that has gone on in another `--precision`: all of them, in order."""

INPUTS = {
    CLASS_TABLE: "the classes (--classes)",
    "data": "the images or their pseudo-labels",
    "weights": "the weights it starts from",
    SELECTION: "the labels of the validation split, by which an epoch is selected,",
    "proportions": "the sizes of pictures of other proportions, which older releases stretched,",
}
"""Inputs that a run depends on beside its settings, by the names of their digests in
settings.json."""

OLDER_INPUTS = {CLASS_TABLE: USUAL, "proportions": "stretched", SELECTION: "best"}
"""Digests of runs that have recorded none: of a release before there was one, or as usual."""


class RunFolder:
    """Writes and reads the files of one run; every file is written whole or not at all.

    Of several processes the first one writes for all, unless each has files of its own (`shared`).
    `flag` is the one that names another place for it.
    """

    def __init__(self, path: Path, flag: str = "save_model_path", *, shared: bool = False):
        self.path, self.flag = path, flag
        self.writes = shared or processes.is_first()
        self._writer: SummaryWriter | None = None
        self._board = contextlib.ExitStack()
        self._board_lost = False
        self._begun = False

    def finished(
        self,
        settings: CommandOptions,
        inputs: Mapping[str, str | None],
        adaptation: Collection[str] = (),
    ) -> bool:
        """Whether the run of these settings on these inputs has ended here.

        `inputs` are the digests of what `INPUTS` names; None for what is not there to compare.
        `adaptation` goes to `Options.result_settings`. Raises UsageError where a run with other
        settings or inputs lies here, or one that has results and cannot be continued, unless it may
        be overwritten.
        """
        if not self.is_taken(settings):
            return False
        ended = self.has(SCORES)
        if not self.continues(settings) and not ended:
            raise UsageError(
                f"{self.path} holds the weights of a run but no {LATEST}, from which it could be "
                f"continued: bring {LATEST} back, choose another --save_keyword, or start afresh "
                "with --overwrite, which removes those weights"
            )
        now = settings.result_settings(adaptation)
        asked = not ended and "precision" in settings.given
        if asked or settings.precision in self._used_precisions(settings):
            now.pop("precision")  # an unfinished run may go on in any that the command names
        self._refuse_other(self.read_settings(settings), now, inputs)
        return ended

    def is_taken(self, settings: CommandOptions) -> bool:
        """Whether checkpoints or scores of a run lie here that may not be overwritten."""
        results = (LATEST, PREVIOUS, BEST, EMA, SCORES)
        return not settings.overwrite and any(self.has(name) for name in results)

    def continues(self, settings: CommandOptions) -> bool:
        """Whether training goes on from a checkpoint that lies here."""
        return (self.has(LATEST) or self.has(PREVIOUS)) and not settings.overwrite

    @contextlib.contextmanager
    def alone(self, below: Iterable[str] = ()) -> Iterator[None]:
        """Keeps other commands from writing this run. Raises UserError where one does.

        `below` names the folders in it that this command alone fills, at any depth.
        """
        if not self.writes:
            yield
            return
        self._make()
        path = self.path / LOCK
        with contextlib.ExitStack() as held:
            try:
                mine = held.enter_context(locked(path, wait=False))
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be written ({error.strerror}): see to its permissions, or "
                    f"name another --{self.flag}"
                ) from error
            if not mine:
                raise UserError(
                    f"{self.path} is being written by {owner(path)}: wait for it, stop it, or "
                    "name another folder"
                )
            held.enter_context(removed_unless_used(self.path, LOCK))
            self._remove_unfinished(below)
            yield

    def _remove_unfinished(self, below: Iterable[str]) -> None:
        """Removes what a process that was killed was writing; the folder may hold others' files."""
        found = [self.path.glob(".*.tmp"), *((self.path / name).rglob(".*.tmp") for name in below)]
        remove_unfinished(itertools.chain.from_iterable(found))

    def begin(self, settings: CommandOptions, inputs: Mapping[str, str | None]) -> None:
        """Takes the folder for a run: a new one, or the same one continued."""
        self._begun = False
        more: dict[str, Any] = {}
        if not self.continues(settings):
            self._clear()
        elif self.has(SETTINGS):  # what is not there any more keeps its digest
            before, used = self.read_settings(settings), self._used_precisions(settings)
            inputs = {name: digest or before.get(name) for name, digest in inputs.items()}
            used = list(dict.fromkeys([*used, settings.precision]))
            more = {USED_PRECISIONS: used} if len(used) > 1 else {}
        self.write_json(SETTINGS, {**settings.to_json(), **inputs, **more})
        self._begun = True

    def _clear(self) -> None:
        """Removes what an earlier run left, and nothing else that may lie here."""
        if not self.writes:
            return
        try:
            for name in (LATEST, PREVIOUS, BEST, EMA, SCORES, HISTORY, SETTINGS):
                (self.path / name).unlink(missing_ok=True)
            for drawn in (*self.path.glob("validation*.*"), *self.path.glob(f"{PICTURES}/*.png")):
                drawn.unlink()
            if (self.path / TENSORBOARD).exists():
                shutil.rmtree(self.path / TENSORBOARD)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be cleared for a new run ({error.strerror}): close what uses "
                "it, or choose another --save_keyword"
            ) from error

    def _used_precisions(self, settings: CommandOptions) -> list[str]:
        """Each `--precision` that the run has been trained with, in order."""
        before = self.read_settings(settings)
        return before.get(USED_PRECISIONS) or [before["precision"]]

    def _refuse_other(
        self,
        before: Mapping[str, Any],
        now: Mapping[str, Any],
        inputs: Mapping[str, str | None],
    ) -> None:
        differing = [
            f"--{name} was {before[name]!r}, is {value!r}"
            for name, value in now.items()
            if before[name] != value
        ]
        differing += _other_inputs(before, inputs)
        if any(before[name] != now.get(name, before[name]) for name in ("num_epochs", "num_steps")):
            differing.append("the learning rate follows a schedule over the whole length")
        self._refuse(differing)

    def check_inputs(self, inputs: Mapping[str, str | None]) -> None:
        """Raise UsageError where the run that is to be continued here has other inputs."""
        if self.has(SETTINGS):
            self._refuse(_other_inputs(self.read_json(SETTINGS), inputs))

    def _refuse(self, differing: Sequence[str]) -> None:
        if differing:
            raise UsageError(
                f"{self.path} holds another run ({'; '.join(differing)}): give the same again to "
                "continue it, choose another --save_keyword, or start afresh with --overwrite"
            )

    def selects(self) -> bool:
        """Whether the run keeps its best epoch: not without labels of what it is scored on."""
        return not self.has(SETTINGS) or self.read_json(SETTINGS).get(SELECTION) != LAST

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """JSON with NaN as null, so that every reader takes it."""
        self.write_text(name, json.dumps(_without_nan(value), indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        self._write(name, lambda file: file.write(content))

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        check_is_file(path)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, dict):
                raise ValueError("it holds no names with values")
            return value
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): bring it back, or start afresh with --overwrite"
            ) from error

    def read_settings(self, settings: CommandOptions) -> dict[str, Any]:
        """The settings of the run by name, as JSON types, and the digests of its `INPUTS`.

        The flags are those of the command's `settings`. A flag that is younger than the run is at
        its default. Raises UserError where the file lacks what every run has, or holds a value that
        its flag does not take.
        """
        found, kind = self.read_json(SETTINGS), type(settings)
        problems = [f"{name} is missing" for name in IDENTIFYING if name not in found]
        problems += [
            f"{field.name} is {reprlib.repr(found[field.name])}"
            for field in flags_of(kind)
            if field.name in found and not takes(kind, field, found[field.name])
        ]
        if problems:
            raise UserError(
                f"{self.path / SETTINGS} is not as the training wrote it ({problems[0]}): bring it "
                "back, train that run again with --overwrite, or copy its checkpoint elsewhere"
            )
        return kind.from_json(found).to_json() | found

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one row per round; columns that only some rounds fill are empty in the others."""
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(HISTORY, text.getvalue())

    def read_history(self) -> list[dict[str, str]]:
        """A row of scalars per finished epoch; none where none was written.

        Cells are numbers or empty, but for `PRECISION`; those of `HISTORY_COLUMNS` are numbers.
        Raises UserError for another table.
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
        """Saves a run's latest checkpoint; the one before it stays as `PREVIOUS`."""

        def write(file: BinaryIO) -> None:
            torch.save(versioned(value), file)
            if self.has(LATEST):
                file.flush()
                os.fsync(file.fileno())
                (self.path / LATEST).replace(self.path / PREVIOUS)

        self._write(LATEST, write)

    def load_latest(self) -> dict[str, Any]:
        """The latest checkpoint that is whole. Raises UserError where there is none."""
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

    def save_picture(self, name: str, picture: np.ndarray, kind: str = "PNG", **options) -> Path:
        """Picture of RGB uint8 [H, W, 3], or of ids, uint8 [H, W]; the path it lies at.

        `kind` and options are those of Pillow's `save`.
        """
        self._write(name, lambda file: Image.fromarray(picture).save(file, kind, **options))
        return self.path / name

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Compressed arrays by name, as `numpy.load` reads them."""
        self._write(name, lambda file: np.savez_compressed(file, **arrays))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """TensorBoard curves."""

        def add(board: SummaryWriter) -> None:
            for tag, value in values.items():
                board.add_scalar(tag, value, step)

        self._draw(step, add)

    def show(self, tag: str, picture: np.ndarray, step: int) -> None:
        """RGB, uint8 [H, W, 3], in TensorBoard."""
        self._draw(step, lambda board: board.add_image(tag, picture, step, dataformats="HWC"))

    def describe(self, summary: Summary, step: int) -> None:
        """Write a summary for a plugin of TensorBoard, such as the table of runs."""
        self._draw(step, lambda board: board.file_writer.add_summary(summary, step))

    def _draw(self, step: int, add: Callable[[SummaryWriter], Any]) -> None:
        """Adds to TensorBoard; entries of an earlier attempt from `step` on are dropped.

        A run needs no curves: where they cannot be written, it warns once and goes on without.
        """
        if not self.writes or self._board_lost:
            return
        with self._without_board_if_lost():
            if self._writer is None:
                self._writer = self._board.enter_context(
                    event_writer(self.path / TENSORBOARD, purge_step=step)
                )
            add(self._writer)

    @contextlib.contextmanager
    def _without_board_if_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._board_lost:
                self._board_lost = True
                print(
                    f"warning: {self.path / TENSORBOARD} cannot be written ({error.strerror}): "
                    f"the run goes on without it; {HISTORY} still gets a row per epoch",
                    flush=True,
                )

    def close(self) -> None:
        """Close what has been opened in TensorBoard's folder."""
        with self._without_board_if_lost():
            self._board.close()
        self._writer = None

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


def _other_inputs(before: Mapping[str, Any], inputs: Mapping[str, str | None]) -> list[str]:
    """Return in words which inputs differ from those of a run; what is not known does not."""
    return [
        f"{INPUTS[name]} are others"
        for name, digest in inputs.items()
        if digest and (before.get(name) or OLDER_INPUTS.get(name, digest)) != digest
    ]


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
