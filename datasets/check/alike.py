"""Images that show nearly the same, found by their content: consecutive frames, other sizes, other
formats.

An image is shrunk to 17x16 grey pixels; a bit says whether a pixel is brighter than its left
neighbour (dHash).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

ROWS, COLUMNS = 16, 16
BITS = ROWS * COLUMNS

ALIKE = 32
"""Bits of the 256 in which images may differ that show nearly the same. Smaller, darker and noisier
copies of scenes of Toy City differed in 20 at most; photographs of other places of one city, in
CamVid, in 84 at least."""

AT_ONCE = 1024
"""Images that are compared with all others at a time."""


def content_of(image: np.ndarray) -> np.ndarray:
    """Return the bits, bool [256], of an image, RGB uint8 [H, W, 3]."""
    grey = Image.fromarray(image).convert("L").resize((COLUMNS + 1, ROWS), Image.Resampling.BOX)
    values = np.asarray(grey, np.int16)
    return (values[:, 1:] > values[:, :-1]).ravel()


def alike(contents: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return pairs of places: each image that is nearly the same as an earlier one, and the first
    such one."""
    signs = np.where(np.array(contents), 1, -1).astype(np.float32).reshape(-1, BITS)
    found = []
    for start in range(0, len(signs), AT_ONCE):
        equal = signs[start : start + AT_ONCE] @ signs.T  # BITS - 2 times the bits that differ
        for row, own in enumerate(equal, start):
            first = int(np.argmax(own >= BITS - 2 * ALIKE))
            if first < row:
                found.append((row, first))
    return found
