"""Random changes of a batch that self-training asks for: ClassMix, colour jitter, blur and masks.

Every function draws from a generator of the CPU, so that a batch is changed alike after a resume.
Numbers that the host needs are drawn for the whole batch; tables of numbers go to the device
without waiting for it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from datasets.labels import NUM_CLASSES

JITTER_PROBABILITY, JITTER_STRENGTH = 0.8, 0.2
"""Brightness, contrast and saturation change by a factor of 1 - strength to 1 + strength, the hue
by up to strength turns (DAFormer; DACS has 0.25)."""

BLUR_PROBABILITY, BLUR_SIGMAS = 0.5, (0.15, 1.15)
"""Standard deviations of the blur, in pixels (DACS)."""

MASK_REFERENCE = 512
"""The shorter side of the crops, in pixels, for which MIC gives the size of its blocks."""

IDS = 256
"""Values of a label of 8 bits."""

WHITE = 255


class Mixed(NamedTuple):
    """Target images with pixels of source images.

    Attributes:
        image: uint8 [N, 3, H, W].
        label: train ids, uint8 [N, H, W].
        weight: factor of each pixel's loss, float32 [N, H, W].
        pasted: whether a pixel comes from the source, bool [N, H, W].
    """

    image: Tensor
    label: Tensor
    weight: Tensor
    pasted: Tensor


def class_mix(
    image: Tensor,
    label: Tensor,
    target_image: Tensor,
    target_label: Tensor,
    target_weight: Tensor,
    generator: torch.Generator,
    num_classes: int = NUM_CLASSES,
) -> Mixed:
    """Paste half of the classes of image i onto target i (ClassMix: Olsson et al., WACV 2021).

    ceil(n / 2) of the n classes in a source label are chosen without replacement. Image, label and
    weight move together; a source pixel weighs 1.

    Args:
        image: source images, uint8 [N, 3, H, W].
        label: their train ids, uint8 [N, H, W]; ignored pixels are never pasted.
        target_image: of the same shape.
        target_label: train ids, uint8 [N, H, W].
        target_weight: float, any shape that expands to [N, H, W].
    """
    chosen = chosen_classes(label, generator, num_classes)
    pasted = chosen.gather(1, label.flatten(1).long()).view(label.shape)
    return Mixed(
        torch.where(pasted[:, None], image, target_image),
        torch.where(pasted, label, target_label),
        torch.where(pasted, 1.0, target_weight),
        pasted,
    )


def chosen_classes(
    label: Tensor, generator: torch.Generator, num_classes: int = NUM_CLASSES
) -> Tensor:
    """Choose ceil(n / 2) of the n classes of each label, uint8 [N, H, W], uniformly.

    Returns bool [N, 256]: whether the pixels of an id are pasted; `IGNORE` never is.
    """
    count = len(label)
    present = torch.zeros(count, IDS, dtype=torch.bool, device=label.device)
    present = present.scatter_(1, label.flatten(1).long(), True)[:, :num_classes]
    keys = _uniform((count, num_classes), generator, label.device)
    rank = keys.masked_fill(~present, 2.0).argsort(1).argsort(1)  # absent classes come last
    half = (present.sum(1, keepdim=True) + 1) // 2
    chosen = torch.zeros(count, IDS, dtype=torch.bool, device=label.device)
    chosen[:, :num_classes] = rank < half
    return chosen


def jittered(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue with probability 0.8, all images alike.

    Takes images [N, 3, H, W] of 0 to 255, uint8 or floating; returns float32 ones.
    """
    applied, *changes = torch.rand(5, generator=generator, device="cpu").tolist()
    if applied >= JITTER_PROBABILITY:
        return image.float()
    *factors, hue = ((2 * change - 1) * JITTER_STRENGTH for change in changes)
    result = image / WHITE
    for adjust, factor in zip(
        (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation), factors, strict=True
    ):
        result = adjust(result, 1 + factor)
    return turned_hue(result, hue).mul_(WHITE)


def blurred(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blur images [N, 3, H, W] by a Gaussian with probability 0.5, all alike; float32."""
    applied, place = torch.rand(2, generator=generator, device="cpu").tolist()
    image = image.float()
    if applied >= BLUR_PROBABILITY:
        return image
    low, high = BLUR_SIGMAS
    sigma = low + (high - low) * place
    size = 2 * math.ceil(3 * sigma) + 1
    with torch.autocast(image.device.type, enabled=False):
        return tv.gaussian_blur(image, [size, size], [sigma, sigma])


def turned_hue(image: Tensor, turns: float) -> Tensor:
    """Turn the hue of images [N, 3, H, W] of 0 to 1, float, at equal value and saturation.

    Equals torchvision's `adjust_hue`, which copies a table from the host. With h in sixths of a
    turn, k = (n + h) mod 6, v the largest channel and c the largest minus the smallest, channel n
    is v - c max(0, min(k, 4 - k, 1)) for n = 5, 3, 1.
    """
    red, green, blue = image.unbind(1)
    low, value = image.aminmax(dim=1)
    chroma = value - low
    hue = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    hue = torch.where(value == red, green - blue, hue)
    hue = hue / chroma.masked_fill(chroma == 0, 1) + 6 * turns

    def channel(n: int) -> Tensor:
        k = (hue + n) % 6
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(n) for n in (5, 3, 1)], 1)


def masked(
    image: Tensor, fill: Tensor, generator: torch.Generator, *, ratio: float, block: int
) -> Tensor:
    """Replace square blocks by one colour, each with a probability (MIC: Hoyer et al., CVPR 2023).

    Args:
        image: [N, 3, H, W], float.
        fill: the colour, [3, 1, 1].
        ratio: the probability, 0 to 1.
        block: side of a block in pixels, see `block_side`; those at the right and lower edges are
            cut off.
    """
    *_, height, width = image.shape
    rows, columns = math.ceil(height / block), math.ceil(width / block)
    kept = _uniform((len(image), 1, rows, columns), generator, image.device) >= ratio
    kept = kept.repeat_interleave(block, 2).repeat_interleave(block, 3)[..., :height, :width]
    return torch.where(kept, image, fill)


def block_side(mask_block: int, size: tuple[int, int]) -> int:
    """Return the side of a block at an image size (height, width) so that it covers the share of
    the image that `mask_block` covers of a crop whose shorter side is 512."""
    return max(1, round(mask_block * min(size) / MASK_REFERENCE))


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Return uniform numbers of 0 to 1 on the device; the host does not wait for the copy."""
    drawn = torch.rand(shape, generator=generator, device="cpu")
    if device.type == "cuda":
        drawn = drawn.pin_memory()
    return drawn.to(device, non_blocking=True)
