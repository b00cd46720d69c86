"""Pictures of images, labels and predictions for a person to look at, as RGB uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.labels import CITYSCAPES, IGNORE, PALETTE, ClassTable, Color
from utils.metrics import picture_iou
from utils.pictures.sheet import PAPER, Sheet, even_columns

LABEL_WIDTH = 480
"""Width in pixels of a picture on a sheet of images and labels."""

TRUTH_WIDTH = 384
"""Width in pixels of a picture on a sheet that has the truth, too."""

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


def panel(
    rows: Sequence[PanelRow],
    *,
    title: str,
    width: int = 384,
    classes: ClassTable = CITYSCAPES,
) -> np.ndarray:
    """Return image, truth and prediction side by side, a row per image, and a legend of classes.

    Pixels without a truth are not scored, and are black in truth and prediction. `width` is that of
    one picture in pixels; heights follow from the truths. A row with a note has a caption.
    """
    sheet = Sheet(title, columns=3, column_width=width)
    sheet.headings(("image", "truth", "prediction"))
    for row in rows:
        if row.note:
            sheet.caption(row.name, row.note)
        scaled = _scaled(width, row.image, row.truth, row.prediction)
        sheet.pictures(_colored(classes, *scaled))
    sheet.legend(_class_colors(classes))
    return sheet.array()


def label_panel(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    title: str,
    heading: str,
    classes: ClassTable = CITYSCAPES,
) -> np.ndarray:
    """Return image and label side by side, for labels that are compared with nothing.

    A row is a name, RGB uint8 [h, w, 3] and train ids [H, W]; `heading` stands above the labels.
    """
    sheet = Sheet(title, columns=2, column_width=LABEL_WIDTH)
    sheet.headings(("image", heading))
    for name, image, label in rows:
        sheet.caption(name, "")
        picture, ids = _scaled(LABEL_WIDTH, image, label)
        sheet.pictures([picture, classes.colorize(ids)])
    sheet.legend(_class_colors(classes, black="not labelled"))
    return sheet.array()


def pseudo_label_panel(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]],
    *,
    title: str,
    classes: ClassTable = CITYSCAPES,
) -> np.ndarray:
    """Return image and pseudo-label side by side, and the truth where there is one, with the share
    of pixels that are labelled and how many of these are right.

    A row is a name, RGB uint8 [h, w, 3], the label and the truth or None, train ids [H, W].
    """
    with_truth = any(truth is not None for *_, truth in rows)
    width = TRUTH_WIDTH if with_truth else LABEL_WIDTH
    sheet = Sheet(title, columns=3 if with_truth else 2, column_width=width)
    sheet.headings(("image", "pseudo-label", "truth")[: 3 if with_truth else 2])
    for name, image, label, truth in rows:
        sheet.caption(name, _shares(label, truth))
        known = np.full_like(label, IGNORE) if truth is None else truth
        picture, *maps = _scaled(width, image, label, *([known] if with_truth else []))
        sheet.pictures([picture, *map(classes.colorize, maps)])
    sheet.legend(_class_colors(classes, black="not labelled"))
    return sheet.array()


def _shares(label: np.ndarray, truth: np.ndarray | None) -> str:
    """Return in words how much is labelled, and how much of that is right by the truth."""
    kept = label != IGNORE
    words = f"{100 * kept.mean():.0f} % of the pixels labelled"
    if truth is None:
        return words
    same_size = _resized_ids(truth, label.shape)
    judged = kept & (same_size != IGNORE)
    if not judged.any():
        return words
    return f"{words}, {100 * (label == same_size)[judged].mean():.0f} % of these right"


def label_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    title: str,
    width: int = 300,
    classes: ClassTable = CITYSCAPES,
) -> np.ndarray:
    """Return many images beside their overlays, two a line, above a legend of their classes.

    A row is a name, RGB uint8 [H, W, 3] and train ids [H, W]. Pictures of other proportions than
    3:2 are shown whole, on paper. The legend holds the classes that are there.
    """
    sheet = Sheet(title, columns=4, column_width=width)
    height = width * 2 // 3 if len({image.shape for _, image, _ in rows}) > 1 else None
    for start in range(0, len(rows), 2):
        line, names, pictures = rows[start : start + 2], [], []
        for name, image, ids in line:
            names += [name, ""]
            drawn = overlay(image, ids, classes)
            pictures += [_boxed(one, width, height) for one in (image, drawn)]
        sheet.headings(names)
        sheet.pictures(pictures)
    present = {int(one) for _, _, ids in rows for one in np.unique(ids)} - {IGNORE}
    sheet.legend({classes.names[one]: classes.colors[one] for one in sorted(present)})
    return sheet.array()


def _boxed(picture: np.ndarray, width: int, height: int | None) -> np.ndarray:
    """Return a picture that fills a width, or as large as it fits into a box, on paper."""
    full_height, full_width = picture.shape[:2]
    if height is None:
        return _resized_image(picture, (max(1, round(full_height * width / full_width)), width))
    scale = min(width / full_width, height / full_height)
    shape = max(1, round(full_height * scale)), max(1, round(full_width * scale))
    box = np.full((height, width, 3), PAPER, np.uint8)
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    box[top : top + shape[0], left : left + shape[1]] = _resized_image(picture, shape)
    return box


def error_panel(
    rows: Sequence[PanelRow],
    *,
    title: str,
    width: int = 320,
    classes: ClassTable = CITYSCAPES,
) -> np.ndarray:
    """Return the pictures of `panel` and the error map, with a caption above each row."""
    sheet = Sheet(title, columns=4, column_width=width)
    sheet.headings(("image", "truth", "prediction", "errors"))
    for row in rows:
        sheet.caption(row.name, row.note)
        scaled = _scaled(width, row.image, row.truth, row.prediction)
        sheet.pictures([*_colored(classes, *scaled), error_map(*scaled)])
    sheet.legend({**_class_colors(classes), "wrong": ERROR_COLOR})
    return sheet.array()


def comparison(
    rows: Sequence[ComparisonRow],
    titles: Sequence[str],
    *,
    title: str,
    width: int = 256,
    columns_per_line: int = 5,
    truth_last: bool = False,
    classes: ClassTable = CITYSCAPES,
) -> np.ndarray:
    """Return image, truth and every method's prediction under the method's title and the mIoU of
    this image, for each row; with `truth_last` the truth stands after the predictions.

    If no row has a pixel with a truth, the images have no labels: there is no column of truths, and
    predictions are shown whole. A row of more than `columns_per_line` pictures takes several lines,
    filled evenly.
    """
    labelled = any((row.truth != IGNORE).any() for row in rows)
    truth_at = len(titles) + 1 if truth_last else 1
    headings = ["image", *titles]
    if labelled:
        headings.insert(truth_at, "truth")
    columns = even_columns(len(headings), columns_per_line)
    sheet = Sheet(title, columns=columns, column_width=width)
    for row in rows:
        assert len(row.predictions) == len(titles), (row.name, len(row.predictions), titles)
        sheet.caption(row.name, row.note)
        image, *maps = _scaled(width, row.image, row.truth, *row.predictions)
        if labelled:
            image, truth, *maps = _colored(classes, image, *maps)
            pictures, notes = [image, *maps], ["", *map(_mean_iou, row.ious)]
            pictures.insert(truth_at, truth)
            notes.insert(truth_at, "")
        else:
            pictures = [image, *map(classes.colorize, maps[1:])]
            notes = [""] * len(headings)
        for start in range(0, len(pictures), columns):
            part = slice(start, start + columns)
            sheet.headings(headings[part], notes[part])
            sheet.pictures(pictures[part])
    sheet.legend(_class_colors(classes) if labelled else classes.legend())
    return sheet.array()


def _mean_iou(iou: float) -> str:
    return "" if np.isnan(iou) else f"mIoU {100 * iou:.1f}"


def overlay(
    image: np.ndarray, train_ids: np.ndarray, classes: ClassTable = CITYSCAPES
) -> np.ndarray:
    """Return the mean of the image and the colours of its classes; both have one size."""
    colors = Image.fromarray(classes.colorize(train_ids))
    return np.array(Image.blend(Image.fromarray(image), colors, 0.5))


def side_by_side(pictures: Mapping[str, np.ndarray], *, title: str, width: int = 320) -> np.ndarray:
    """Return pictures of one size, RGB uint8 [H, W, 3], in one line, each under its name."""
    sheet = Sheet(title, columns=len(pictures), column_width=width)
    sheet.headings([*pictures])
    height, full_width = next(iter(pictures.values())).shape[:2]
    shape = (max(1, round(height * width / full_width)), width)
    sheet.pictures([_resized_image(picture, shape) for picture in pictures.values()])
    return sheet.array()


def class_colors(train_ids: Tensor, classes: ClassTable = CITYSCAPES) -> Tensor:
    """Return the colours of a map of train ids, uint8 [H, W], as an image, uint8 [3, H, W]."""
    return torch.from_numpy(classes.colorize(train_ids.cpu().numpy())).permute(2, 0, 1)


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


def _class_colors(classes: ClassTable, black: str = "not scored") -> dict[str, Color]:
    red, green, blue = PALETTE[IGNORE].tolist()
    return {**classes.legend(), black: (red, green, blue)}


def _scaled(
    width: int, image: np.ndarray, truth: np.ndarray, *predictions: np.ndarray
) -> list[np.ndarray]:
    """Return image, truth and predictions, all `width` pixels wide in the truth's proportions."""
    shape = (max(1, round(truth.shape[0] * width / truth.shape[1])), width)
    return [
        _resized_image(image, shape),
        *(_resized_ids(ids, shape) for ids in (truth, *predictions)),
    ]


def _colored(
    classes: ClassTable, image: np.ndarray, truth: np.ndarray, *predictions: np.ndarray
) -> list[np.ndarray]:
    """Return all as RGB, black where there is no truth; all have one size."""
    maps = (np.where(truth == IGNORE, IGNORE, ids) for ids in (truth, *predictions))
    return [image, *(classes.colorize(ids) for ids in maps)]


def _resized_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return _resized(image, shape, Image.Resampling.BILINEAR)


def _resized_ids(ids: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return _resized(ids.astype(np.uint8), shape, Image.Resampling.NEAREST)


def _resized(array: np.ndarray, shape: Sequence[int], kind: Image.Resampling) -> np.ndarray:
    height, width = shape
    return np.array(Image.fromarray(array).resize((width, height), kind))
