"""The folder of pseudo-labels: where it lies, its files, and which entries of its record count."""

from pathlib import Path
from typing import Any

from trainings.options import PseudoLabelOptions, Settings
from trainings.scoring.provenance import comparable

SPLIT = "train"

PROGRESS, SUMMARY, PICTURE = "progress.pth", "summary.json", "pseudo_labels.png"


def label_folder(settings: Settings, ssl_round: int = 1) -> Path:
    """Return where the labels of an ensemble lie, made by networks of one optimiser for a round of
    self-training."""
    if folder := PseudoLabelOptions.of(settings).pseudo_label_path:
        return folder
    suffix = "" if ssl_round == 1 else f"_round{ssl_round}"
    return settings.save_model_path / f"pseudo_labels{settings.pair()}_{settings.optimizer}{suffix}"


def label_folder_of(teacher: Path, settings: Settings) -> Path:
    """Return where the labels of one network lie; `teacher` is its checkpoint."""
    named = PseudoLabelOptions.of(settings).pseudo_label_path
    return named or settings.save_model_path / f"labels_{teacher.resolve().parent.name}"


def comparable_labels(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that must be equal for the labels to be continued."""
    return comparable(identity, compared(identity))


def compared(identity: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of these entries beside the checkpoints."""
    names: tuple[str, ...] = ("image_size", "bn_statistics", "precision", "images", "data")
    return (
        (*names, "soft") if "soft" in identity else names
    )  # hard labels of old have no such entry
