"""Tiny data in the real layouts, and the real command in a process of its own."""

import subprocess
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from datasets.labels import LABEL_ID_TO_TRAIN_ID
from tests.support import forked
from tests.support.forked import MAIN
from utils import upsampling

TINY = (
    *("--base_width", "8", "--image_size", "64", "96", "--batch_size", "2", "--num_workers", "0"),
    *("--precision", "fp32"),  # alike on every CPU
)


def run_main(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python main.py …` from a working directory."""
    return forked.run(MAIN, *arguments, cwd=cwd, timeout=600)


def chart_texts(svg: str) -> list[str]:
    """The texts of a chart, in order; each line of a title is one of them."""
    return [
        text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def picture(seed: int, size=(72, 104)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def label_ids(seed: int, size=(72, 104)) -> np.ndarray:
    """Blocks of label ids, each between 0 and 33."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 34, (size[0] // 8, size[1] // 8), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def save(array: np.ndarray, path: Path, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)
    return path


def claim_size(path: Path, side: int) -> None:
    """Lets the header of a PNG say that it is of so many pixels a side, with the right checksum."""
    content = bytearray(path.read_bytes())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def make_gta5(root: Path, numbers=range(1, 11)) -> Path:
    for number in numbers:
        save(picture(number), root / "images" / f"{number:05d}.png")
        save(label_ids(number), root / "labels" / f"{number:05d}.png", "P")
    return root


def make_cityscapes(root: Path, layout=("leftImg8bit", "gtFine"), train=4, val=3) -> Path:
    for split, city, count in (("train", "aachen", train), ("val", "ulm", val)):
        for index in range(count):
            name = f"{city}_{index:06d}_000019"
            ids = label_ids(index)
            save(picture(index), root / layout[0] / split / city / f"{name}_leftImg8bit.png")
            labels = root / layout[1] / split / city
            save(ids, labels / f"{name}_gtFine_labelIds.png")
            save(LABEL_ID_TO_TRAIN_ID[ids], labels / f"{name}_gtFine_labelTrainIds.png")
            save(picture(index), labels / f"{name}_gtFine_color.png")
    return root


def enlarge_by(rows_a_band, width, monkeypatch):
    """Bands of so many rows; None stands for the form of a GPU, which enlarges whole."""
    if rows_a_band is None:
        monkeypatch.setattr(upsampling, "in_bands", lambda scores: False)
    else:
        monkeypatch.setattr(upsampling, "BAND_BYTES", rows_a_band * 19 * width * 4)
