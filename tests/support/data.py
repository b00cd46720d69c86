"""The files of GTA5 and Cityscapes as their layouts list them, and labels of 16 bits."""

import struct
import zlib
from pathlib import Path

import numpy as np

from datasets import cityscapes, gta5
from datasets.reading import SampleFiles
from main import FlatSettings as Settings


def gta5_files(root: Path, split: str, val_fraction: float) -> list[SampleFiles]:
    settings = Settings(gta5_val_fraction=val_fraction)
    return gta5.ROW.layout.labelled(root, split, settings)


def left_out(root: Path) -> int:
    return gta5.ROW.layout.found(root, "train", Settings()).bad


def cityscapes_files(root: Path, split: str) -> list[SampleFiles]:
    return cityscapes.ROW.layout.labelled(root, split, Settings())


def cityscapes_images(root: Path, split: str) -> list[SampleFiles]:
    return cityscapes.ROW.layout.images(root, split, Settings())


def save_deep(colours: np.ndarray, path: Path) -> Path:
    """Write colours, uint16 [H, W, 3], as a PNG of 16 bits a channel, which Pillow cannot."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path
