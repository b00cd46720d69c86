"""Decoded and resized pictures in one memory-mapped file per set, shared by every worker.

A store is named by everything its pixels follow from: the names, sizes, modification times and
checksums of the files, how they are prepared, and this format. So it is never stale: other files,
another store. Change times and inodes would find replaced files, too, but a copied or remounted
folder has others, and its whole cache would be built again.

<digest>.u8    pictures one after another, uint8
<digest>.sums  for each picture `WHOLE` + its CRC-32, or 0 until it is whole, uint64: building goes
               on where it stopped, and what a disk has changed is noticed
"""

import hashlib
import math
import os
import stat
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.labels import IGNORE
from utils.errors import naming

FORMAT = 3

NO_CACHE = Path("none")
"""The `--cache_dir` that stands for no cache."""

PNG_END = b"IEND\xaeB`\x82"
"""Type and checksum of a PNG's last chunk, which is empty."""

TAIL = 2**14
"""Bytes of a PNG's end: they hold the checksum of all its pixels and the short chunks after it."""

READERS = 16
"""Threads that read a little of many files, so that waits for a slow disk or network overlap."""

WHOLE = 2**32
"""Tells the sum of a picture that is there from the 0 of one that is not."""

Shape = tuple[int, ...]


class PictureStore:
    """Pictures of known shapes in a file.

    Args:
        folder: where it lies.
        digest: its name, see `digest_of`.
        shapes: of the pictures, in their order.
    """

    def __init__(self, folder: Path, digest: str, shapes: Sequence[Shape]):
        self.pixels_path = folder / f"{digest}.u8"
        self.sums_path = folder / f"{digest}.sums"
        self.shapes = list(shapes)
        self.ends = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)])
        self._pixels: np.ndarray | None = None
        self._sums: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.shapes)

    @property
    def nbytes(self) -> int:
        return int(self.ends[-1])

    def create(self) -> None:
        """Make the files, unless they exist in their sizes.

        Raise OSError where the disk is full: it is found here, because a worker that writes into
        a mapping which has no room is killed without a word.
        """
        if not self._has_its_sizes():
            self.sums_path.unlink(missing_ok=True)  # what it marks may be lost
            self.pixels_path.parent.mkdir(parents=True, exist_ok=True)
            for path, size in self._sizes():
                with naming(path), path.open("ab") as file:
                    file.truncate(size)
                    if hasattr(os, "posix_fallocate"):  # macOS has none
                        os.posix_fallocate(file.fileno(), 0, size)

    def missing(self) -> list[int]:
        """Return the places of the pictures that are not whole; all of them where there is no
        file."""
        if not self._has_its_sizes():
            return list(range(self.count))
        return np.flatnonzero(np.fromfile(self.sums_path, np.uint64) == 0).tolist()

    def _has_its_sizes(self) -> bool:
        return all(path.exists() and path.stat().st_size == size for path, size in self._sizes())

    def _sizes(self) -> tuple[tuple[Path, int], ...]:
        return (self.pixels_path, self.nbytes), (self.sums_path, 8 * self.count)

    def read(self, place: int) -> np.ndarray | None:
        """Return a copy of a picture, uint8, as it was written; None if it has been damaged
        since."""
        if self._sums is None:
            self._sums = np.fromfile(self.sums_path, np.uint64)
        picture = np.array(self._at(place))
        return picture if self._sums[place] == WHOLE + zlib.crc32(picture.data) else None

    def write(self, place: int, picture: np.ndarray) -> None:
        """Store a picture of the place's shape; it counts once it is marked."""
        slot = self._at(place)
        assert slot.shape == picture.shape, (slot.shape, picture.shape)
        slot[...] = picture

    def mark(self, places: Sequence[int]) -> None:
        """Mark these places as whole, once their pictures are on the disk."""
        with self.pixels_path.open("rb+") as file:
            os.fsync(file.fileno())
        sums = np.memmap(self.sums_path, np.uint64, "r+")
        for place in places:
            sums[place] = WHOLE + zlib.crc32(self._at(place).data)
        sums.flush()

    def _at(self, place: int) -> np.ndarray:
        if self._pixels is None:  # in every process anew
            writable = os.access(self.pixels_path, os.W_OK)  # not one of another user
            self._pixels = np.memmap(self.pixels_path, np.uint8, "r+" if writable else "r")
        start, end = self.ends[place : place + 2]
        return self._pixels[start:end].reshape(self.shapes[place])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pixels": None, "_sums": None}


def digest_of(paths: Iterable[Path], how: str) -> str:
    """Name of the store of these files' pictures, prepared in a way that `how` describes."""
    with ThreadPoolExecutor(READERS) as readers:
        words = list(readers.map(_identity, paths))
    return hashlib.sha256(repr((FORMAT, how, words)).encode()).hexdigest()[:24]


def _identity(path: Path) -> tuple[str, str, int, int, int]:
    """Return what tells a file from others. Raise OSError for a link to nowhere or to itself."""
    status = path.stat()
    checksum = _checksum(path, status.st_size) if stat.S_ISREG(status.st_mode) else 0
    return path.parent.name, path.name, status.st_size, status.st_mtime_ns, checksum


def _checksum(path: Path, size: int) -> int:
    """Return the CRC-32 of a PNG's end, which has the checksum of its pixels, or of another file as
    a whole.

    0 for a file that cannot be read: whoever decodes it says so.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(max(0, size - TAIL))
            tail = file.read()
            if tail.endswith(PNG_END):
                return zlib.crc32(tail)
            file.seek(0)
            return zlib.crc32(file.read())
    except OSError:
        return 0


class Pictures(Protocol):
    """A store from which pictures are read by their places."""

    def read(self, place: int) -> np.ndarray | None:
        """Return a picture, uint8; None if it is damaged."""


class CachedPairs:
    """Prepared images, uint8 [3, H, W], with their labels, uint8 [h, w], by their places.

    Without labels every pixel of one is `IGNORE`.
    """

    def __init__(self, images: PictureStore, labels: Pictures | None, places: Sequence[int]):
        self.images, self.labels, self.places = images, labels, list(places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return a pair; None if either is damaged."""
        place = self.places[index]
        image = self.images.read(place)
        if image is None:
            return None
        if self.labels is None:
            return image, np.full(image.shape[1:], IGNORE, np.uint8)
        label = self.labels.read(place)
        return None if label is None else (image, label)

    def label(self, index: int) -> np.ndarray | None:
        """Return a label; None where there is none, or if it is damaged."""
        return None if self.labels is None else self.labels.read(self.places[index])

    def subset(self, indices: Iterable[int]) -> "CachedPairs":
        return CachedPairs(self.images, self.labels, [self.places[index] for index in indices])
