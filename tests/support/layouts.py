"""Small data in the real layout of each row of the table of data sets.

Each label is of one class throughout; each function makes `count` images in each folder.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.data import save_deep
from tests.support.helpers import picture, save

SIZE = (16, 24)


def ids(value: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full(size, value, np.uint8)


def pair(image: Path, label: Path, value: int) -> None:
    save(picture(value, SIZE), image)
    save(ids(value), label)


def make_acdc(root: Path, count: int = 1) -> None:
    for condition in ("fog", "night", "rain", "snow"):
        for split, value in (("train", 13), ("val", 10)):
            for number in range(count):
                part, name = f"{condition}/{split}/GOPR1", f"{number}_rgb_anon.png"
                label = root / "gt" / part / f"{number}_gt_labelTrainIds.png"
                pair(root / "rgb_anon" / part / name, label, value)
                save(ids(99), root / "gt" / part / f"{number}_gt_labelColor.png")
    save(picture(0, SIZE), root / "rgb_anon/fog/train_ref/GOPR1/a_rgb_ref_anon.png")


def make_dark_zurich(root: Path, count: int = 1) -> None:
    for number in range(count):
        for part in ("train/night/GOPR1", "train/day/GOPR2"):
            save(picture(1, SIZE), root / "rgb_anon" / part / f"{number}_rgb_anon.png")
        pair(
            root / f"rgb_anon/val/night/GOPR3/{number}_rgb_anon.png",
            root / f"gt/val/night/GOPR3/{number}_gt_labelTrainIds.png",
            0,
        )


def make_bdd100k(root: Path, count: int = 1) -> None:
    for split, value in (("train", 2), ("val", 18)):
        for number in range(count):
            image = root / "images/10k" / split / f"0a1b{number}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(value, SIZE)).save(image)
            save(ids(value), root / "labels/sem_seg/masks" / split / f"0a1b{number}.png")


def make_camvid(root: Path, count: int = 1) -> None:
    for split, value in (("train", 3), ("val", 10), ("test", 0)):
        for number in range(count):
            name = f"{number:04d}.png"
            pair(root / split / name, root / f"{split}annot" / name, value)


def make_synthia(root: Path, count: int = 5) -> None:
    for number in range(count):
        save(picture(number, SIZE), root / "RGB" / f"{number:07d}.png")
        colours = np.zeros((*SIZE, 3), np.uint16)
        colours[..., 0], colours[..., 1] = 10 + number, 300 + number  # class, instance
        save_deep(colours, root / "GT/LABELS" / f"{number:07d}.png")
