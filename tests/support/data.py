"""The files of GTA5 and Cityscapes as their layouts list them, without a command's settings."""

from pathlib import Path

from datasets import cityscapes, gta5
from datasets.reading import SampleFiles
from main import FlatSettings as Settings


def gta5_files(root: Path, split: str, val_fraction: float) -> list[SampleFiles]:
    settings = Settings(gta5_val_fraction=val_fraction)
    return gta5.ROW.layout.labelled(root, split, settings)


def left_out(root: Path) -> int:
    return gta5.ROW.layout.left_out(root)


def cityscapes_files(root: Path, split: str) -> list[SampleFiles]:
    return cityscapes.ROW.layout.labelled(root, split, Settings())


def cityscapes_images(root: Path, split: str) -> list[SampleFiles]:
    return cityscapes.ROW.layout.images(root, split, Settings())
