"""Triton kernels for CUDA that enlarge logits and compute their cross-entropy.

The first stores nothing of full size. Each program enlarges two neighbouring rows of logits in
width and keeps up to 32 of their columns in registers. It loops over the output rows between them,
mixes the two there, and adds up the loss and what these output rows contribute to the gradient of
either row. Each result is written by one program alone, without atomics, and has the same bits in
every run. The second kernel adds the two contributions to each row and reduces them to the width of
the logits. `fused_losses`, for OHEM, lets the first kernel store the loss of each pixel instead.

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

WARPS = 2
"""Warps whose threads share a tile, so that a thread keeps its part of the tile in registers on
every GPU. On an H200, 4 warps took 1.17 times as long, and 8 took 1.88 times."""

BLOCK = 256
"""Numbers of the narrowed gradient that a program writes."""

NO_CLASS = -1e30
"""Logit of the classes that only round up their number; finite, so that no difference is NaN."""

CAPABILITY = (7, 0)
"""CUDA compute capability from which Triton has kernels."""


def try_out(device: torch.device) -> None:
    """Compile and launch each kernel once. Raises where that fails, of many kinds."""
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        raise NotImplementedError("it needs compute capability {}.{}".format(*CAPABILITY))
    logits = torch.zeros(1, 2, 2, 2, device=device)
    fused_cross_entropy(logits, logits[:, 0].int(), logits[:, 0])
    fused_losses(logits, logits[:, 0].int())


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


@torch.no_grad()
def fused_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of every pixel, float32 [N, H, W], without a gradient.

    Args:
        logits: as for `fused_cross_entropy`.
        label: classes, integers 0 to C - 1 [N, H, W].
    """
    return _losses(logits, label.contiguous())


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


