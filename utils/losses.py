"""Losses on segmentation logits that are still to be upsampled."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.labels import IGNORE

OHEM_THRESHOLD = -math.log(0.7)
OHEM_MIN_SHARE = 1 / 16

ENTROPY_FLOOR = 1e-8
"""Added to the squared entropy, so that the gradient of its power is finite at 0."""


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [N, C, h, w] at another size, float32, bilinear with aligned corners."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=True)


def segmentation_loss(heads: Iterable[Tensor], label: Tensor, *, ohem: bool = False) -> Tensor:
    """Sum over the heads of the cross-entropy at the label's size (Fan et al., CVPR 2021).

    Args:
        heads: logits [N, C, h, w] of each head, at any resolution.
        label: train ids, uint8 [N, H, W]; pixels of `IGNORE` count nothing.
        ohem: average over the hard pixels only.

    Returns:
        Scalar; 0 where every pixel is ignored.
    """
    label = label.long()
    reduce = hard_mean if ohem else valid_mean
    return sum(
        reduce(_pixel_losses(upsample(logits, label.shape[-2:]), label), label) for logits in heads
    )


def valid_mean(losses: Tensor, label: Tensor) -> Tensor:
    """Mean over the pixels that are not ignored; 0 where there is none."""
    return losses.sum() / (label != IGNORE).sum().clamp(min=1)


def hard_mean(losses: Tensor, label: Tensor) -> Tensor:
    """Mean over the hard pixels: loss above -ln 0.7, and at least the hardest N·H·W/16."""
    at_least = max(1, int(losses.numel() * OHEM_MIN_SHARE))
    hardest = torch.topk(losses.detach().flatten(), at_least, sorted=True).values
    threshold = hardest[-1].clamp(max=OHEM_THRESHOLD)
    kept = (losses >= threshold) & (label != IGNORE)
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def robust_entropy(logits: Tensor, eta: float) -> Tensor:
    """Charbonnier penalty of the prediction's entropy (Yang & Soatto, CVPR 2020).

    mean of (h^2 + 1e-8)^eta, h = -sum_c p_c log p_c / log C in 0..1. A large eta spares the
    pixels of low entropy.

    Args:
        logits: [N, C, h, w] at any resolution; the paper's, before they are upsampled.
        eta: above 0; the paper's is 2.

    Returns:
        Scalar, float32.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1) / math.log(logits.shape[1])
    return ((entropy.square() + ENTROPY_FLOOR) ** eta).mean()


def _pixel_losses(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
