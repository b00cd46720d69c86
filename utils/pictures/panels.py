"""Pictures of images, labels and predictions for a person to look at, as RGB uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.labels import CLASSES, IGNORE, PALETTE, colorize
from utils.metrics import picture_iou
from utils.pictures.sheet import Color, Sheet, even_columns

LABEL_WIDTH = 480
"""Width in pixels of a picture on a sheet of images and labels."""

ERROR_COLOR: Color = (213, 94, 0)
IMAGE_CONTRAST = 0.4
"""Contrast that an error map leaves its image, which fades towards white."""


class PanelRow(NamedTuple):
    """One validation image: RGB uint8 [h, w, 3], truth and prediction in train ids [H, W].

    The sizes may differ; a panel has the truth's proportions. A `note`, such as "worst: 31.2 % of
    the pixels right", stands beside the name in a caption.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    note: str = ""


class ComparisonRow(NamedTuple):
    """A `PanelRow` with one prediction per method."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    predictions: Sequence[np.ndarray]
    note: str = ""

    @property
    def ious(self) -> list[float]:
        """Return the mean IoU of each prediction on this image, 0 to 1."""
        shape = self.truth.shape
        return [picture_iou(_resized_ids(one, shape), self.truth) for one in self.predictions]


def panel(rows: Sequence[PanelRow], *, title: str, width: int = 384) -> np.ndarray:
    """Return image, truth and prediction side by side, a row per image, and a legend of classes.

    Pixels without a truth are not scored, and are black in truth and prediction. `width` is that of
    one picture in pixels; heights follow from the truths. A row with a note has a caption.
    """
    sheet = Sheet(title, columns=3, column_width=width)
    sheet.headings(("image", "truth", "prediction"))
    for row in rows:
        if row.note:
            sheet.caption(row.name, row.note)
        sheet.pictures(_colored(*_scaled(width, row.image, row.truth, row.prediction)))
    sheet.legend(_class_colors())
    return sheet.array()


def label_panel(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]], *, title: str, heading: str
) -> np.ndarray:
    """Return image and label side by side, for labels that are compared with nothing.

    A row is a name, RGB uint8 [h, w, 3] and train ids [H, W]; `heading` stands above the labels.
    """
    sheet = Sheet(title, columns=2, column_width=LABEL_WIDTH)
    sheet.headings(("image", heading))
    for name, image, label in rows:
        sheet.caption(name, "")
        picture, ids = _scaled(LABEL_WIDTH, image, label)
        sheet.pictures([picture, colorize(ids)])
    sheet.legend(_class_colors(black="not labelled"))
    return sheet.array()


def error_panel(rows: Sequence[PanelRow], *, title: str, width: int = 320) -> np.ndarray:
    """Return the pictures of `panel` and the error map, with a caption above each row."""
    sheet = Sheet(title, columns=4, column_width=width)
    sheet.headings(("image", "truth", "prediction", "errors"))
    for row in rows:
        sheet.caption(row.name, row.note)
        scaled = _scaled(width, row.image, row.truth, row.prediction)
        sheet.pictures([*_colored(*scaled), error_map(*scaled)])
    sheet.legend({**_class_colors(), "wrong": ERROR_COLOR})
    return sheet.array()


def comparison(
    rows: Sequence[ComparisonRow],
    titles: Sequence[str],
    *,
    title: str,
    width: int = 256,
    columns_per_line: int = 5,
) -> np.ndarray:
    """Return image, truth and every method's prediction under the method's title and the mIoU of
    this image, for each row.

    A row of more than `columns_per_line` pictures takes several lines, filled evenly.
    """
    headings = ("image", "truth", *titles)
    columns = even_columns(len(headings), columns_per_line)
    sheet = Sheet(title, columns=columns, column_width=width)
    for row in rows:
        assert len(row.predictions) == len(titles), (row.name, len(row.predictions), titles)
        sheet.caption(row.name, row.note)
        pictures = _colored(*_scaled(width, row.image, row.truth, *row.predictions))
        notes = ("", "", *(_mean_iou(iou) for iou in row.ious))
        for start in range(0, len(pictures), columns):
            part = slice(start, start + columns)
            sheet.headings(headings[part], notes[part])
            sheet.pictures(pictures[part])
    sheet.legend(_class_colors())
    return sheet.array()


def _mean_iou(iou: float) -> str:
    return "" if np.isnan(iou) else f"mIoU {100 * iou:.1f}"


def overlay(image: np.ndarray, train_ids: np.ndarray) -> np.ndarray:
    """Return the mean of the image and the colours of its classes; both have one size."""
    colors = Image.fromarray(colorize(train_ids))
    return np.array(Image.blend(Image.fromarray(image), colors, 0.5))


def side_by_side(pictures: Mapping[str, np.ndarray], *, title: str, width: int = 320) -> np.ndarray:
    """Return pictures of one size, RGB uint8 [H, W, 3], in one line, each under its name."""
    sheet = Sheet(title, columns=len(pictures), column_width=width)
    sheet.headings([*pictures])
    height, full_width = next(iter(pictures.values())).shape[:2]
    shape = (max(1, round(height * width / full_width)), width)
    sheet.pictures([_resized_image(picture, shape) for picture in pictures.values()])
    return sheet.array()


def class_colors(train_ids: Tensor) -> Tensor:
    """Return the colours of a map of train ids, uint8 [H, W], as an image, uint8 [3, H, W]."""
    return torch.from_numpy(colorize(train_ids.cpu().numpy())).permute(2, 0, 1)


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the image in pale grey, wrong pixels in `ERROR_COLOR` and ignored ones in black.

    Image RGB uint8 [h, w, 3], truth and prediction train ids [H, W]; returns RGB uint8 [H, W, 3].
    """
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    grey = np.array(Image.fromarray(_resized_image(image, truth.shape)).convert("L"), np.float32)
    pale = 255 - IMAGE_CONTRAST * (255 - grey)
    errors = np.repeat(pale.round().astype(np.uint8)[..., None], 3, axis=2)
    errors[truth != prediction] = ERROR_COLOR
    errors[truth == IGNORE] = PALETTE[IGNORE]
    return errors


def _class_colors(black: str = "not scored") -> dict[str, Color]:
    red, green, blue = PALETTE[IGNORE].tolist()
    return {**{c.name: c.color for c in CLASSES}, black: (red, green, blue)}


def _scaled(
    width: int, image: np.ndarray, truth: np.ndarray, *predictions: np.ndarray
) -> list[np.ndarray]:
    """Return image, truth and predictions, all `width` pixels wide in the truth's proportions."""
    shape = (max(1, round(truth.shape[0] * width / truth.shape[1])), width)
    return [
        _resized_image(image, shape),
        *(_resized_ids(ids, shape) for ids in (truth, *predictions)),
    ]


def _colored(image: np.ndarray, truth: np.ndarray, *predictions: np.ndarray) -> list[np.ndarray]:
    """Return all as RGB, black where there is no truth; all have one size."""
    maps = (np.where(truth == IGNORE, IGNORE, ids) for ids in (truth, *predictions))
    return [image, *(colorize(ids) for ids in maps)]


def _resized_image(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))


def _resized_ids(ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(
        Image.fromarray(ids.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)
    )
