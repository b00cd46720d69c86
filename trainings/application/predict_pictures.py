"""Predict each picture of a list, and write its results."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.inputs import Picture
from datasets.labels import CITYSCAPES, TRAIN_ID_TO_LABEL_ID, ClassTable
from datasets.loading.batches import each_item
from datasets.reading import read_image
from trainings.application.contact_sheet import MOST, SHEET, Kept
from trainings.application.predictions import Predictions, are_newer
from trainings.application.segmenter import as_seen
from utils.background import Background
from utils.disk.run_folder import RunFolder
from utils.errors import UserError
from utils.spread import spread
from utils.transforms import Size
from utils.utils import progress

MOST_ELONGATED = 16
"""Times its shorter side that a picture may be long: it is enlarged until it covers `--image_size`,
and the memory grows with its longer side."""

MOST_WRITERS = 4
FAST_PNG = {"compress_level": 1}
GOOD_JPEG = {"kind": "JPEG", "quality": 90}


def predict_pictures(predictions: Predictions, pictures: Sequence[Picture]) -> None:
    """Write four files for each picture that lacks one or is younger than one."""
    todo = [
        one for one in pictures if not are_newer(predictions.results(one.name).values(), one.path)
    ]
    started = time.perf_counter()
    if todo:
        _predict_each(predictions, todo)
    done = len(todo) - len(predictions.problems)
    if done or not predictions.folder.has(SHEET):
        predictions.draw_sheet(_predicted(predictions, pictures))
    predictions.finish("image", len(pictures), done, time.perf_counter() - started)


def _predict_each(predictions: Predictions, todo: Sequence[Picture]) -> None:
    segment = predictions.load()
    read = partial(_read, predictions.settings.image_size)
    items = each_item(read, todo, num_workers=predictions.settings.workers)
    writers = Background(min(MOST_WRITERS, os.cpu_count() or 1))
    with writers, progress(None, "predict", total=len(todo), unit="image") as bar:
        for picture, item in zip(todo, items, strict=True):
            if isinstance(item, str):
                predictions.problems.append((picture.path, item))
            else:
                image, seen = item
                train_ids = segment(seen, image.shape[:2])
                writers.submit(_write, predictions, picture.name, image.numpy(), train_ids)
            bar.update()


def _read(size: Size, picture: Picture) -> tuple[Tensor, Tensor] | str:
    """Return a picture, uint8 [H, W, 3], and as the network sees it; or the sentence why not."""
    path = picture.path
    try:
        image = read_image(path, photo=True)
        _check_proportions(path, image)
        return torch.from_numpy(image), as_seen(image, size)
    except UserError as error:
        return str(error)
    except Exception as error:  # no file may end the rest
        return f"{path} cannot be read ({error!r}): replace it"


def _check_proportions(path: Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if max(height, width) > MOST_ELONGATED * min(height, width):
        raise UserError(
            f"{path} is {width}x{height} pixels, more than {MOST_ELONGATED} times as long as wide: "
            "cut it into pieces"
        )


def _write(predictions: Predictions, name: str, image: np.ndarray, train_ids: np.ndarray) -> None:
    contents: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "label_ids": (_label_ids(predictions.classes, train_ids), FAST_PNG),
        "train_ids": (train_ids, FAST_PNG),
        "color": (predictions.classes.colorize(train_ids), FAST_PNG),
        "overlay": (predictions.overlay(image, train_ids), GOOD_JPEG),
    }
    for kind, path in predictions.results(name).items():
        picture, options = contents[kind]
        RunFolder(path.parent, flag="output").save_picture(path.name, picture, **options)


def _label_ids(classes: ClassTable, train_ids: np.ndarray) -> np.ndarray:
    """Return the ids of the classes as label files have them, uint8 [H, W]."""
    usual = classes == CITYSCAPES
    return (TRAIN_ID_TO_LABEL_ID if usual else classes.to_ids)[train_ids]


def _predicted(predictions: Predictions, pictures: Sequence[Picture]) -> Iterator[Kept]:
    """Yield some of the pictures that have results, evenly spread, with their classes."""
    files = {one.name: predictions.results(one.name)["train_ids"] for one in pictures}
    there = [one for one in pictures if files[one.name].exists()]
    for place in spread(len(there), MOST):
        picture = there[place]
        with contextlib.suppress(UserError):
            image = read_image(picture.path, photo=True)
            with Image.open(files[picture.name]) as stored:
                train_ids = np.array(stored)
            if image.shape[:2] == train_ids.shape:
                yield Kept(picture.name, image, train_ids)
