"""Places that are spread evenly over a number of things."""

import numpy as np


def spread(count: int, at_most: int) -> list[int]:
    """Return the numbers below the count, or so many of them at equal distances, the first and the
    last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, at_most)).round().astype(int).tolist()))
