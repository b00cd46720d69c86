"""Joint transforms of image and label: resizing, cropping and the augmentation codes.

Everything is torchvision's `transforms.v2` on `tv_tensors`, so image and label always move
together; pixels that leave the frame become `IGNORE` in the label and black in the image.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from datasets.labels import IGNORE

Pair = tuple[tv_tensors.Image, tv_tensors.Mask]
"""Image, uint8 [3, H, W], and label, uint8 [H, W], of one sample."""

JointTransform = Callable[[tv_tensors.Image, tv_tensors.Mask], Pair]

Size = tuple[int, int]
"""(height, width) in pixels."""

STRETCH = 0.05
"""Share by which a picture may be stretched to the size that is asked for."""

FILL = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
NO_AUGMENTATION = "nonorm"


BAND_ROWS = 64
"""Rows of an image whose colours are computed at a time, so that they stay in a core's cache."""

LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in grey, as in torchvision."""

SOLARIZE_THRESHOLDS = (128, 256)
SCALES = (0.75, 1.5)
SCALE = "RS"


def random_solarize(image: tv_tensors.Image, label: tv_tensors.Mask) -> Pair:
    """Invert the values from a random threshold on; 256 leaves every pixel alone."""
    threshold = _uniform(*SOLARIZE_THRESHOLDS)
    inverted = torch.where(image >= threshold, 255 - image, image)
    return tv_tensors.wrap(inverted, like=image), label


def random_scale_crop(image: tv_tensors.Image, label: tv_tensors.Mask, size: Size) -> Pair:
    """Crop a random part of the image's proportions at a random scale, as large as `size` after it;
    small scales end where the image does, so that nothing has to be made up around it."""
    height, width = image.shape[-2:]
    factor = max(_uniform(*SCALES), size[0] / height, size[1] / width)
    part = v2.RandomCrop(
        (min(height, round(size[0] / factor)), min(width, round(size[1] / factor)))
    )
    return resize(size)(*part(image, label))


def scaled_crop(
    image: tv_tensors.Image, label: tv_tensors.Mask, *, size: Size, scales: Sequence[float]
) -> Pair:
    """Crop a random part, as large as `size`, of an image that is scaled by a random factor.

    An image that becomes smaller than `size` is enlarged until it covers it, as in STDC's code: it
    then looks as if it were seen through few pixels.

    Args:
        scales: smallest and largest factor, and the step between factors, if there is one.
    """
    height, width = image.shape[-2:]
    low, high, *step = scales
    drawn = _step_between(low, high, *step) if step else _uniform(low, high)
    factor = max(drawn, size[0] / height, size[1] / width)
    # The part is cut out first: what is not in it need not be scaled.
    shape = (min(height, round(size[0] / factor)), min(width, round(size[1] / factor)))
    image, label = v2.RandomCrop(shape)(image, label)
    if drawn < factor:
        few = (max(1, round(shape[0] * drawn)), max(1, round(shape[1] * drawn)))
        image, label = resize(few)(image, label)
    return resize(size)(image, label)


def _step_between(low: float, high: float, step: float) -> float:
    count = round((high - low) / step) + 1
    return low + step * torch.randint(count, ()).item()


def _uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()


Adjust = Callable[[Tensor, float], Tensor]
"""Change a uint8 image [3, H, W] by a factor."""


def random_color(
    image: tv_tensors.Image,
    label: tv_tensors.Mask,
    *,
    adjust: Adjust,
    low: float,
    high: float,
) -> Pair:
    """Change the colours by a random factor, drawn as `v2.ColorJitter` draws it."""
    torch.randperm(4)  # its order of four changes, of which one is made
    changed = adjust(image.as_subclass(Tensor), _uniform(low, high))
    return tv_tensors.wrap(changed, like=image), label


def adjust_brightness(image: Tensor, factor: float) -> Tensor:
    """Compute `v2.functional.adjust_brightness` of a uint8 image [3, H, W], to the bit."""
    return _by_bands(image, lambda values: values.mul_(factor))


def adjust_saturation(image: Tensor, factor: float) -> Tensor:
    """Compute `v2.functional.adjust_saturation` of a uint8 image [3, H, W], to the bit."""
    return _by_bands(image, lambda values: _blend(values, _grey(values), factor))


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """Compute `v2.functional.adjust_contrast` of a uint8 image [3, H, W], to the bit."""
    grey = torch.cat([_grey(band.float()) for band in image.split(BAND_ROWS, dim=1)])
    mean = grey[None].mean(dim=(-3, -2, -1), keepdim=True)
    return _by_bands(image, lambda values: _blend(values, mean, factor))


def _by_bands(image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of float values [3, rows, W] to a uint8 image, band by band.

    torchvision multiplies uint8 values by a float, and converts floats to uint8. torch is several
    times slower at both than at what stands here, and the results are equal.
    """
    result = torch.empty(image.shape, dtype=torch.uint8)
    for band, rows in zip(image.split(BAND_ROWS, 1), result.split(BAND_ROWS, 1), strict=True):
        rows.copy_(change(band.float()).clamp_(0, 255).int())
    return result


def _grey(values: Tensor) -> Tensor:
    """Return the grey, whole numbers as floats [rows, W], of colours [3, rows, W]."""
    red, green, blue = values
    grey = red.mul(LUMA[0]).add_(green, alpha=LUMA[1])
    return grey.add_(blue, alpha=LUMA[2]).floor_()


