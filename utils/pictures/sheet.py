"""Sheets of paper: pictures, words and a legend below one another, as one RGB array.

Text is drawn in Pillow's own font, which needs no font file and looks the same everywhere.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.labels import Color

EDGE, GAP = 14, 6
"""Pixels around a sheet, and pixels between its pictures and around its words."""

TITLE, TEXT, SMALL = 18, 14, 13
"""Font sizes in pixels."""

INK: Color = (25, 25, 25)
MUTED: Color = (95, 95, 95)
RULE: Color = (222, 222, 222)
PAPER: Color = (255, 255, 255)

SPELLED_OUT = str.maketrans(
    {"α": "alpha", "β": "beta", "η": "eta", "λ": "lambda", "–": "-", "—": "-", "×": "x"}
)


class Sheet:
    """A sheet with a title and columns of one width; each method adds a block at its bottom."""

    def __init__(self, title: str, *, columns: int, column_width: int):
        self.column_width = column_width
        self.inside = columns * (column_width + GAP) - GAP
        self._blocks: list[Image.Image] = []
        draw = self._block(EDGE + TITLE + 2 * GAP)
        _write(draw, (EDGE, EDGE), title, TITLE, self.inside)

    def caption(self, name: str, note: str) -> None:
        """Add a rule across the sheet, and a row's name and note below it."""
        draw, y = self._block(TEXT + 4 * GAP), 5 * GAP // 2
        draw.line((EDGE, GAP, EDGE + self.inside - 1, GAP), RULE)
        end = _write(draw, (EDGE, y), name, TEXT, self.inside // 2 if note else self.inside)
        x = end + 2 * GAP
        _write(draw, (x, y), note, TEXT, EDGE + self.inside - x, MUTED)

    def headings(self, texts: Sequence[str], notes: Sequence[str] = ()) -> None:
        """Add one text per column, and behind each the note that it has, where there is room."""
        draw, width = self._block(SMALL + 2 * GAP), self.column_width
        for column, text in enumerate(texts):
            left, note = self._left(column), notes[column] if notes else ""
            taken = math.ceil(_font(SMALL).getlength(note)) + 2 * GAP if note else 0
            if taken > width / 2:
                note, taken = "", 0
            end = _write(draw, (left, GAP // 2), text, SMALL, width - taken)
            _write(draw, (end + 2 * GAP, GAP // 2), note, SMALL, taken, MUTED)

    def pictures(self, pictures: Sequence[np.ndarray]) -> None:
        """Add one picture per column, RGB uint8 [H, column width, 3]."""
        self._block(len(pictures[0]) + GAP)
        for column, picture in enumerate(pictures):
            self._blocks[-1].paste(Image.fromarray(picture), (self._left(column), 0))

    def legend(self, colors: Mapping[str, Color]) -> None:
        """Add the names beside squares of their colours."""
        widest = max(_font(SMALL).getlength(_ascii(name)) for name in colors)
        pitch = min(SMALL + math.ceil(widest) + 4 * GAP, self.inside)
        columns = even_columns(len(colors), self.inside // pitch)
        line_height = SMALL + GAP
        draw = self._block(-(-len(colors) // columns) * line_height + EDGE)
        for index, (name, color) in enumerate(colors.items()):
            line, column = divmod(index, columns)
            x, y = EDGE + column * pitch, GAP + line * line_height
            draw.rectangle((x, y, x + SMALL - 1, y + SMALL - 1), color)
            place = (x + SMALL + GAP, y + SMALL // 2)
            _write(draw, place, name, SMALL, pitch - SMALL - 2 * GAP, anchor="lm")

    def array(self) -> np.ndarray:
        """Return the sheet as RGB uint8 [H, W, 3]."""
        return np.concatenate([np.array(block) for block in self._blocks])

    def _block(self, height: int) -> ImageDraw.ImageDraw:
        self._blocks.append(Image.new("RGB", (self.inside + 2 * EDGE, height), PAPER))
        return ImageDraw.Draw(self._blocks[-1])

    def _left(self, column: int) -> int:
        return EDGE + column * (self.column_width + GAP)


def even_columns(count: int, most: int) -> int:
    """Return the columns, at most `most`, that fill the fewest lines as evenly as possible."""
    lines = -(-count // most)
    return -(-count // lines)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    width: int,
    color: Color = INK,
    anchor: str = "la",
) -> int:
    """Write the text at a place, where Pillow's `anchor` of it lies, and return the x of its end.

    A text that is wider than `width` loses its middle.
    """
    font, text = _font(size), _ascii(text)
    shown, keep = text, len(text)
    while keep and font.getlength(shown) > width:
        keep -= 1
        shown = f"{text[: -(-keep // 2)]}…{text[len(text) - keep // 2 :]}"
    draw.text(place, shown, color, font, anchor)
    return place[0] + math.ceil(font.getlength(shown))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _ascii(text: str) -> str:
    """Return the text in the characters of Pillow's own font: beta for β, e for é."""
    decomposed = unicodedata.normalize("NFKD", text.translate(SPELLED_OUT))
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return letters.encode("ascii", "replace").decode()
