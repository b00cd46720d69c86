"""The network, the sizes and the classes with which a checkpoint was trained."""

import contextlib
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.catalog import root_of
from datasets.classes import recorded_classes
from datasets.data_set import Role
from datasets.labels import CLASS_TABLE, ClassTable
from datasets.options import FOLDER
from model.catalog import RECORDED
from model.weights.reading import read_record
from trainings.options import Settings
from utils.cli.flags import words_of
from utils.disk.run_folder import SETTINGS, RunFolder
from utils.errors import UserError
from utils.text import first_few

SIZES = ("image_size", "source_resize")

DATA = ("source", "target", "source_root", "target_root", "gta5_root", "cityscapes_root")
"""Flags that name the data of a run, and where these lie."""


def trained_with(checkpoint: Path, settings: Settings) -> dict[str, Any]:
    """Return the network and sizes of the run in whose folder a checkpoint lies; nothing for a
    checkpoint from elsewhere. Raise UserError where the run's settings cannot be read."""
    run = RunFolder(checkpoint.resolve().parent)
    if not run.has(SETTINGS):
        return {}
    found = run.read_settings(settings)
    sizes = {name: tuple(found[name]) for name in SIZES}
    return {**{name: found[name] for name in RECORDED}, **sizes}


def trained_classes(checkpoint: Path) -> ClassTable | None:
    """Return the classes of a checkpoint, by the run in whose folder it lies or by its own record;
    None for a file of another program or an older release. Raise UserError for a damaged record."""
    run = RunFolder(checkpoint.resolve().parent)
    if run.has(SETTINGS):
        return recorded_classes(run.read_json(SETTINGS).get(CLASS_TABLE), run.path / SETTINGS)
    recorded = None
    with contextlib.suppress(UserError):  # whoever loads it says what is wrong with the file
        recorded = read_record(checkpoint, CLASS_TABLE)
    return None if recorded is None else recorded_classes(recorded, checkpoint)


def check_classes(checkpoint: Path, settings: Settings) -> None:
    """Raise UserError where a checkpoint has other classes than the settings."""
    own, wanted = trained_classes(checkpoint), settings.class_table
    if own is None or own.names == wanted.names:
        return
    different = sorted({*own.names} ^ {*wanted.names}) or ["their order"]
    remedy = "leave --classes out" if settings.classes else "take those of one table"
    raise UserError(
        f"{checkpoint} has {len(own)} classes and not the {len(wanted)} that are asked for "
        f"(different: {first_few(different)}): {remedy}"
    )


def as_trained(settings: Settings, checkpoint: Path) -> Settings:
    """Return the settings with the network, the sizes and the classes of the run that a checkpoint
    is of, unless the command gives others; without such a run as they are, but for the classes that
    the checkpoint records."""
    if not settings.classes and (classes := trained_classes(checkpoint)):
        settings = replace(settings, class_table=classes)
    trained = trained_with(checkpoint, settings)
    given = settings.given
    if "image_size" in given and settings.image_size != trained.get("image_size"):
        given = given.union(SIZES)  # what follows from an explicit size does so already
    chosen = {name: value for name, value in trained.items() if name not in given}
    return replace(settings, **chosen)


def with_data_of_run(settings: Settings, checkpoint: Path) -> Settings:
    """Return the settings with the source and target of the run that a checkpoint is of, and say
    so. They stay as they are where the command names any data, where the checkpoint lies in no
    run's folder, and where the run's target is not there any more."""
    run = RunFolder(checkpoint.resolve().parent)
    if not settings.given.isdisjoint(DATA) or not run.has(SETTINGS):
        return settings
    recorded = type(settings).from_json(run.read_settings(settings))
    names = [*DATA, *({"frame_step"} - settings.given)]
    chosen = replace(settings, **{name: getattr(recorded, name) for name in names})
    changed = {n: getattr(chosen, n) for n in names if getattr(chosen, n) != getattr(settings, n)}
    try:
        root_of(Role.TARGET, chosen)
    except UserError:
        return settings
    for role in ("source", "target"):
        if changed.get(role) == FOLDER:
            changed[role] = changed.pop(f"{role}_root")
    if changed:
        print(f"data as in the run: {shlex.join(words_of(changed))}")
    return chosen
