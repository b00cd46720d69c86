"""Losses on segmentation logits that are still to be upsampled."""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from datasets.labels import IGNORE
from utils import processes
from utils.upsampling import bands, upsample, widen

OHEM_THRESHOLD = -math.log(0.7)
OHEM_MIN_SHARE = 1 / 16

ENTROPY_FLOOR = 1e-8
"""Added to the squared entropy, so that the gradient of its power is finite at 0."""


def segmentation_loss(heads: Iterable[Tensor], label: Tensor, *, ohem: bool = False) -> Tensor:
    """Sum over the heads of the cross-entropy at the label's size (Fan et al., CVPR 2021).

    Args:
        heads: logits [N, C, h, w] of each head, at any resolution.
        label: train ids, uint8 [N, H, W]; pixels of `IGNORE` count nothing.
        ohem: average over the hard pixels only.

    Returns:
        Scalar, float32; 0 where every pixel is ignored.
    """
    valid = label != IGNORE
    label = label.long().masked_fill(~valid, 0)
    if ohem:
        return sum(cross_entropy(one, label, _hard(one, label, valid)) for one in heads)
    weight = _weights(valid)
    return sum(_weighted_cross_entropy(one, label, weight) for one in heads)


def cross_entropy(logits: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """Mean cross-entropy over the counted pixels, at the label's size; 0 where there is none.

    With several processes the mean of their results is that over the counted pixels of all.

    Args:
        logits: [N, C, h, w], upsampled to H, W bilinearly with aligned corners.
        label: classes 0 to C - 1, int64 [N, H, W], also where nothing is counted.
        counted: bool [N, H, W].
    """
    return _weighted_cross_entropy(logits, label, _weights(counted))


def _weights(counted: Tensor) -> Tensor:
    """Of the counted pixels in the mean over those of all processes."""
    return counted / (processes.total(counted.sum()).clamp(min=1) / processes.count())


def _weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    return BandedCrossEntropy.apply(widen(logits, label.shape[-1]), label, weight)


def _hard(logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """The valid pixels with a loss above -ln 0.7, and at least the hardest N·H·W/16 of all."""
    with torch.no_grad():
        up = upsample(logits, label.shape[-2:])
        losses = F.cross_entropy(up, label, reduction="none") * valid
    at_least = max(1, int(losses.numel() * OHEM_MIN_SHARE))
    hardest = torch.topk(losses.flatten(), at_least, sorted=True).values
    return (losses >= hardest[-1].clamp(max=OHEM_THRESHOLD)) & valid


class BandedCrossEntropy(Function):
    """Weighted sum of the cross-entropy of logits that are enlarged in height, over bands of rows.

    The gradient of a band is taken at once, so that nothing is kept for the backward pass.

    Takes logits, float32 [N, C, h, W]; classes, int64 [N, H, W]; weights, float32 [N, H, W].
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        total, gradient = logits.new_zeros(()), torch.zeros_like(logits)
        parts = list(bands(logits, label.shape[-2]))
        with torch.autocast(logits.device.type, enabled=False):
            for rows, classes, weights, grad in zip(logits, label, weight, gradient, strict=True):
                for inputs, outputs, mixing in parts:
                    truth, weights_here = classes[None, outputs], weights[outputs]
                    scores = mixing @ rows[:, inputs]
                    scores -= scores.amax(0)
                    of_truth = scores.gather(0, truth)[0]
                    # One exponential serves the loss, log sum exp - score, and its gradient.
                    slope = scores.exp_()
                    sums = slope.sum(0)
                    total += ((sums.log() - of_truth) * weights_here).sum()
                    slope *= weights_here / sums
                    slope.scatter_add_(0, truth, -weights_here[None])
                    grad[:, inputs] += mixing.mT @ slope
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


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
