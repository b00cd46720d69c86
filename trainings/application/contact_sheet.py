"""The contact sheet that `predict` ends with: some of its pictures beside their classes."""

from typing import NamedTuple

import numpy as np

SHEET = "contact_sheet.png"
MOST = 12
"""Pictures on a sheet."""

KEPT_WIDTH = 640
"""Pixels to which kept frames of a video are thinned out, so that memory stays small."""


class Kept(NamedTuple):
    """A row of the sheet: a picture, RGB uint8 [H, W, 3], and its classes, train ids [H, W]."""

    name: str
    image: np.ndarray
    train_ids: np.ndarray


class Frames:
    """Keeps frames of a video that are spread evenly, however long it turns out to be."""

    def __init__(self) -> None:
        self._every, self._seen = 1, 0
        self.kept: list[Kept] = []

    def add(self, image: np.ndarray, train_ids: np.ndarray) -> None:
        """Keep the next frame if it is its turn; those kept before are thinned out to make room."""
        if self._seen % self._every == 0:
            if len(self.kept) == MOST:
                self.kept, self._every = self.kept[::2], 2 * self._every
            if self._seen % self._every == 0:
                step = -(-image.shape[1] // KEPT_WIDTH)
                small = image[::step, ::step].copy(), train_ids[::step, ::step].copy()
                self.kept.append(Kept(f"frame {self._seen + 1}", *small))
        self._seen += 1
