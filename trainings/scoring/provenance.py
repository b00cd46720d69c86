"""Record as JSON what predictions were made with, and compare it with the present command."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.labels import CLASS_TABLE, USUAL
from trainings.options import Settings
from utils.utils import arithmetic, file_digest, resolve_device

DIGEST_SHOWN = 12
"""Characters of a checkpoint's digest that tell it from others in a sentence."""


def made_with(checkpoints: Sequence[Path], settings: Settings) -> dict[str, Any]:
    """Return all that predictions depend on beside their images."""
    classes = settings.class_table.recorded()
    return {
        **({} if classes == USUAL else {CLASS_TABLE: classes}),
        "image_size": list(settings.image_size),
        "bn_statistics": settings.bn_statistics,
        "precision": arithmetic(settings.precision, resolve_device(settings.device)),
        "checkpoints": [
            {"path": _portable(path, settings.save_model_path), "sha256": file_digest(path)}
            for path in checkpoints
        ],
    }


def comparable(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the named entries, and the digests of the checkpoints, whose files may have moved.

    An entry that the record lacks is None.
    """
    digests = [checkpoint["sha256"][:DIGEST_SHOWN] for checkpoint in record.get("checkpoints", ())]
    return {**{name: record.get(name) for name in names}, "checkpoints": digests}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return in words in which of the named entries, and in which checkpoints, two records differ;
    empty where they are equal."""
    old, new = comparable(before, names), comparable(now, names)
    words = [f"{name} was {old[name]}, is {new[name]}" for name in names if old[name] != new[name]]
    if old["checkpoints"] != new["checkpoints"]:
        made, making = makers(before), makers(now)
        words.append(
            f"{making}: changed since" if made == making else f"made with {made}, not {making}"
        )
    return "; ".join(words)


def makers(record: Mapping[str, Any]) -> str:
    """Return the paths of the checkpoints that made the predictions, as part of a sentence."""
    paths = (checkpoint["path"] for checkpoint in record.get("checkpoints", ()))
    return ", ".join(paths) or "unknown checkpoints"


def _portable(path: Path, root: Path) -> str:
    """Return the path from the folder of all runs on, where it lies there, for that may move."""
    path, root = path.resolve(), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
