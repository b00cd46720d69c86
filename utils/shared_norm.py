"""Batch norm over the images of all processes, each of which has equally many.

With m and v the mean and the biased variance of x over all images and pixels, n their number and g
the gradient of y:

x^ = (x - m) / sqrt(v + eps)
y  = w x^ + b
dx = w / sqrt(v + eps) * (g - (sum g + x^ sum g x^) / n)

A forward pass needs one all-reduce and a backward pass another. Unlike torch's `SyncBatchNorm` this
runs on a CPU too, and selects nothing by a mask, for which the host would wait for the device.
"""

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from utils import processes

Module = TypeVar("Module", bound=nn.Module)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics are those of all processes while it trains."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            mean, variance = self._statistics(x)
            count = _values(x)
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and biased variance of each channel over all processes, [C], float32 or
        wider.

        Every process adds its own moments to a row of its own, so that the sum over the processes
        is a table of all moments. The total variance is the mean of the variances plus the variance
        of the means: no difference of large numbers is taken, whatever the mean is.
        """
        own = _moments(x)
        table = own.new_zeros(processes.count(), *own.shape)
        table[processes.rank()] = own
        means, variances = processes.total(table).unbind(1)
        return means.mean(0), variances.mean(0) + means.var(0, correction=0)


@torch.library.custom_op("shared_norm::moments", mutates_args=())
def _moments(x: Tensor) -> Tensor:
    """Return mean and biased variance of each channel, [2, C], float32 or wider.

    The library function reads x once and writes nothing of its size. It computes in the type of the
    running statistics, which stay as they are at a momentum of 0.
    """
    running_mean, running_variance = _empty_moments(x).zero_()
    return torch.stack(torch.batch_norm_update_stats(x, running_mean, running_variance, 0.0))


@_moments.register_fake
def _empty_moments(x: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(2, x.shape[1], dtype=dtype)


class _Normalise(Function):
    """w (x - m) / sqrt(v + eps) + b, with the gradient that also goes through m and v.

    Both passes are built of the norm with given statistics, which is one kernel for all types.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        # CUDA's kernels take the last two statistics, a CPU's those before them.
        statistics = (mean, variance, mean, inverse)
        slope, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            upstream, x, weight, *statistics, False, ctx.eps, [True, True, True]
        )
        sum_gx, sum_g = processes.total(torch.stack([of_weight, of_bias])).unbind()
        factor = weight * inverse / _values(x)
        through = F.batch_norm(x, mean, variance, factor * sum_gx, factor * sum_g, eps=ctx.eps)
        return slope - through, of_weight, of_bias, None, None, None


def _values(x: Tensor) -> int:
    """Return the number of values of a channel in the batches of all processes."""
    return processes.count() * (x.numel() // x.shape[1])


def synchronised(module: Module) -> Module:
    """Return the module, whose batch norms see the batches of all processes from now on."""
    if processes.count() > 1:
        _turn_norms_of(module, SharedBatchNorm2d)
    return module


def separated(module: Module) -> Module:
    """Return a copy of the module whose batch norms see the batches of their own process."""
    module = copy.deepcopy(module)
    _turn_norms_of(module, nn.BatchNorm2d)
    return module


def _turn_norms_of(module: nn.Module, kind: type[nn.BatchNorm2d]) -> None:
    """Change the class of the norms. Both classes hold the same, so weights and statistics stay."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.__class__ = kind
