"""The look of each series in charts, sheets and pages: one colour for one name, everywhere.

The colours are Okabe & Ito's (2008) with ink, a violet and a brown; they stay apart under each kind
of colour blindness. Series of one family have its colour, and are told apart by their dashes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

COLORS = (
    *("#222222", "#d55e00", "#0072b2", "#e69f00", "#009e73"),
    *("#cc79a7", "#56b4e9", "#6020c0", "#804020"),
)
DARK_COLORS = (
    *("#f5f5f5", "#f0641e", "#4a9bf5", "#ffc533", "#5cc46a"),
    *("#c9669f", "#9fdcff", "#7a3fe0", "#8a5530"),
)
"""Colours of the series on a dark background, in the order of those on a light one."""

DASHES: Sequence[tuple[float, ...]] = ((), (5, 2), (1, 1.5), (5, 1.5, 1, 1.5), (8, 2, 1, 2, 1, 2))
"""Lengths of dashes and gaps, in widths of the line, of a family's first series and those after."""


class Look(NamedTuple):
    """The look of a series: the place of its colour, and that of its dashes."""

    color: int = 0
    dash: int = 0

    @property
    def ink(self) -> str:
        """Return the colour on white."""
        return COLORS[self.color]

    @property
    def dashes(self) -> tuple[float, ...]:
        return DASHES[self.dash]


def looks(families: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, Look]:
    """Return the look of each series.

    Args:
        families: the family of each series by its name.
        known: families in the order of their colours, whether they are there or not, so that one
            family has one colour in every report; the others follow.
    """
    places = {
        family: place for place, family in enumerate(dict.fromkeys([*known, *families.values()]))
    }
    found: dict[str, Look] = {}
    used: dict[int, int] = {}
    for name, family in families.items():
        color = places[family] % len(COLORS)
        dash = used[color] = used.get(color, -1) + 1
        found[name] = Look(color, dash % len(DASHES))
    return found
