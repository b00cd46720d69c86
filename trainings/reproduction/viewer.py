"""The pictures of the page: what its viewer shows, as data that go into the file."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from datasets.labels import IGNORE, ClassTable
from trainings.reproduction.lines import Line
from trainings.reproduction.sheets import Shown
from utils.pictures.looks import Look
from utils.pictures.panels import ERROR_COLOR, ComparisonRow

PICTURE_WIDTH = 640
"""Most pixels that a picture is wide."""

JPEG_QUALITY = 82


def viewer(
    several: Sequence[Shown], lines: Sequence[Line], looks: Mapping[str, Look]
) -> dict[str, Any] | None:
    """Return what the viewer's script reads, as JSON types; None where there are no pictures."""
    if not several:
        return None
    return {
        "classes": _legend(several),
        "error": _hex(ERROR_COLOR),
        "sets": [
            {
                "title": shown.title,
                "methods": [{"name": name, "color": looks[name].color} for name in shown.methods],
                "images": [
                    _shown_image(row, shown.classes, not shown.unlabelled) for row in shown.rows
                ],
                **shown.compared_first(lines)._asdict(),
            }
            for shown in several
        ],
    }


def _legend(several: Sequence[Shown]) -> list[dict[str, str]]:
    """Return name and colour of every class of the pictures."""
    pairs = ((name, color) for one in several for name, color in one.classes.legend().items())
    return [{"name": name, "color": _hex(color)} for name, color in dict.fromkeys(pairs)]


def _shown_image(row: ComparisonRow, classes: ClassTable, labelled: bool) -> dict[str, Any]:
    height, width = row.truth.shape
    shown_width = min(width, PICTURE_WIDTH)
    size = shown_width, max(1, round(height * shown_width / width))
    maps = row.predictions
    if labelled:
        maps = [np.where(row.truth == IGNORE, IGNORE, ids).astype(np.uint8) for ids in maps]
    return {
        "name": row.name,
        "width": size[0],
        "height": size[1],
        "photo": _jpeg(row.image, size),
        "truth": _png(row.truth, size, classes) if labelled else None,
        "maps": [_png(ids, size, classes) for ids in maps],
        "ious": [None if np.isnan(iou) else round(100 * iou, 1) for iou in row.ious],
    }


def _jpeg(image: np.ndarray, size: tuple[int, int]) -> str:
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    return _data_url(resized, "jpeg", quality=JPEG_QUALITY)


def _png(train_ids: np.ndarray, size: tuple[int, int], classes: ClassTable) -> str:
    """Return a map of train ids as a picture in the classes' colours."""
    picture = Image.fromarray(train_ids, "P").resize(size, Image.Resampling.NEAREST)
    picture.putpalette(classes.palette.tobytes())
    return _data_url(picture, "png", optimize=True)


def _data_url(picture: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _hex(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
