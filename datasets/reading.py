"""Pictures and labels from files, with a sentence for each way in which a file can be wrong."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets.labels import IGNORE, LABEL_ID_TO_TRAIN_ID, MAX_LABEL_ID, NUM_CLASSES
from utils.errors import UserError

FORMATS = ("PNG", "JPEG")
"""What a picture may be, whatever its name says; PIL would start Ghostscript for an EPS."""

ALONE_FORMATS = (*FORMATS, "BMP", "PPM", "TIFF", "WEBP")
"""What one may be that is of no data set, where every file is one of the two."""

DEEPER = ("I", "F")
"""What PIL's names begin with of the modes that have 16 or 32 bits a channel."""

SOFT_ENDINGS = ("_labelTrainIds.png", "_probabilities.png")
"""What the names of the two files of a soft pseudo-label end in."""


class UnknownLabels(UserError):
    """A label holds values that stand for nothing."""


class UnequalSizes(UserError):
    """A label is not of its image's size."""


class LabelKind(Enum):
    """What a label file holds. Pseudo-labels are train ids at a size of their own; soft ones are
    several train ids a pixel with their probabilities, see `read_soft_label`."""

    LABEL_IDS = "label ids"
    TRAIN_IDS = "train ids"
    PSEUDO = "pseudo-labels"
    SOFT = "soft pseudo-labels"


class SampleFiles(NamedTuple):
    """The files of one sample; without a label every pixel counts as `IGNORE`.

    Attributes:
        name: what the sample is called, unlike every other one of its split.
        place: where in a folder files that are made from it lie, such as `aachen/aachen_0_19`
            without an ending; only Cityscapes has such files.
    """

    name: str
    image: Path
    label: Path | None = None
    kind: LabelKind = LabelKind.LABEL_IDS
    place: str = ""


@functools.cache
def say_once(text: str) -> None:
    sys.stdout.flush()  # in a log, what was printed before stands before
    print(text, file=sys.stderr, flush=True)  # of several processes only the first one prints


def read_pair(files: SampleFiles) -> tuple[np.ndarray, np.ndarray]:
    """Image, uint8 [H, W, 3], and label in train ids, uint8 [H, W], or soft, [2 k, H, W].

    Raises UserError where a file cannot be read, holds unknown values, or the sizes differ.
    """
    image = read_image(files.image)
    if files.label is None:
        return image, np.full(image.shape[:2], IGNORE, np.uint8)
    if files.kind in (LabelKind.PSEUDO, LabelKind.SOFT):
        return image, read_pseudo_label(files)
    label = read_label(files.label, holds_train_ids=files.kind is LabelKind.TRAIN_IDS)
    check_sizes(files.image, image, files.label, label)
    return image, label


def check_sizes(image_path: Path, image: np.ndarray, label_path: Path, label: np.ndarray) -> None:
    """Raises UnequalSizes unless the image, [H, W, 3], and its label, [H, W], are of one size."""
    if image.shape[:2] != label.shape:
        raise UnequalSizes(
            f"{image_path} is {image.shape[1]}x{image.shape[0]} pixels but its label "
            f"{label_path} is {label.shape[1]}x{label.shape[0]}: replace one of them, or remove "
            "both"
        )


def read_image(path: Path, *, alone: bool = False) -> np.ndarray:
    """RGB, uint8 [H, W, 3], of a picture of 8 bits a channel; one that is `alone`, of no data set,
    may be of more formats, and is turned as its EXIF data say, as viewers do."""
    picture = _decoded(path, alone=alone)
    if picture.mode.startswith(DEEPER):  # PIL would cut off what is above 255
        raise UserError(
            f"{path} is a {picture.mode} picture, of more than 8 bits a channel: save it with 8"
        )
    return np.array(picture.convert("RGB"))


def read_label(path: Path, *, holds_train_ids: bool) -> np.ndarray:
    """Train ids, uint8 [H, W], of a PNG of train ids, or of label ids, which are mapped."""
    ids = read_ids(path, holds_train_ids=holds_train_ids)
    return ids if holds_train_ids else LABEL_ID_TO_TRAIN_ID[ids]


def read_pseudo_label(files: SampleFiles) -> np.ndarray:
    """Train ids, uint8 [H, W], of a sample's pseudo-label, or a soft one, uint8 [2 k, H, W]."""
    if files.kind is LabelKind.SOFT:
        return read_soft_label(files.label)
    return read_label(files.label, holds_train_ids=True)


def read_soft_label(path: Path) -> np.ndarray:
    """Read the k most probable train ids of each pixel, and their probabilities times 255.

    They are the channels of two PNGs of one size, 8 bits a channel: `path`, which ends in
    `SOFT_ENDINGS[0]`, and the file that ends in `SOFT_ENDINGS[1]` instead. k is 2 (grey with
    alpha), 3 (RGB) or 4 (RGBA).

    Returns uint8 [2 k, H, W]: the ids, most probable first, then the probabilities in that order.
    Raises UserError where a file cannot be read, or they do not fit together.
    """
    ids, shares = (_read_channels(one) for one in (path, probabilities_path(path)))
    if ids.shape != shares.shape:
        raise UserError(
            f"{path} holds {_layers(ids)}, {probabilities_path(path).name} beside it "
            f"{_layers(shares)}: make both again"
        )
    _check_ids(path, ids, holds_train_ids=True)
    return np.concatenate([ids, shares])


def probabilities_path(label: Path) -> Path:
    """Where the probabilities of a soft pseudo-label lie, whether there are any or not."""
    ids, shares = SOFT_ENDINGS
    return label.with_name(label.name.removesuffix(ids) + shares)


