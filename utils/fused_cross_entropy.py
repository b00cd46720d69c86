"""One Triton kernel for CUDA that enlarges logits and computes their cross-entropy.

It stores nothing of full size. Each program enlarges one row of logits in width and keeps up to 32
of its columns in registers. It loops over the output rows that this row is mixed into, mixes there
with the row above or below, and adds up its own row's share of the gradient; the loss of an output
pixel is added by the row above the pixel. Each output pixel is therefore computed twice, but each
result is written by one program alone, without atomics, and has the same bits in every run. A
second kernel reduces the gradient to the width of the logits.

Corners are aligned: output x lies at x * last / (outputs - 1) of the input, where last is the last
input's index, or 0 for a single output. Integer arithmetic finds the input and the remainder.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

MAX_CLASSES = 32
"""With more, the tiles of a program leave the registers."""

COLUMNS = 32
"""Width of a program's tile; its height is the number of classes, up to a power of two."""

WARPS = 4
"""Warps whose threads share a tile. With 4, a thread keeps its part of the tile in at most 128
registers on every GPU; 8 warps on 64 columns took 1.45 times as long on an H200."""

BLOCK = 256
"""Numbers of the narrowed gradient that a program writes."""

NO_CLASS = -1e30
"""Logit of the classes that only round up their number; finite, so that no difference is NaN."""

CAPABILITY = (7, 0)
"""CUDA compute capability from which Triton has kernels."""


def try_out(device: torch.device) -> None:
    """Compile and launch the kernels once. Raises where that fails, of many kinds."""
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        raise NotImplementedError("it needs compute capability {}.{}".format(*CAPABILITY))
    logits = torch.zeros(1, 2, 2, 2, device=device)
    fused_cross_entropy(logits, logits[:, 0].int(), logits[:, 0])


def takes(logits: Tensor) -> bool:
    """Return whether the logits [N, C, h, w] have no more classes than the kernels are made for."""
    return logits.shape[1] <= MAX_CLASSES


def fused_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sum of the cross-entropy of logits enlarged to the label's size.

    Args:
        logits: floating [N, C, h, w] of up to `MAX_CLASSES` classes; taken as float32.
        label: classes, any integers [N, H, W]; anything where the weight is 0.
        weight: float32 [N, H, W].

    Returns:
        Scalar, float32.
    """
    return _FusedCrossEntropy.apply(logits, label.contiguous(), weight.contiguous())


class _FusedCrossEntropy(Function):
    """The forward pass computes the gradient too, so that only that of the logits is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        losses, gradient = _losses_and_gradient(logits, label, weight)
        ctx.save_for_backward(_narrowed(gradient, logits.shape[-1]))
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