def _blend(values: Tensor, other: Tensor, factor: float) -> Tensor:
    """Write factor * values + (1 - factor) * other over the values."""
    return values.mul_(factor).add_(other, alpha=1.0 - factor)


class Augmentation(NamedTuple):
    """Meaning of a code; `make` is None for the code that changes how samples are cropped."""

    title: str
    make: Callable[[], JointTransform] | None


def _color(adjust: Adjust, low: float, high: float) -> Callable[[], JointTransform]:
    return lambda: functools.partial(random_color, adjust=adjust, low=low, high=high)


AUGMENTATIONS: dict[str, Augmentation] = {
    "C": Augmentation("contrast", _color(adjust_contrast, 0.5, 1.5)),
    "S": Augmentation("saturation", _color(adjust_saturation, 0.5, 1.5)),
    "B": Augmentation("brightness", _color(adjust_brightness, 0.5, 1.5)),
    "H": Augmentation("hue", _color(v2.functional.adjust_hue, -0.2, 0.2)),
    "GS": Augmentation("grayscale", lambda: v2.RandomGrayscale(p=0.5)),
    "HF": Augmentation("horizontal flip", lambda: v2.RandomHorizontalFlip(p=0.5)),
    "RP": Augmentation(
        "perspective", lambda: v2.RandomPerspective(distortion_scale=0.3, p=1, fill=FILL)
    ),
    "R": Augmentation(
        "rotation", lambda: v2.RandomRotation(10, v2.InterpolationMode.BILINEAR, fill=FILL)
    ),
    "BL": Augmentation("blur", lambda: v2.GaussianBlur(kernel_size=5, sigma=(0.1, 2.0))),
    "SO": Augmentation("solarize", lambda: random_solarize),
    SCALE: Augmentation("crop at a random scale", None),
}
"""Every range contains the identity, so an augmented set still holds what it was made from."""


def augmentation_codes(aug_method: str) -> tuple[str, ...]:
    """Return the codes of a composition such as `C-S-HF`; none for `nonorm` or an empty string.

    Raise ValueError for an unknown code.
    """
    if aug_method in ("", NO_AUGMENTATION):
        return ()
    codes = tuple(aug_method.split("-"))
    unknown = [code for code in codes if code not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            f"holds {', '.join(map(repr, unknown))}; the codes are "
            f"{', '.join(AUGMENTATIONS)}, joined by '-', or {NO_AUGMENTATION} for none"
        )
    return codes


def crop_and_augment(
    aug_method: str, probability: float, size: Size, scales: Sequence[float] = ()
) -> v2.Transform:
    """Return a random crop of that size and, with the given probability, the whole composition;
    `scales` are those of `scaled_crop`."""
    crop = (
        functools.partial(scaled_crop, size=size, scales=scales) if scales else v2.RandomCrop(size)
    )
    codes = augmentation_codes(aug_method)
    if not codes:
        return crop
    first = functools.partial(random_scale_crop, size=size) if SCALE in codes else crop
    others = (make() for make in (AUGMENTATIONS[code].make for code in codes) if make)
    return v2.RandomChoice([v2.Compose([first, *others]), crop], p=[probability, 1 - probability])


def resize(size: Size) -> v2.Transform:
    """Return a transform that resizes images bilinearly with antialiasing, labels to the
    nearest."""
    return v2.Resize(size, antialias=True)


def fitted_size(picture: Size, size: Size, stretch: float = STRETCH) -> Size:
    """Return the size at which a whole picture is seen where `size` is asked for: in training,
    which crops `size` from it at random, in validation and in predict.

    `size` itself for a picture of its proportions, or nearly: it is stretched by up to `stretch`.
    Any other keeps its proportions and is scaled until it just covers `size`. What fits once fits
    again: `fitted_size(fitted_size(picture, size), size) == fitted_size(picture, size)`.
    """
    scale = max(asked / own for asked, own in zip(size, picture, strict=True))
    height, width = (
        max(asked, round(own * scale)) for asked, own in zip(size, picture, strict=True)
    )
    fits = height <= size[0] * (1 + stretch) and width <= size[1] * (1 + stretch)
    return size if fits else (height, width)


@dataclass(frozen=True)
class Preparation:
    """The deterministic start of a transform, whose result a cache keeps: resizing as `fitted_size`
    says, of the image alone where the label is scored at its own resolution."""

    size: Size
    resizes_label: bool
    stretch: float = STRETCH

    def fitted(self, picture: Size) -> Size:
        """Return the size that a picture is resized to."""
        return fitted_size(picture, self.size, self.stretch)

    def __call__(self, image: tv_tensors.Image, label: tv_tensors.Mask) -> Pair:
        resized = resize(self.fitted(image.shape[-2:]))
        return resized(image, label) if self.resizes_label else (resized(image), label)


def train_transform(
    preparation: Preparation,
    *,
    crop_to: Size,
    aug_method: str,
    aug_probability: float,
    scales: Sequence[float] = (),
) -> JointTransform:
    """Prepare, crop at random where the prepared image is larger, and augment. With `scales` the
    image is cropped as it is, by `scaled_crop`."""
    cropped = crop_and_augment(aug_method, aug_probability, crop_to, scales)
    return cropped if scales else v2.Compose([preparation, cropped])
