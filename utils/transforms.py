"""Joint transforms of image and label: resizing, cropping and the augmentation codes.

Everything is torchvision's `transforms.v2` on `tv_tensors`, so image and label always move
together; pixels that leave the frame become `IGNORE` in the label and black in the image.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from datasets.labels import IGNORE

Pair = tuple[tv_tensors.Image, tv_tensors.Mask]
"""Image, uint8 [3, H, W], and label, uint8 [H, W], of one sample."""

JointTransform = Callable[[tv_tensors.Image, tv_tensors.Mask], Pair]

Size = tuple[int, int]
"""(height, width) in pixels."""

FILL = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
NO_AUGMENTATION = "nonorm"


SOLARIZE_THRESHOLDS = (128, 256)
SCALES = (0.75, 1.5)
SCALE = "RS"


def random_solarize(image: tv_tensors.Image, label: tv_tensors.Mask) -> Pair:
    """Inverts the values from a random threshold on; 256 leaves every pixel alone."""
    threshold = _uniform(*SOLARIZE_THRESHOLDS)
    inverted = torch.where(image >= threshold, 255 - image, image)
    return tv_tensors.wrap(inverted, like=image), label


def random_scale_crop(image: tv_tensors.Image, label: tv_tensors.Mask, size: Size) -> Pair:
    """A random part of the image's proportions at a random scale, as large as `size` after it;
    small scales end where the image does, so that nothing has to be made up around it."""
    height, width = image.shape[-2:]
    factor = max(_uniform(*SCALES), size[0] / height, size[1] / width)
    part = v2.RandomCrop(
        (min(height, round(size[0] / factor)), min(width, round(size[1] / factor)))
    )
    return resize(size)(*part(image, label))


def _uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()


class Augmentation(NamedTuple):
    """What a code stands for; `make` is None for the one that changes how samples are cropped."""

    title: str
    make: Callable[[], JointTransform] | None


def _color_jitter(**strength: float) -> Callable[[], JointTransform]:
    return functools.partial(v2.ColorJitter, **strength)


AUGMENTATIONS: dict[str, Augmentation] = {
    "C": Augmentation("contrast", _color_jitter(contrast=0.5)),
    "S": Augmentation("saturation", _color_jitter(saturation=0.5)),
    "B": Augmentation("brightness", _color_jitter(brightness=0.5)),
    "H": Augmentation("hue", _color_jitter(hue=0.2)),
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
    """The codes of a composition such as `C-S-HF`; none for `nonorm` or an empty string.

    Raises ValueError for an unknown code.
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


def crop_and_augment(aug_method: str, probability: float, size: Size) -> v2.Transform:
    """A random crop of that size and, with the given probability, the whole composition."""
    crop = v2.RandomCrop(size)
    codes = augmentation_codes(aug_method)
    if not codes:
        return crop
    first = functools.partial(random_scale_crop, size=size) if SCALE in codes else crop
    others = (make() for make in (AUGMENTATIONS[code].make for code in codes) if make)
    return v2.RandomChoice([v2.Compose([first, *others]), crop], p=[probability, 1 - probability])


def resize(size: Size) -> v2.Transform:
    """Image bilinear with antialiasing, label nearest."""
    return v2.Resize(size, antialias=True)


class Preparation(NamedTuple):
    """The deterministic start of a transform, whose result a cache keeps: resizing to (height,
    width), of the image alone where the label is scored at its own resolution."""

    size: Size
    resizes_label: bool

    def __call__(self, image: tv_tensors.Image, label: tv_tensors.Mask) -> Pair:
        resized = resize(self.size)
        return resized(image, label) if self.resizes_label else (resized(image), label)


def train_transform(
    *, resize_to: Size, crop_to: Size, aug_method: str, aug_probability: float
) -> JointTransform:
    """Resize, crop at random where the resized image is larger, and augment."""
    return v2.Compose([resize(resize_to), crop_and_augment(aug_method, aug_probability, crop_to)])
