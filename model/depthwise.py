"""Depthwise convolutions at stride 2, with gradients that a CPU computes fast in bfloat16."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight


class HalvingDepthwise(nn.Conv2d):
    """Depthwise convolution at stride 2 with padding 1, without a bias; in bfloat16 on a CPU with a
    gradient of its own.

    Args:
        channels: of input and output.
        kernel: the side of the kernel, 3 or 4.
    """

    def __init__(self, channels: int, kernel: int = 3):
        super().__init__(channels, channels, kernel, 2, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        plain = self.bias is not None or not x.requires_grad  # a folded norm leaves a bias
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not plain:
            dtype = torch.get_autocast_dtype("cpu")
            return DepthwiseWithFastGradient.apply(x.to(dtype), self.weight.to(dtype))
        return super().forward(x)


class DepthwiseWithFastGradient(Function):
    """The convolution of x [N, C, H, W] by weights [C, 1, k, k], k = 3 or 4, at stride 2.

    Its gradient for x is the upstream gradient, spread out with zeros to the size of x, convolved
    at stride 1. That is what a strided convolution's backward computes, but oneDNN has a fast path
    for it in bfloat16. For the weights of a 4x4 kernel it has a fast path in float32 alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, stride=2, padding=1, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight = ctx.needs_input_grad
        return (
            _slope(x, weight, upstream) if for_x else None,
            _weight_slope(x, weight, upstream) if for_weight else None,
        )


def _slope(x: Tensor, weight: Tensor, upstream: Tensor) -> Tensor:
    """Return the gradient for x."""
    (height, width), (rows, columns) = x.shape[-2:], upstream.shape[-2:]
    spread = torch.zeros_like(x)
    spread[:, :, : 2 * rows : 2, : 2 * columns : 2] = upstream
    flipped, padding = weight.flip(-1, -2), weight.shape[-1] - 2
    slope = F.conv2d(spread, flipped, padding=padding, groups=len(weight))
    return slope[:, :, :height, :width]


def _weight_slope(x: Tensor, weight: Tensor, upstream: Tensor) -> Tensor:
    """Return the gradient for the weights."""
    if weight.shape[-1] > 3:
        exact = torch.promote_types(x.dtype, torch.float32)
        x, upstream = x.to(exact), upstream.to(exact)
    groups = len(weight)
    slope = conv2d_weight(x, weight.shape, upstream, stride=2, padding=1, groups=groups)
    return slope.to(weight.dtype)
