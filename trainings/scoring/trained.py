"""The network and the sizes with which a checkpoint was trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from model.catalog import RECORDED
from trainings.options import Settings
from utils.disk.run_folder import SETTINGS, RunFolder

SIZES = ("image_size", "source_resize")


def trained_with(checkpoint: Path, settings: Settings) -> dict[str, Any]:
    """Network and sizes of the run in whose folder a checkpoint lies; nothing for a checkpoint from
    elsewhere. Raises UserError where the run's settings cannot be read."""
    run = RunFolder(checkpoint.resolve().parent)
    if not run.has(SETTINGS):
        return {}
    found = run.read_settings(settings)
    sizes = {name: tuple(found[name]) for name in SIZES}
    return {**{name: found[name] for name in RECORDED}, **sizes}


def as_trained(settings: Settings, checkpoint: Path) -> Settings:
    """The settings with the network and the sizes of the run that a checkpoint is of, unless the
    command gives others; without such a run as they are."""
    trained = trained_with(checkpoint, settings)
    given = settings.given
    if "image_size" in given and settings.image_size != trained.get("image_size"):
        given = given.union(SIZES)  # what follows from an explicit size does so already
    chosen = {name: value for name, value in trained.items() if name not in given}
    return replace(settings, **chosen)