def _read_channels(path: Path) -> np.ndarray:
    picture = _decoded(path)
    if picture.format != "PNG" or picture.mode not in ("LA", "RGB", "RGBA"):
        raise UserError(
            f"{path} is a {picture.format} picture of mode {picture.mode}, not a PNG of 2 to 4 "
            "channels of 8 bits: see docs/methods.md for the format of soft pseudo-labels"
        )
    return np.array(picture).transpose(2, 0, 1)


def _layers(layers: np.ndarray) -> str:
    channels, height, width = layers.shape
    return f"{channels} channels of {width}x{height} pixels"


def read_ids(path: Path, *, holds_train_ids: bool) -> np.ndarray:
    """Train ids or label ids, uint8 [H, W], as a PNG holds them.

    Raises UserError where it cannot be read or holds other values.
    """
    picture = _decoded(path)
    if picture.format != "PNG":
        raise UserError(
            f"{path} is a {picture.format} picture, which does not keep class ids exactly: replace "
            "it by the original PNG"
        )
    if picture.mode not in ("L", "P"):
        raise UserError(
            f"{path} is a {picture.mode} picture, not a map of class ids (8-bit grey or palette): "
            "put the *_labelTrainIds, *_labelIds or GTA5 palette PNG there"
        )
    ids = np.array(picture)
    _check_ids(path, ids, holds_train_ids)
    return ids


def _check_ids(path: Path, ids: np.ndarray, holds_train_ids: bool) -> None:
    counts = np.bincount(ids.ravel(), minlength=256)
    if holds_train_ids:
        counts[[*range(NUM_CLASSES), IGNORE]] = 0
        expected = f"train ids (0 to {NUM_CLASSES - 1}, {IGNORE})"
    else:
        counts[: MAX_LABEL_ID + 1] = 0
        expected = f"label ids (0 to {MAX_LABEL_ID})"
    unknown = np.flatnonzero(counts)
    if unknown.size:
        raise UnknownLabels(
            f"{path} should hold {expected} but holds {_some(unknown)} too: replace it by a file "
            "of the kind its name says"
        )


def check_scored(files: Sequence[SampleFiles], *, skips_bad: bool = False) -> None:
    """Raise UserError unless a pixel of a label is scored; reads labels until one is.

    Labels that cannot be read raise, too, unless `skips_bad`. Samples without labels pass.
    """
    values: set[int] = set()
    for one in files:
        if one.label is None:
            return
        holds_train_ids = one.kind is not LabelKind.LABEL_IDS
        try:
            if one.kind is LabelKind.SOFT:
                ids, _ = np.split(read_soft_label(one.label), 2)
            else:
                ids = read_ids(one.label, holds_train_ids=holds_train_ids)
        except UserError:
            if not skips_bad:
                raise
            continue
        found = np.unique(ids)
        if is_scored(found, holds_train_ids=holds_train_ids):
            return
        values.update(found.tolist())
    if values:
        folder = os.path.commonpath([one.label.parent for one in files])
        raise UserError(nothing_scored(folder, len(files), values))


def is_scored(ids: np.ndarray, *, holds_train_ids: bool) -> bool:
    """Whether one of these train ids or label ids, uint8, is a class that is scored."""
    train_ids = ids if holds_train_ids else LABEL_ID_TO_TRAIN_ID[ids]
    return bool((train_ids != IGNORE).any())


def nothing_scored(where: Path | str, count: int, values: Iterable[int]) -> str:
    """The sentence about labels that hold these values, none of which is scored."""
    values = sorted(values)
    if values == [IGNORE]:
        meaning = f"only {IGNORE}, which is ignored: replace the labels"
    else:
        scored = _some(np.flatnonzero(LABEL_ID_TO_TRAIN_ID != IGNORE), NUM_CLASSES)
        meaning = (
            f"only {_some(values)}. Are these train ids, or classes of your own, or empty labels "
            f"such as those of Cityscapes' test split? Label ids that are scored are {scored}: "
            "convert or replace the labels"
        )
    return f"no pixel of the {count} labels in {where} is scored; they hold {meaning}"


def _some(values: Sequence[int], at_most: int = 8) -> str:
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    words = [str(value) for value in values[:at_most]]
    return ", ".join(words) + (", …" if len(values) > at_most else "")


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) by the file's header."""
    with _opened(path) as picture:
        return picture.height, picture.width


def _decoded(path: Path, *, alone: bool = False) -> Image.Image:
    """A picture whose checksums are right: decoding alone does not compare them all."""
    with _opened(path, alone=alone) as picture:
        picture.verify()
    with _opened(path, alone=alone) as picture:
        picture.load()
        return ImageOps.exif_transpose(picture) if alone else picture


@contextlib.contextmanager
def _opened(path: Path, *, alone: bool = False) -> Iterator[Image.Image]:
    """A picture whose header is read. Raises UserError for what goes wrong with it."""
    formats = ALONE_FORMATS if alone else FORMATS
    remedy = "replace it, or remove it together with its partner"
    if alone:
        remedy = "save it as PNG or JPEG, or remove it"
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")  # to open a pipe would wait for its other end
        with Image.open(path, formats=formats) as picture:
            yield picture
    except Image.DecompressionBombError as error:
        most = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise UserError(
            f"{path} cannot be read as a picture (it has more than {most} million pixels): make it "
            "smaller, or cut it into pieces"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path} cannot be read as a picture (it is none of {', '.join(formats)}): {remedy}"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): {remedy}") from error