@torch.library.custom_op("fused_cross_entropy::losses", mutates_args=())
def _losses(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of every pixel, float32 [N, H, W]."""
    losses = _empty_losses(logits, label)
    _run(logits, label, None, losses, None)
    return losses


@_losses.register_fake
def _empty_losses(logits: Tensor, label: Tensor) -> Tensor:
    return logits.new_empty(label.shape, dtype=torch.float32)


@torch.library.custom_op("fused_cross_entropy::losses_and_gradient", mutates_args=())
def _losses_and_gradient(logits: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return each program's loss, float32 [N, h, tiles], and the gradient of the logits that are
    enlarged in width, float32 [2, N, C, h, W]: the share of each row's program in the gradient of
    its own row, and in that of the row below."""
    losses, gradient = _empty_results(logits, label, weight)
    _run(logits, label, weight, losses, gradient)
    return losses, gradient


@_losses_and_gradient.register_fake
def _empty_results(logits: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    count, classes, rows, _ = logits.shape
    width = label.shape[-1]
    losses = weight.new_empty(count, rows, triton.cdiv(width, COLUMNS))
    return losses, weight.new_empty(2, count, classes, rows, width)


def _run(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    losses: Tensor,
    gradient: Tensor | None,
) -> None:
    """Fill in the losses and their gradient; without it the loss of each pixel."""
    count, classes, rows, columns = logits.shape
    height, width = label.shape[-2:]
    _cross_entropy_kernel[(triton.cdiv(width, COLUMNS), rows, count)](
        *(logits, label, weight, losses, gradient),
        *logits.stride(),
        *(classes, rows, height, width),
        *(_last(rows, height), _last(columns, width)),
        OF_EACH_PIXEL=gradient is None,
        CLASSES=triton.next_power_of_2(classes),
        COLUMNS=COLUMNS,
        NO_CLASS=NO_CLASS,
        num_warps=WARPS,
    )


@torch.library.custom_op("fused_cross_entropy::narrowed", mutates_args=())
def _narrowed(wide: Tensor, columns: int) -> Tensor:
    """Return the gradient of logits [N, C, h, w], given both parts of that of the logits that are
    enlarged in width, float32 [2, N, C, h, W]."""
    narrow = _empty_narrow(wide, columns)
    rows, width = wide.shape[-2:]
    last = _last(columns, width)
    reach = triton.cdiv(2 * (width - 1), last) if last else width  # outputs of an input, at most
    _narrowing_kernel[(triton.cdiv(narrow.numel(), BLOCK),)](
        wide, narrow, narrow.numel(), rows, columns, width, last, reach, BLOCK=BLOCK
    )
    return narrow


@_narrowed.register_fake
def _empty_narrow(wide: Tensor, columns: int) -> Tensor:
    return wide.new_empty(*wide.shape[1:-1], columns)


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


@triton.jit
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
    OF_EACH_PIXEL: tl.constexpr,
    CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
    NO_CLASS: tl.constexpr,
):
    tile, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    index, x = tl.arange(0, CLASSES), tile * COLUMNS + tl.arange(0, COLUMNS)
    inside = x < width
    mask = (index < classes)[:, None] & inside[None, :]

    logits += image * image_stride
    own, other = _wide_rows(
        logits + row * row_stride,
        logits + tl.minimum(row + 1, rows - 1) * row_stride,
        class_stride,
        column_stride,
        classes,
        width,
        last_column,
        CLASSES,
        COLUMNS,
        NO_CLASS,
    )
    own_slope = tl.zeros((CLASSES, COLUMNS), tl.float32)
    other_slope = tl.zeros((CLASSES, COLUMNS), tl.float32)
    loss = tl.zeros((COLUMNS,), tl.float32)
    row_divisor = tl.maximum(height - 1, 1)
    first = _at(row, last_row, height)
    for y in range(first, tl.where(row == last_row, height, _at(row + 1, last_row, height))):
        pixels = image * height * width + y * width + x
        truth = index[:, None] == tl.load(label + pixels, inside, 0).to(tl.int32)[None, :]
        share = 1 - (y * last_row - row * row_divisor) / row_divisor
        scores = own * share + other * (1 - share)
        scores -= tl.max(scores, 0)[None, :]
        of_truth = tl.sum(tl.where(truth, scores, 0.0), 0)
        exponentials = tl.exp(scores)
        sums = tl.sum(exponentials, 0)
        losses_here = tl.log(sums) - of_truth
        if OF_EACH_PIXEL:
            tl.store(losses + pixels, losses_here, inside)
        else:
            weights = tl.load(weight + pixels, inside, 0.0)
            loss += weights * losses_here
            slope = exponentials * (weights / sums)[None, :]
            slope -= tl.where(truth, weights[None, :], 0.0)
            own_slope += share * slope
            other_slope += (1 - share) * slope
    if not OF_EACH_PIXEL:
        tl.store(losses + (image * rows + row) * tl.num_programs(0) + tile, tl.sum(loss, 0))
        gradient += ((image * classes + index[:, None]) * rows + row) * width + x[None, :]
        tl.store(gradient, own_slope, mask)
        below = tl.num_programs(2).to(tl.int64) * classes * rows * width
        tl.store(gradient + below, other_slope, mask)


@triton.jit
def _wide_rows(
    upper,
    lower,
    class_stride,
    column_stride,
    classes,
    width,
    last_column,
    CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
    NO_CLASS: tl.constexpr,
):
    """Load a tile [CLASSES, COLUMNS] of each of two rows of logits, enlarged in width.

    Loaded as vectors, so that every version of Triton gives the threads of a warp neighbouring
    columns: sums over the classes of one column then cross few threads.
    """
    place = tl.arange(0, CLASSES * COLUMNS)
    index, x = place // COLUMNS, tl.program_id(0) * COLUMNS + place % COLUMNS
    mask, divisor = (index < classes) & (x < width), tl.maximum(width - 1, 1)
    left, right_share = x * last_column // divisor, (x * last_column % divisor) / divisor
    left_at = index * class_stride + left * column_stride
    right_at = index * class_stride + tl.minimum(left + 1, last_column) * column_stride
    own = tl.load(upper + left_at, mask, 0.0).to(tl.float32) * (1 - right_share)
    own += tl.load(upper + right_at, mask, 0.0).to(tl.float32) * right_share
    other = tl.load(lower + left_at, mask, 0.0).to(tl.float32) * (1 - right_share)
    other += tl.load(lower + right_at, mask, 0.0).to(tl.float32) * right_share
    shape: tl.constexpr = (CLASSES, COLUMNS)
    own = tl.reshape(tl.where(mask, own, NO_CLASS), shape)
    return own, tl.reshape(tl.where(mask, other, NO_CLASS), shape)


@triton.jit
def _narrowing_kernel(wide, narrow, size, rows, columns, width, last, reach, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = place // columns, place % columns
    own = wide + row.to(tl.int64) * width
    from_above = own + (size // columns - 1).to(tl.int64) * width  # part two, a row earlier
    first = tl.where(column > 0, _beyond(column - 1, last, width), 0)
    divisor = tl.maximum(width - 1, 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(reach):
        x = first + step
        distance = tl.abs(x * last - column * divisor)
        mixed_in = (place < size) & (x < width) & (distance < divisor)
        slope = tl.load(own + x, mixed_in, 0.0)
        slope += tl.load(from_above + x, mixed_in & (row % rows > 0), 0.0)
        total += (1 - distance / divisor) * slope
    tl.store(narrow + place, total, place < size)
