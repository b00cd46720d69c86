"""Decoded and resized pictures in one memory-mapped file per set, shared by every worker.

A store is named by everything its pixels follow from: the names, sizes and modification times of
the files, how they are prepared, and this format. So it is never stale: other files, another store.

<digest>.u8    pictures one after another, uint8
<digest>.done  a byte for each picture, 1 where it is whole, so that building goes on
"""

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from datasets.labels import IGNORE

FORMAT = 1

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
        self.done_path = folder / f"{digest}.done"
        self.shapes = list(shapes)
        self.ends = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)])
        self._pixels: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.shapes)

    @property
    def nbytes(self) -> int:
        return int(self.ends[-1])

    def create(self) -> None:
        """Makes the files, unless they are there in their sizes.

        Raises OSError where the disk is full: it is found here, because a worker that writes into
        a mapping which has no room is killed without a word.
        """
        if not self._has_its_sizes():
            self.done_path.unlink(missing_ok=True)  # what it marks may be lost
            self.pixels_path.parent.mkdir(parents=True, exist_ok=True)
            for path, size in ((self.pixels_path, self.nbytes), (self.done_path, self.count)):
                with path.open("ab") as file:
                    file.truncate(size)
                    if hasattr(os, "posix_fallocate"):  # macOS has none
                        os.posix_fallocate(file.fileno(), 0, size)

    def missing(self) -> list[int]:
        """Places of the pictures that are not whole; all of them where there is no file."""
        if not self._has_its_sizes():
            return list(range(self.count))
        return np.flatnonzero(np.fromfile(self.done_path, np.uint8) == 0).tolist()

    def _has_its_sizes(self) -> bool:
        sizes = ((self.pixels_path, self.nbytes), (self.done_path, self.count))
        return all(path.exists() and path.stat().st_size == size for path, size in sizes)

    def read(self, place: int) -> np.ndarray:
        """A picture of its own, uint8, as it was written."""
        return np.array(self._at(place))

    def write(self, place: int, picture: np.ndarray) -> None:
        """Stores a picture of the place's shape; it counts once it is marked."""
        slot = self._at(place)
        assert slot.shape == picture.shape, (slot.shape, picture.shape)
        slot[...] = picture

    def mark(self, places: Sequence[int]) -> None:
        """Counts these as whole, once what is written is on the disk."""
        with self.pixels_path.open("rb+") as file:
            os.fsync(file.fileno())
        done = np.memmap(self.done_path, np.uint8, "r+")
        done[list(places)] = 1
        done.flush()

    def _at(self, place: int) -> np.ndarray:
        if self._pixels is None:  # in every process anew
            self._pixels = np.memmap(self.pixels_path, np.uint8, "r+")
        start, end = self.ends[place : place + 2]
        return self._pixels[start:end].reshape(self.shapes[place])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pixels": None}


def digest_of(paths: Iterable[Path], how: str) -> str:
    """Name of the store of these files' pictures, prepared in a way that `how` describes."""
    words = []
    for path in paths:
        status = path.stat()
        words.append((path.parent.name, path.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr((FORMAT, how, words)).encode()).hexdigest()[:24]


class CachedPairs:
    """Prepared images, uint8 [3, H, W], with their labels, uint8 [H, W], by their places.

    Without a store of labels every pixel of a label is `IGNORE`.
    """

    def __init__(self, images: PictureStore, labels: PictureStore | None, places: Sequence[int]):
        self.images, self.labels, self.places = images, labels, list(places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        place = self.places[index]
        image = self.images.read(place)
        if self.labels is None:
            return image, np.full(image.shape[1:], IGNORE, np.uint8)
        return image, self.labels.read(place)

    def subset(self, indices: Iterable[int]) -> "CachedPairs":
        return CachedPairs(self.images, self.labels, [self.places[index] for index in indices])
