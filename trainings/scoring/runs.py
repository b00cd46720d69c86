"""The search for the run whose checkpoint a command means."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.options import FOLDER
from model.catalog import RECORDED
from trainings.options import Settings
from utils.cli.flags import words_of
from utils.disk.run_folder import BEST, EMA, LATEST, SETTINGS, RunFolder
from utils.errors import UsageError, UserError
from utils.notes import say_once
from utils.transforms import augmentation_codes

ALIKE = ("optimizer", *RECORDED)
"""Settings in which a run that is searched for must equal the command's."""

CHECKPOINTS = {"best": BEST, "last": LATEST, "ema": EMA}
"""File of the checkpoint that each `--select` means."""

SELECTS = {name: select for select, name in CHECKPOINTS.items()}
"""The `--select` of each of these files."""

USUAL = {"source": Settings.source, "target": Settings.target}
"""Settings that are not named where they are these."""

CANDIDATES_SHOWN = 3

CARRIED = (
    *("save_model_path", "source", "target", "source_root", "target_root", "frame_step"),
    *("gta5_root", "cityscapes_root", "classes", "aug_method", "image_size", *RECORDED),
)
"""Flags of a command that the command which it advises needs, too."""


def own_run(settings: Settings, stem: str) -> Path:
    """Return the folder of the run that these settings name. Raise UserError where it has no
    checkpoint."""
    folder = settings.save_model_path / settings.run_name(stem)
    name = selected(settings, folder)
    if not (folder / name).exists():
        raise UserError(
            f"no {name} in {folder}: train it with --action {settings.action}, or name a "
            "checkpoint with --load_model_path"
        )
    return folder


class NoRun(UserError):
    """A search found no run, or several; the caller adds the remedy."""


def find_run(settings: Settings, stem: str, wanted: Mapping[str, Any]) -> Path:
    """Return the folder of the wanted run, for a command that names no checkpoint.

    With a `--save_keyword` that is the run of that name, whatever its optimiser and network. Else
    it is one of the runs like these settings (see `find_runs`): the only one of equal augmentation,
    or among several of them the one with the usual name; else the only run.
    Raise NoRun with the command that makes it, or with the candidates; UsageError where a run
    of another action has that name; UserError where the settings of the run with the usual name
    cannot be read.
    """
    folder = settings.save_model_path
    if settings.save_keyword:
        return _named_run(folder / settings.save_keyword, wanted, settings)
    usual = folder / settings.run_name(stem)
    if (usual / SETTINGS).exists() and _has_selected(usual, settings):
        RunFolder(usual).read_settings(settings)
    found = find_runs(settings, wanted)
    codes = augmentation_codes(settings.aug_method)
    equal = [path for path, run in found.items() if augmentation_codes(run["aug_method"]) == codes]
    if usual in equal:
        return usual
    for choice in (equal, list(found)):
        if len(choice) == 1:
            return choice[0]
    flags = _flags({**wanted, "optimizer": settings.optimizer})
    if found:
        names = ", ".join(sorted(path.name for path in found))
        raise NoRun(f"{len(found)} runs in {folder} were made by {flags} ({names})")
    others = find_runs(settings, wanted, alike=False)
    name = CHECKPOINTS[settings.select]
    flags = command_flags({**wanted, "optimizer": settings.optimizer}, settings)
    raise NoRun(f"no {name} in {folder} made by {flags}{unlike(settings, others)}")


def _named_run(folder: Path, wanted: Mapping[str, Any], settings: Settings) -> Path:
    """Return the folder that `--save_keyword` names. Raise NoRun where it holds no such run."""
    run, checkpoint = RunFolder(folder), selected(settings, folder)
    found = run.read_settings(settings) if run.has(SETTINGS) else {}
    if found and found["action"] != wanted["action"]:
        raise UsageError(
            f"argument --save_keyword: {folder} is a run of {found['action']}, not of "
            f"{wanted['action']}: name one of those, or this one with --load_model_path "
            f"{folder / checkpoint}"
        )
    if not run.has(checkpoint) or not _fits(found, wanted):
        flags = command_flags({**wanted, "save_keyword": folder.name}, settings)
        raise NoRun(f"no {checkpoint} in {folder} made by {flags}")
    return folder


def _fits(run: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a run has the wanted settings; a folder may be named by another path."""

    def comparable(name: str, value: Any) -> Any:
        return Path(value).resolve() if value and name.endswith("_root") else value

    return all(comparable(n, run.get(n)) == comparable(n, value) for n, value in wanted.items())


def _flags(settings: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if value != USUAL.get(name)}
    return shlex.join(words_of(shown))


def command_flags(flags: Mapping[str, Any], settings: Settings) -> str:
    """Return flags as a shell takes them, and behind them those of the present command on which
    data, runs and network depend."""
    given = settings.explicit()
    carried = {name: given[name] for name in CARRIED if name in given and name not in flags}
    known = {**flags, **carried}
    for role in ("source", "target"):
        if known.get(role) == FOLDER and (root := known.pop(f"{role}_root", None)):
            known[role] = root
    return _flags(known)


def unlike(settings: Settings, runs: Mapping[Path, Mapping[str, Any]]) -> str:
    """Return in words how the first few runs differ from these settings."""
    words = []
    for path, run in list(runs.items())[:CANDIDATES_SHOWN]:
        if differing := {n: run[n] for n in ALIKE if run[n] != getattr(settings, n)}:
            words.append(f"{path.name} is of {_flags(differing)}")
    return f" ({'; '.join(words)})" if words else ""


def run_and_file(checkpoint: Path) -> str:
    """Return the names of a checkpoint's run and file, for the name of another file."""
    return f"{checkpoint.resolve().parent.name}_{checkpoint.stem}"


def selected(settings: Settings, folder: Path) -> str:
    """Return the file of the checkpoint that `--select` means in the folder of a run: of a run that
    keeps no best epoch it is the last one, unless the command asks for the best."""
    if "select" not in settings.given and not RunFolder(folder).selects():
        return LATEST
    return CHECKPOINTS[settings.select]


def find_runs(
    settings: Settings, wanted: Mapping[str, Any], *, alike: bool = True
) -> dict[Path, dict[str, Any]]:
    """Return the runs under `--save_model_path` with the wanted settings that have the checkpoint
    which `--select` means: their folders, sorted, each with all its settings.

    `alike` asks for the optimiser and the network of these settings, too. Folders whose settings
    cannot be read are named and passed over.
    """
    if alike:
        wanted = {**{name: getattr(settings, name) for name in ALIKE}, **wanted}
    runs: dict[Path, dict[str, Any]] = {}
    for folder in sorted(path.parent for path in settings.save_model_path.glob(f"*/{SETTINGS}")):
        try:
            if not _has_selected(folder, settings):
                continue
            run = RunFolder(folder).read_settings(settings)
        except UserError as error:
            say_once(f"passed over: {error}")
            continue
        if _fits(run, wanted):
            runs[folder] = run
    return runs


def checkpoints_found(settings: Settings) -> str:
    """Return the checkpoints of all runs under `--save_model_path` as the end of a sentence; empty
    where there are none."""
    folders = find_runs(settings, {}, alike=False)
    found = ", ".join(str(folder / selected(settings, folder)) for folder in folders)
    return f"; found: {found}" if found else ""


def _has_selected(folder: Path, settings: Settings) -> bool:
    """Return whether a folder has the checkpoint that `--select` means."""
    some = any((folder / name).exists() for name in SELECTS)
    return some and (folder / selected(settings, folder)).exists()
