"""Losses on segmentation logits that are still to be upsampled."""

import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from datasets.labels import IGNORE
from utils import processes
from utils.upsampling import bands, in_bands, upsample, widen

OHEM_THRESHOLD = -math.log(0.7)
OHEM_MIN_SHARE = 1 / 16

ENTROPY_FLOOR = 1e-8
"""Added to the squared entropy, so that the gradient of its power is finite at 0."""


def segmentation_loss(
    heads: Sequence[Tensor],
    label: Tensor,
    *,
    head_weights: Sequence[float] | None = None,
    ohem: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Sum over the heads of the cross-entropy at the label's size (Fan et al., CVPR 2021).

    Args:
        heads: logits [N, C, h, w] of each head, at any resolution.
        head_weights: factor of each head's cross-entropy; all 1 without them.
        label: train ids, uint8 [N, H, W]; pixels of `IGNORE` count nothing.
        ohem: average over the hard pixels only.
        weight: factor of each pixel's loss, float [N, H, W]; the divisor of the mean stays the
            number of pixels that count.

    Returns:
        Scalar, float32; 0 where every pixel is ignored.
    """
    valid = label != IGNORE
    label = label.masked_fill(~valid, 0)
    if ohem:
        weights = [_weights(_hard(one, label, valid), weight) for one in heads]
    else:
        weights = [_weights(valid, weight)] * len(heads)
    parts = zip(heads, weights, head_weights or [1.0] * len(heads), strict=True)
    losses = (factor * _weighted_cross_entropy(one, label, own) for one, own, factor in parts)
    return functools.reduce(torch.add, losses)


def pseudo_label_loss(
    heads: Sequence[Tensor],
    label: Tensor,
    *,
    head_weights: Sequence[float] | None = None,
    ohem: bool = False,
) -> Tensor:
    """Return the `segmentation_loss` of pseudo-labels, hard or soft.

    Of soft ones it is -sum_k p_k log softmax(logits)_{c_k} over the k best classes of each pixel,
    whose probabilities are scaled to sum to 1.

    Args:
        label: train ids, uint8 [N, H, W], or uint8 [N, 2 k, H, W]: k train ids of each pixel, then
            their probabilities times 255.
        ohem: for hard ones alone.
    """
    if label.ndim == 3:
        return segmentation_loss(heads, label, head_weights=head_weights, ohem=ohem)
    classes, shares = label.chunk(2, dim=1)
    weights = shares / shares.sum(1, keepdim=True, dtype=torch.float32).clamp(min=1)
    parts = zip(classes.unbind(1), weights.unbind(1), strict=True)
    losses = (
        segmentation_loss(heads, ids, head_weights=head_weights, weight=weight)
        for ids, weight in parts
    )
    return functools.reduce(torch.add, losses)


def _weights(counted: Tensor, factor: Tensor | None = None) -> Tensor:
    """Return the weight of each pixel in the mean over the counted pixels of all processes,
    float32."""
    weights = counted / (processes.total(counted.sum()).clamp(min=1) / processes.count())
    return weights if factor is None else weights * factor.float()


def _weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sum of the cross-entropy of enlarged logits, in the form that suits the
    device.

    Args:
        logits: [N, C, h, w].
        label: classes 0 to C - 1, integers [N, H, W].
        weight: float32 [N, H, W].
    """
    if in_bands(logits):
        return banded_cross_entropy(logits, label, weight)
    if fused := _fused(logits):
        return fused.fused_cross_entropy(logits, label, weight)
    return library_cross_entropy(logits, label, weight)


@torch.no_grad()
def _losses(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of every pixel, float32 [N, H, W], in the form that suits the
    device."""
    if in_bands(logits):
        return banded_losses(logits, label)
    if fused := _fused(logits):
        return fused.fused_losses(logits, label)
    return library_losses(logits, label)


def banded_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Compute `_weighted_cross_entropy` band by band of rows."""
    return BandedCrossEntropy.apply(widen(logits, label.shape[-1]), label, weight)


def library_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Compute `_weighted_cross_entropy` by torch's own kernels at full size."""
    return (library_losses(logits, label) * weight).sum()


def _fused(logits: Tensor) -> ModuleType | None:
    """Return `utils.fused_cross_entropy`; None where it cannot serve the logits."""
    module = _usable_fused(logits.device)
    return module if module and module.takes(logits) else None


@functools.cache
def _usable_fused(device: torch.device) -> ModuleType | None:
    """Return `utils.fused_cross_entropy`; None where Triton is missing or cannot serve the
    device."""
    try:
        from utils import fused_cross_entropy  # needs Triton, which only torch's CUDA wheels have

        fused_cross_entropy.try_out(device)
    except Exception as error:  # Triton, the C compiler that it calls and CUDA raise many kinds
        print(f"Triton cannot be used ({error}): torch's own kernels compute the cross-entropy")
        return None
    return fused_cross_entropy


def library_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of every pixel, float32 [N, H, W], by torch's own kernels."""
    up = upsample(logits, label.shape[-2:])
    return F.cross_entropy(up, label.long(), reduction="none")


@torch.no_grad()
def banded_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Compute `library_losses` band by band of rows, without a gradient."""
    wide = widen(logits, label.shape[-1])
    losses = torch.empty(label.shape, device=logits.device)
    parts = list(bands(wide, label.shape[-2]))
    with torch.autocast(logits.device.type, enabled=False):
        for rows, classes, result in zip(wide, label, losses, strict=True):
            for inputs, outputs, mixing in parts:
                _, _, result[outputs] = _of_band(mixing @ rows[:, inputs], classes[outputs].long())
    return losses


@torch.no_grad()
def _hard(logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Return the valid pixels with a loss above -ln 0.7, and at least the hardest N·H·W/16 of
    all."""
    losses = _losses(logits, label) * valid
    at_least = max(1, int(losses.numel() * OHEM_MIN_SHARE))
    hardest = torch.topk(losses.flatten(), at_least, sorted=False).values
    return (losses >= hardest.min().clamp(max=OHEM_THRESHOLD)) & valid


class BandedCrossEntropy(Function):
    """Weighted sum of the cross-entropy of logits that are enlarged in height, over bands of rows.

    The gradient of a band is taken at once, so that nothing is kept for the backward pass.

    Takes logits, float32 [N, C, h, W]; classes, integers [N, H, W]; weights, float32 [N, H, W].
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        total, gradient = logits.new_zeros(()), torch.zeros_like(logits)
        parts = list(bands(logits, label.shape[-2]))
        with torch.autocast(logits.device.type, enabled=False):
            for rows, classes, weights, grad in zip(logits, label, weight, gradient, strict=True):
                for inputs, outputs, mixing in parts:
                    truth, weights_here = classes[outputs].long(), weights[outputs]
                    # One exponential serves the loss and its gradient.
                    slope, sums, losses = _of_band(mixing @ rows[:, inputs], truth)
                    total += (losses * weights_here).sum()
                    slope *= weights_here / sums
                    slope.scatter_add_(0, truth[None], -weights_here[None])
                    grad[:, inputs] += mixing.mT @ slope
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _of_band(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return e^(score - largest score) of each class [C, H, W], in place of the scores, the sums of
    these over the classes, and the cross-entropy of the true classes [H, W]."""
    scores -= scores.amax(0)
    of_truth = scores.gather(0, truth[None])[0]
    sums = scores.exp_().sum(0)
    return scores, sums, sums.log() - of_truth


def robust_entropy(logits: Tensor, eta: float) -> Tensor:
    """Return the Charbonnier penalty of the prediction's entropy (Yang & Soatto, CVPR 2020).

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
