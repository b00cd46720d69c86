"""Enlarging logits, whole or band by band of rows.

Enlarged logits are 19 x H x W floats an image: what is done with them waits for the memory. On a
CPU a band of their rows stays in the cache, and nothing else of that size is ever made. A GPU has
memory enough and no such cache, and every band would cost it dozens of kernels: it enlarges whole.
"""

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

BAND_BYTES = 2**22
"""Bytes of enlarged logits at a time, which stay in the cores' caches."""

BAND_ROWS = 48
"""Rows of a band, at most. Most weights that mix the rows of a taller band are zeros."""


def in_bands(scores: Tensor) -> bool:
    """Return whether scores are enlarged band by band: the one choice between a CPU's form and a
    GPU's."""
    return scores.device.type == "cpu"


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Enlarge logits [N, C, h, w] to another size, float32, bilinear with aligned corners."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=True)


def widen(logits: Tensor, width: int) -> Tensor:
    """Enlarge logits [N, C, h, w] to another width, float32: the half of `upsample` that needs no
    bands."""
    return upsample(logits, (logits.shape[-2], width))


def bands(wide: Tensor, height: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the input rows and output rows of each band, and the weights [out, in] that mix the
    former.

    Of widened logits [N, C, h, W] `weights @ wide[..., inputs, :]` are the output rows.
    """
    _, classes, rows, width = wide.shape
    scale = (rows - 1) / max(1, height - 1)
    at = torch.arange(height, device=wide.device, dtype=torch.float64) * scale
    distance = (at[:, None] - torch.arange(rows, device=wide.device)).abs()
    weights = (1 - distance).clamp(min=0).float()
    band = max(1, min(BAND_ROWS, BAND_BYTES // (classes * width * wide.element_size())))
    for top in range(0, height, band):
        bottom = min(height, top + band)
        first, last = math.floor(top * scale), math.ceil((bottom - 1) * scale)
        inputs = slice(max(0, first - 1), last + 2)  # a row more, for the rounding of products
        yield inputs, slice(top, bottom), weights[top:bottom, inputs]


def upsampled_softmax(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return `upsample(logits, size).softmax(1)` of logits [N, C, h, w], as a convolution takes it.

    Returns:
        Probabilities [N, C, H, W], channels last, in autocast's type where that is on.
    """
    device = logits.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else torch.float32
    if not in_bands(logits):
        # Over the last dimension the softmax takes channels last as they are, without a copy.
        up = upsample(logits.contiguous(memory_format=torch.channels_last), size)
        return up.permute(0, 2, 3, 1).softmax(-1).to(dtype).permute(0, 3, 1, 2)
    wide = widen(logits, size[1]).to(memory_format=torch.channels_last)
    return _BandedSoftmax.apply(wide, size[0], dtype)


class _BandedSoftmax(Function):
    """Softmax over the classes of logits that are enlarged in height, over bands of rows.

    Takes logits, float32 [N, C, h, W], channels last, as the result [N, C, H, W] will be. Only they
    are kept for the backward pass, which takes the softmax once more, in float32.
    """

    @staticmethod
    def forward(ctx: Any, wide: Tensor, height: int, dtype: torch.dtype) -> Tensor:
        count, classes, _, width = wide.shape
        size = (count, height, width, classes)
        result = torch.empty(size, dtype=dtype, device=wide.device).permute(0, 3, 1, 2)
        parts = list(bands(wide, height))
        with torch.autocast(wide.device.type, enabled=False):
            for rows, p in zip(_classes_last(wide), _classes_last(result), strict=True):
                for inputs, outputs, mixing in parts:
                    p[outputs] = _softmax(rows[inputs], mixing)
        ctx.save_for_backward(wide)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (wide,) = ctx.saved_tensors
        gradient = torch.zeros_like(wide)
        parts = list(bands(wide, upstream.shape[-2]))
        images = zip(*map(_classes_last, (wide, upstream, gradient)), strict=True)
        with torch.autocast(wide.device.type, enabled=False):
            for rows, slope, grad in images:
                for inputs, outputs, mixing in parts:
                    p = _softmax(rows[inputs], mixing)
                    slope_here = p * slope[outputs]
                    slope_here -= p * slope_here.sum(-1, keepdim=True)
                    grad[inputs] += (mixing.mT @ slope_here.flatten(1)).view_as(rows[inputs])
        return gradient, None, None


def _softmax(rows: Tensor, mixing: Tensor) -> Tensor:
    """Return the softmax [out, W, C] of rows of logits [in, W, C] that weights [out, in] mix."""
    return (mixing @ rows.flatten(1)).view(-1, *rows.shape[1:]).softmax(-1)


def _classes_last(x: Tensor) -> Tensor:
    """View [N, C, H, W] as [N, H, W, C], without a copy."""
    return x.permute(0, 2, 3, 1)


@torch.no_grad()
def upsampled_max(scores: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return `upsample(scores, size).max(1)` of one image's scores [C, h, w].

    The maxima are float32 [H, W], their classes uint8 [H, W]. Where two classes are equal to the
    last bits the other one may be taken.
    """
    if not in_bands(scores):
        largest, classes = upsample(scores[None], size)[0].max(0)
        return largest, classes.byte()
    wide = widen(scores[None], size[1])
    largest = torch.empty(size, device=scores.device)
    classes = torch.empty(size, dtype=torch.uint8, device=scores.device)
    with torch.autocast(scores.device.type, enabled=False):
        for inputs, outputs, weights in bands(wide, size[0]):
            largest[outputs] = _maximum(weights @ wide[0, :, inputs], classes[outputs])
    return largest, classes


@torch.no_grad()
def upsampled_confidence(logits: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return `upsample(logits, size).softmax(1).max(1)` of logits [N, C, h, w].

    Returns:
        The largest probability of each pixel, float32, and its class, uint8; [N, H, W] both. Where
        two classes are equal to the last bits the other one may be taken.
    """
    if not in_bands(logits):
        up = upsample(logits, size)
        best, classes = up.max(1)
        return (best - up.logsumexp(1)).exp(), classes.byte()
    wide = widen(logits, size[1])
    confidence = torch.empty(len(logits), *size, device=logits.device)
    classes = torch.empty(confidence.shape, dtype=torch.uint8, device=logits.device)
    parts = list(bands(wide, size[0]))
    with torch.autocast(logits.device.type, enabled=False):
        for rows, p, ids in zip(wide, confidence, classes, strict=True):
            for inputs, outputs, weights in parts:
                scores = weights @ rows[:, inputs]
                scores -= scores.amax(0)
                p[outputs] = 1 / scores.exp().sum(0)
                _maximum(scores, ids[outputs])
    return confidence, classes


@torch.no_grad()
def upsampled_mean_max(maps: Sequence[Tensor], size: Sequence[int], *, softmax: bool) -> Tensor:
    """Return the largest class of the mean of several scores of one image, each enlarged, and put
    through a `softmax` if asked, before they are averaged.

    Args:
        maps: [C, h, w] at resolutions of their own: logits, or probabilities as they are.

    Returns:
        uint8 [H, W].
    """
    if not in_bands(maps[0]):
        enlarged = (upsample(one[None], size)[0] for one in maps)
        summed = reduce(torch.add, (up.softmax(0) if softmax else up for up in enlarged))
        return summed.argmax(0).byte()
    wides = [widen(one[None], size[1]) for one in maps]
    classes = torch.empty(size, dtype=torch.uint8, device=maps[0].device)
    with torch.autocast(classes.device.type, enabled=False):
        # Of one width and number of classes, so that the bands are the same rows of the result.
        for parts in zip(*(bands(wide, size[0]) for wide in wides), strict=True):
            enlarged = (
                weights @ wide[0, :, inputs]
                for wide, (inputs, _, weights) in zip(wides, parts, strict=True)
            )
            scores = reduce(torch.add, (one.softmax(0) if softmax else one for one in enlarged))
            _, outputs, _ = parts[0]
            _maximum(scores, classes[outputs])
    return classes


def _maximum(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the largest of float scores [C, H, W], which are lost; write its class, the first of
    equal ones, into uint8 [H, W]."""
    best, last = scores.amax(0), len(scores) - 1
    # Far cheaper than argmax, which walks along the classes pixel by pixel: the first of the
    # classes that equal the largest has the highest rank.
    ranks = torch.arange(last, -1, -1, dtype=scores.dtype, device=scores.device)
    classes.copy_(last - scores.eq_(best).mul_(ranks[:, None, None]).amax(0))
    return best
