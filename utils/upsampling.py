"""Enlarging logits, whole or band by band of rows.

Enlarged logits are 19 x H x W floats an image: what is done with them waits for the memory. A band
of their rows stays in the cache, and nothing else of that size is ever made.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""Of enlarged logits at a time: what stays in a core's cache, and what keeps a GPU busy."""


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [N, C, h, w] at another size, float32, bilinear with aligned corners."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=True)


def widen(logits: Tensor, width: int) -> Tensor:
    """Logits [N, C, h, w] at another width, float32: the half of `upsample` that needs no bands."""
    return upsample(logits, (logits.shape[-2], width))


def bands(wide: Tensor, height: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Input rows and output rows of each band, and the weights [out, in] that mix the former.

    Of widened logits [N, C, h, W] `weights @ wide[..., inputs, :]` are the output rows.
    """
    _, classes, rows, width = wide.shape
    scale = (rows - 1) / max(1, height - 1)
    at = torch.arange(height, device=wide.device, dtype=torch.float64) * scale
    distance = (at[:, None] - torch.arange(rows, device=wide.device)).abs()
    weights = (1 - distance).clamp(min=0).float()
    band = max(1, BAND_BYTES[wide.device.type] // (classes * width * wide.element_size()))
    for top in range(0, height, band):
        bottom = min(height, top + band)
        first, last = math.floor(top * scale), math.ceil((bottom - 1) * scale)
        inputs = slice(max(0, first - 1), last + 2)  # a row more, for the rounding of products
        yield inputs, slice(top, bottom), weights[top:bottom, inputs]


@torch.no_grad()
def upsampled_argmax(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """`upsample(scores, size).argmax(1)` of one image's scores [C, h, w], as uint8 [H, W].

    Where two classes are equal to the last bits the other one may be taken.
    """
    wide = widen(scores[None], size[1])
    classes = torch.zeros(size, dtype=torch.uint8, device=scores.device)
    with torch.autocast(scores.device.type, enabled=False):
        for inputs, outputs, weights in bands(wide, size[0]):
            first, *others = weights @ wide[0, :, inputs]
            best, chosen = first, classes[outputs]
            # Far cheaper than argmax, which walks along the classes pixel by pixel.
            for train_id, scores_here in enumerate(others, start=1):
                chosen.masked_fill_(scores_here > best, train_id)
                best = torch.maximum(best, scores_here)
    return classes
