"""Pictures and labels from files, with a sentence for each way in which a file can be wrong."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from datasets.labels import IGNORE, LABEL_IDS, LabelFormat
from utils.errors import UserError

FORMATS = ("PNG", "JPEG")
"""Formats of the pictures of a data set, whatever their names say; PIL would start Ghostscript for
an EPS."""

PHOTO_FORMATS = (*FORMATS, "BMP", "PPM", "TIFF", "WEBP")
"""Formats of a user's own pictures."""

COUNTED = 8
"""Values of which a message says in how many pixels they are."""

ORIENTATION, TURNED_ASIDE = 0x0112, (5, 6, 7, 8)
"""EXIF's tag of a picture's orientation, and its values that swap width and height."""

HIGH_BYTES, LOW_BYTES = "RGB;16B", "RGB;16L"
"""Pillow's names for 16-bit colours of which it keeps the first byte, or the second. A PNG has the
high byte first; Pillow keeps that one, where a small class id has nothing but 0."""

DEEPER = ("I", "F")
"""First letters of PIL's modes that have 16 or 32 bits a channel."""

IDS_ENDING, PROBABILITIES_ENDING = "_labelTrainIds.png", "_probabilities.png"
"""Endings of the names of the two files of a soft pseudo-label."""


class UnknownLabels(UserError):
    """A label holds values that stand for nothing."""


class UnequalSizes(UserError):
    """A label is not of its image's size."""


class SampleFiles(NamedTuple):
    """The files of one sample; without a label every pixel counts as `IGNORE`.

    Attributes:
        name: what the sample is called, unlike every other one of its split.
        kind: what the label holds.
        place: where in a folder files that are made from it lie, such as `aachen/aachen_0_19`
            without an ending.
        photo: the image may be of any of `PHOTO_FORMATS`, and is turned as its EXIF data say.
    """

    name: str
    image: Path
    label: Path | None = None
    kind: LabelFormat = LABEL_IDS
    place: str = ""
    photo: bool = False

    @property
    def label_path(self) -> Path:
        """The label of a sample that has one."""
        assert self.label is not None, f"{self.name} has no label"
        return self.label


def read_pair(files: SampleFiles) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, uint8 [H, W, 3], and its label, uint8 [H, W] of train ids, or soft.

    A soft label is as `read_soft_label` gives it. Raise UserError where a file cannot be read,
    holds unknown values, or the sizes differ.
    """
    image = read_image(files.image, photo=files.photo)
    if files.label is None:
        return image, np.full(image.shape[:2], IGNORE, np.uint8)
    label = read_label(files.label, files.kind)
    if not files.kind.own_size:
        check_sizes(files.image, image, files.label, label)
    return image, label


def check_sizes(image_path: Path, image: np.ndarray, label_path: Path, label: np.ndarray) -> None:
    """Raise UnequalSizes unless the image, [H, W, 3], and its label, [H, W], are of one size."""
    if image.shape[:2] != label.shape:
        raise UnequalSizes(
            f"{image_path} is {image.shape[1]}x{image.shape[0]} pixels but its label "
            f"{label_path} is {label.shape[1]}x{label.shape[0]}: replace one of them, or remove "
            "both"
        )


def read_image(path: Path, *, photo: bool = False) -> np.ndarray:
    """Return a picture of 8 bits a channel as RGB, uint8 [H, W, 3]. A `photo`, a picture of no data
    set, may be of more formats, and is turned as its EXIF data say, as viewers do."""
    picture = _decoded(path, photo=photo)
    if picture.mode.startswith(DEEPER):  # PIL would cut off what is above 255
        raise UserError(
            f"{path} is a {picture.mode} picture, of more than 8 bits a channel: save it with 8"
        )
    return np.array(picture.convert("RGB"))


def read_label(path: Path, kind: LabelFormat) -> np.ndarray:
    """Train ids, uint8 [H, W], of a label file; what `read_soft_label` reads of a soft one."""
    return read_soft_label(path, kind) if kind.soft else kind.to_train_ids(read_ids(path, kind))


def read_soft_label(path: Path, kind: LabelFormat) -> np.ndarray:
    """Read the k most probable train ids of each pixel, and their probabilities times 255.

    They are the channels of two PNGs of one size, 8 bits a channel: `path`, and the file beside it
    that `probabilities_path` names. k is 2 (grey with alpha), 3 (RGB) or 4 (RGBA).

    Returns uint8 [2 k, H, W]: the ids, most probable first, then the probabilities in that order.
    Raise UserError where a file cannot be read, or they do not fit together.
    """
    beside = probabilities_path(path)
    ids, shares = read_ids(path, kind), _channels(beside)
    if ids.shape != shares.shape:
        raise UserError(
            f"{path} holds {_layers(ids)}, {beside.name} beside it {_layers(shares)}: make both "
            "again"
        )
    return np.concatenate([ids, shares])


def probabilities_path(label: Path) -> Path:
    """Return the path of a soft pseudo-label's probabilities, whether they exist or not."""
    return label.with_name(label.name.removesuffix(IDS_ENDING) + PROBABILITIES_ENDING)


def _channels(path: Path) -> np.ndarray:
    """Return the channels of a PNG, uint8 [k, H, W]."""
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


