"""Begin, continue or refuse a run in its folder."""

import contextlib
import itertools
import reprlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.labels import CLASS_TABLE, USUAL
from utils.cli.common import CommandOptions
from utils.cli.options import flags_of, takes
from utils.disk.board import Board
from utils.disk.files import remove_unfinished, removed_unless_used
from utils.disk.lock import locked, owner
from utils.disk.run_files import (
    BEST,
    EMA,
    HISTORY,
    LATEST,
    PICTURES,
    PREVIOUS,
    SCORES,
    SETTINGS,
    TENSORBOARD,
    RunFiles,
)
from utils.errors import UsageError, UserError

LOCK = ".lock"

IDENTIFYING = ("action", "backbone", "base_width", "image_size")
"""Settings that every run has recorded since the first release."""

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


class RunFolder(RunFiles):
    """The folder of one run: its files, its board, and whether a command may continue it."""

    def __init__(self, path: Path, flag: str = "save_model_path", *, shared: bool = False):
        super().__init__(path, flag, shared=shared)
        self.board = Board(path / TENSORBOARD, writes=self.writes)

    def finished(
        self,
        settings: CommandOptions,
        inputs: Mapping[str, str | None],
        adaptation: Collection[str] = (),
    ) -> bool:
        """Return whether the run of these settings on these inputs has ended here.

        `inputs` are the digests of what `INPUTS` names; None for what is not there to compare.
        `adaptation` goes to `Options.result_settings`. Raise UsageError where a run with other
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
        """Return whether checkpoints or scores of a run lie here that may not be overwritten."""
        results = (LATEST, PREVIOUS, BEST, EMA, SCORES)
        return not settings.overwrite and any(self.has(name) for name in results)

    def continues(self, settings: CommandOptions) -> bool:
        """Return whether training goes on from a checkpoint that lies here."""
        return (self.has(LATEST) or self.has(PREVIOUS)) and not settings.overwrite

    @contextlib.contextmanager
    def alone(self, below: Iterable[str] = ()) -> Iterator[None]:
        """Keep other commands from writing to this run. Raise UserError where one does.

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
        """Remove what a process that was killed was writing; the folder may hold others' files."""
        found = [self.path.glob(".*.tmp"), *((self.path / name).rglob(".*.tmp") for name in below)]
        remove_unfinished(itertools.chain.from_iterable(found))

    def begin(self, settings: CommandOptions, inputs: Mapping[str, str | None]) -> None:
        """Take the folder for a run: a new one, or the same one continued."""
        self._begun = False
        more: dict[str, Any] = {}
        if not self.continues(settings):
            self.clear()
        elif self.has(SETTINGS):  # what is not there any more keeps its digest
            before, used = self.read_settings(settings), self._used_precisions(settings)
            inputs = {name: digest or before.get(name) for name, digest in inputs.items()}
            used = list(dict.fromkeys([*used, settings.precision]))
            more = {USED_PRECISIONS: used} if len(used) > 1 else {}
        self.write_json(SETTINGS, {**settings.to_json(), **inputs, **more})
        self._begun = True

    def clear(self, *more: str) -> None:
        """Remove what an earlier run left, the files of these names too, and nothing else that may
        lie here."""
        if not self.writes:
            return
        try:
            for name in (LATEST, PREVIOUS, BEST, EMA, SCORES, HISTORY, SETTINGS, *more):
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
        """Return each `--precision` that the run has been trained with, in order."""
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
        """Return whether the run keeps its best epoch, as it cannot without labels of what it is
        scored on."""
        return not self.has(SETTINGS) or self.read_json(SETTINGS).get(SELECTION) != LAST

    def read_settings(self, settings: CommandOptions) -> dict[str, Any]:
        """Return the settings of the run by name, as JSON types, and the digests of its `INPUTS`.

        The flags are those of the command's `settings`. A flag that is younger than the run is at
        its default. Raise UserError where the file lacks what every run has, or holds a value that
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


def _other_inputs(before: Mapping[str, Any], inputs: Mapping[str, str | None]) -> list[str]:
    """Return in words which inputs differ from those of a run; what is not known does not."""
    return [
        f"{INPUTS[name]} are others"
        for name, digest in inputs.items()
        if digest and (before.get(name) or OLDER_INPUTS.get(name, digest)) != digest
    ]
