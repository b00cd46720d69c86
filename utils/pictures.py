"""Pictures a person looks at: panels of image, truth and prediction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.labels import CLASSES, IGNORE, PALETTE, colorize

MARGIN = 6
TEXT_HEIGHT = 16
INK, PAPER = (20, 20, 20), (255, 255, 255)
LEGEND_COLUMNS = 7


class PanelRow(NamedTuple):
    """One validated image: RGB uint8 [h, w, 3], truth and prediction in train ids [H, W]."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def panel(rows: Sequence[PanelRow], *, title: str, width: int = 384) -> np.ndarray:
    """Image, truth and prediction side by side, a row per image, with a legend of the classes.

    Pixels without a truth are not scored, and black in both maps. Returns RGB uint8 [H, W, 3];
    `width` is that of one picture in pixels, heights follow from the images.
    """
    strips = [_strip(row, width) for row in rows]
    sheet_width = 3 * width + 4 * MARGIN
    header = _text_line(title, ("image", "truth", "prediction"), width, sheet_width)
    return np.concatenate([header, *strips, _legend(sheet_width)])


def _strip(row: PanelRow, width: int) -> np.ndarray:
    height = round(row.truth.shape[0] * width / row.truth.shape[1])
    prediction = np.where(row.truth == IGNORE, IGNORE, row.prediction)
    pictures = [
        Image.fromarray(row.image).resize((width, height), Image.Resampling.BILINEAR),
        *(
            Image.fromarray(colorize(ids)).resize((width, height), Image.Resampling.NEAREST)
            for ids in (row.truth, prediction)
        ),
    ]
    strip = Image.new("RGB", (3 * width + 4 * MARGIN, height + MARGIN), PAPER)
    for column, picture in enumerate(pictures):
        strip.paste(picture, (MARGIN + column * (width + MARGIN), 0))
    return np.array(strip)


def _text_line(title: str, columns: Sequence[str], width: int, sheet_width: int) -> np.ndarray:
    line = Image.new("RGB", (sheet_width, 2 * (TEXT_HEIGHT + MARGIN)), PAPER)
    draw, font = ImageDraw.Draw(line), ImageFont.load_default(TEXT_HEIGHT - 2)
    draw.text((MARGIN, MARGIN // 2), title, INK, font)
    for column, text in enumerate(columns):
        draw.text((MARGIN + column * (width + MARGIN), TEXT_HEIGHT + MARGIN), text, INK, font)
    return np.array(line)


def _legend(sheet_width: int) -> np.ndarray:
    not_scored = ("not scored", tuple(PALETTE[IGNORE].tolist()))
    entries = [*((c.name, c.color) for c in CLASSES), not_scored]
    lines = -(-len(entries) // LEGEND_COLUMNS)
    legend = Image.new("RGB", (sheet_width, MARGIN + lines * (TEXT_HEIGHT + 2)), PAPER)
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(TEXT_HEIGHT - 4)
    for index, (name, color) in enumerate(entries):
        line, column = divmod(index, LEGEND_COLUMNS)
        x = MARGIN + column * (sheet_width - MARGIN) // LEGEND_COLUMNS
        y = MARGIN // 2 + line * (TEXT_HEIGHT + 2)
        draw.rectangle((x, y + 2, x + TEXT_HEIGHT - 4, y + TEXT_HEIGHT - 2), fill=color)
        draw.text((x + TEXT_HEIGHT + 2, y + 1), name, INK, font)
    return np.array(legend)