def read_ids(path: Path, kind: LabelFormat) -> np.ndarray:
    """Return the values of a label file, uint8 [H, W]; of a soft one [k, H, W].

    Raise UserError where it cannot be read or holds other values.
    """
    if kind.soft:
        ids = _channels(path)
        _check_ids(path, ids, kind)
        return ids
    picture = _decoded(path)
    if picture.format != "PNG":
        raise UserError(
            f"{path} is a {picture.format} picture, which does not keep class ids exactly: replace "
            "it by the original PNG"
        )
    if picture.mode in ("L", "P"):
        ids = np.array(picture)
    elif kind.deep and (first := _first_of_deep(path)) is not None:
        ids = first
    else:
        wanted = "16-bit colours" if kind.deep else "8-bit grey or palette"
        raise UserError(
            f"{path} is a {picture.mode} picture, not a map of class ids ({wanted}): put the "
            "data set's own label there, not its coloured picture"
        )
    _check_ids(path, ids, kind)
    return ids


def _first_of_deep(path: Path) -> np.ndarray | None:
    """Return the low bytes of the first channel, uint8 [H, W], of a PNG of 16-bit colours; None for
    another one.

    torchvision decodes 16 bits, too, but a damaged file ends the process there.
    """
    with _opened(path) as picture:
        if picture.tile[0][3] != HIGH_BYTES:
            return None
        plain = (*picture.tile[0][:3], LOW_BYTES)
        picture.tile = [plain]  # type: ignore[list-item]  # a class of its own since Pillow 11
        return np.array(picture)[..., 0]


def _check_ids(path: Path, ids: np.ndarray, kind: LabelFormat) -> None:
    counts = np.bincount(ids.ravel(), minlength=256)
    counts[list(kind.values)] = 0
    unknown = np.flatnonzero(counts)
    if unknown.size:
        pixels = ", ".join(str(counts[value]) for value in unknown[:COUNTED])
        raise UnknownLabels(
            f"{path} should hold {kind.name} ({_ranges(kind.values)}) but holds "
            f"{_some(unknown.tolist())} too (pixels: {pixels}): {kind.remedy}"
        )


def _ranges(values: Sequence[int]) -> str:
    """Return values in words, such as "0 to 18, 255"."""
    if values[-1] == IGNORE and len(values) > 2:
        return f"{_some(values[:-1])}, {IGNORE}"
    return _some(values)


def check_scored(files: Sequence[SampleFiles], *, skips_bad: bool = False) -> None:
    """Raise UserError unless a pixel of a label is scored; reads labels until one is.

    Labels that cannot be read raise, too, unless `skips_bad`. Samples without labels pass.
    """
    values: set[int] = set()
    for one in files:
        if one.label is None:
            return
        try:
            ids = read_ids(one.label, one.kind)
        except UserError:
            if not skips_bad:
                raise
            continue
        found = np.unique(ids)
        if (one.kind.to_train_ids(found) != IGNORE).any():
            return
        values.update(found.tolist())
    if values:
        folder = os.path.commonpath([one.label_path.parent for one in files])
        raise UserError(nothing_scored(folder, len(files), values, files[0].kind))


def nothing_scored(
    where: Path | str, count: int, values: Iterable[int], kind: LabelFormat = LABEL_IDS
) -> str:
    """Return the sentence about labels that hold these values, none of which is scored."""
    values = sorted(values)
    if values == [IGNORE]:
        meaning = f"only {IGNORE}, which is ignored: replace the labels"
    else:
        scored = _some(kind.scored, len(kind.scored))
        name = f"{kind.name[0].upper()}{kind.name[1:]}"
        meaning = (
            f"only {_some(values)}. Are these train ids, or classes of your own, or empty labels "
            f"such as those of Cityscapes' test split? {name} that are scored are {scored}: "
            "convert or replace the labels"
        )
    return f"no pixel of the {count} labels in {where} is scored; they hold {meaning}"


def _some(values: Sequence[int], at_most: int = 8) -> str:
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    words = [str(value) for value in values[:at_most]]
    return ", ".join(words) + (", …" if len(values) > at_most else "")


def picture_size(path: Path, *, photo: bool = False) -> tuple[int, int]:
    """Return (height, width) by the file's header; of a photo as it is after it has been turned."""
    with _opened(path, photo=photo) as picture:
        if photo and picture.getexif().get(ORIENTATION) in TURNED_ASIDE:
            return picture.width, picture.height
        return picture.height, picture.width


def _decoded(path: Path, *, photo: bool = False) -> Image.Image:
    """Return a picture after a check of its checksums: decoding alone does not compare them all."""
    with _opened(path, photo=photo) as picture:
        picture.verify()
    with _opened(path, photo=photo) as picture:
        picture.load()
        return ImageOps.exif_transpose(picture) if photo else picture


@contextlib.contextmanager
def _opened(path: Path, *, photo: bool = False) -> Iterator[ImageFile.ImageFile]:
    """Open a picture and read its header. Raise UserError for what goes wrong with it."""
    formats = PHOTO_FORMATS if photo else FORMATS
    remedy = "replace it, or remove it together with its partner"
    if photo:
        remedy = "save it as PNG or JPEG, or remove it"
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")  # to open a pipe would wait for its other end
        with Image.open(path, formats=formats) as picture:
            yield picture
    except Image.DecompressionBombError as error:
        assert Image.MAX_IMAGE_PIXELS is not None
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