@torch.library.custom_op("fused_cross_entropy::losses_and_gradient", mutates_args=())
def _losses_and_gradient(logits: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return each program's loss, float32 [N, h, tiles], and the gradient of the logits that are
    enlarged in width, float32 [N, C, h, W]."""
    losses, gradient = _empty_results(logits, label, weight)
    count, classes, rows, columns = logits.shape
    height, width = label.shape[-2:]
    _cross_entropy_kernel[(losses.shape[-1], rows, count)](
        *(logits, label, weight, losses, gradient),
        *logits.stride(),
        *(classes, rows, height, width),
        *(_last(rows, height), _last(columns, width)),
        CLASSES=triton.next_power_of_2(classes),
        COLUMNS=COLUMNS,
        NO_CLASS=NO_CLASS,
        num_warps=WARPS,
    )
    return losses, gradient


@_losses_and_gradient.register_fake
def _empty_results(logits: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    count, classes, rows, _ = logits.shape
    width = label.shape[-1]
    losses = weight.new_empty(count, rows, triton.cdiv(width, COLUMNS))
    return losses, weight.new_empty(count, classes, rows, width)


@torch.library.custom_op("fused_cross_entropy::narrowed", mutates_args=())
def _narrowed(wide: Tensor, columns: int) -> Tensor:
    """Return the gradient of logits [..., w], given that of the enlarged ones, float32 [..., W]."""
    narrow = _empty_narrow(wide, columns)
    width = wide.shape[-1]
    last = _last(columns, width)
    reach = triton.cdiv(2 * (width - 1), last) if last else width  # outputs of an input, at most
    _narrowing_kernel[(triton.cdiv(narrow.numel(), BLOCK),)](
        wide, narrow, narrow.numel(), columns, width, last, reach, BLOCK=BLOCK
    )
    return narrow


@_narrowed.register_fake
def _empty_narrow(wide: Tensor, columns: int) -> Tensor:
    return wide.new_empty(*wide.shape[:-1], columns)


def _last(size: int, enlarged: int) -> int:
    """Return the index of the input at which the last output lies."""
    return size - 1 if enlarged > 1 else 0


@triton.jit
def _at(index, last, outputs):
    """Return the first output at or beyond an input's index."""
    return tl.cdiv(index * (outputs - 1), tl.maximum(last, 1))


@triton.jit
def _beyond(index, last, outputs):
    """Return the first output beyond an input's index."""
    return index * (outputs - 1) // tl.maximum(last, 1) + 1


@triton.jit(do_not_specialize=["class_stride"])  # so that a tile's layout suits its columns
def _cross_entropy_kernel(
    logits,
    label,
    weight,
    losses,
    gradient,
    image_stride,
    class_stride,
    row_stride,
    column_stride,
    classes,
    rows,
    height,
    width,
    last_row,
    last_column,
    CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
    NO_CLASS: tl.constexpr,
):
    tile, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    index = tl.arange(0, CLASSES)
    x = tile * COLUMNS + tl.arange(0, COLUMNS)
    inside, divisor = x < width, tl.maximum(width - 1, 1)
    left, right_share = x * last_column // divisor, (x * last_column % divisor) / divisor
    right = tl.minimum(left + 1, last_column)

    logits += image * image_stride + index[:, None] * class_stride
    mask = (index < classes)[:, None] & inside[None, :]
    pixels = image * height * width + x
    label += pixels
    weight += pixels

    own = _wide_row(
        logits + row * row_stride, left, right, right_share, column_stride, mask, NO_CLASS
    )
    slope = tl.zeros((CLASSES, COLUMNS), tl.float32)
    loss = tl.zeros((COLUMNS,), tl.float32)
    row_divisor = tl.maximum(height - 1, 1)
    first = _at(row, last_row, height)

    above = tl.maximum(row - 1, 0)
    other = _wide_row(
        logits + above * row_stride, left, right, right_share, column_stride, mask, NO_CLASS
    )
    for y in range(_beyond(above, last_row, height), first):
        share = (y * last_row - above * row_divisor) / row_divisor
        _, part = _pixels(own, other, share, label + y * width, weight + y * width, inside, index)
        slope += part

    below = tl.minimum(row + 1, rows - 1)
    other = _wide_row(
        logits + below * row_stride, left, right, right_share, column_stride, mask, NO_CLASS
    )
    for y in range(first, tl.where(row == last_row, height, _at(row + 1, last_row, height))):
        share = 1 - (y * last_row - row * row_divisor) / row_divisor
        losses_here, part = _pixels(
            own, other, share, label + y * width, weight + y * width, inside, index
        )
        loss += losses_here
        slope += part

    tl.store(losses + (image * rows + row) * tl.num_programs(0) + tile, tl.sum(loss, 0))
    gradient += ((image * classes + index[:, None]) * rows + row) * width + x[None, :]
    tl.store(gradient, slope, mask)


@triton.jit
def _wide_row(row, left, right, right_share, stride, mask, NO_CLASS: tl.constexpr):
    """Load a tile [CLASSES, COLUMNS] of one row of logits, enlarged in width."""
    a = tl.load(row + left[None, :] * stride, mask, 0.0).to(tl.float32)
    b = tl.load(row + right[None, :] * stride, mask, 0.0).to(tl.float32)
    return tl.where(mask, a * (1 - right_share)[None, :] + b * right_share[None, :], NO_CLASS)


@triton.jit
def _pixels(own, other, share, label, weight, inside, index):
    """Return a tile of one output row: the weighted losses, and their gradient for the row of
    logits that is mixed in with this share; [COLUMNS] and [CLASSES, COLUMNS]."""
    truth = index[:, None] == tl.load(label, inside, 0).to(tl.int32)[None, :]
    weights = tl.load(weight, inside, 0.0)
    scores = own * share + other * (1 - share)
    scores -= tl.max(scores, 0)[None, :]
    of_truth = tl.sum(tl.where(truth, scores, 0.0), 0)
    exponentials = tl.exp(scores)
    sums = tl.sum(exponentials, 0)
    slope = exponentials * (weights * share / sums)[None, :]
    slope -= tl.where(truth, (weights * share)[None, :], 0.0)
    return weights * (tl.log(sums) - of_truth), slope


@triton.jit
def _narrowing_kernel(wide, narrow, size, columns, width, last, reach, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = place // columns, place % columns
    wide += row.to(tl.int64) * width
    first = tl.where(column > 0, _beyond(column - 1, last, width), 0)
    divisor = tl.maximum(width - 1, 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(reach):
        x = first + step
        distance = tl.abs(x * last - column * divisor)
        mixed_in = (place < size) & (x < width) & (distance < divisor)
        total += (1 - distance / divisor) * tl.load(wide + x, mixed_in, 0.0)
    tl.store(narrow + place, total, place < size)
