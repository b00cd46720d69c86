"""Gradients that float16 would lose, taken at another scale through a part of a backward pass.

float16 holds nothing below 2^-24. One loss scale serves all terms of a loss, so that a term with a
small weight loses its gradient where one with a large weight is about to overflow. Its gradient
survives where the term is made 2^k times larger and the weights' gradients 2^k times smaller again,
once they are float32: powers of two round nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call


def lift_of(weight: float, device: torch.device) -> float:
    """Return 2^k for a term of this weight: under float16 autocast the one for which weight * 2^k
    is in [1, 2), else 1, as float32 and bfloat16 reach down to 2^-126."""
    if not torch.is_autocast_enabled(device.type):
        return 1.0
    if torch.get_autocast_dtype(device.type) != torch.float16:
        return 1.0
    _, exponent = math.frexp(weight)
    return math.ldexp(1.0, 1 - exponent)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x itself; the gradient that comes back through it is multiplied by the factor."""
    return x if factor == 1 else _ScaleGradient.apply(x, factor)


def call_with_scaled_weight_gradients(
    module: nn.Module, method: str, x: Tensor, factor: float
) -> Tensor:
    """Return `module.method(x)`; the gradients of this call for the module's weights are multiplied
    by the factor in the weights' own type."""
    if factor == 1:
        return getattr(module, method)(x)
    weights = {
        f"module.{name}": scale_gradient(weight, factor)
        for name, weight in module.named_parameters()
    }
    return functional_call(_Call(module, getattr(module, method)), weights, (x,))


class _Call(nn.Module):
    """A method of a module as a module's forward pass, which is what `functional_call` calls."""

    def __init__(self, module: nn.Module, method: Callable[[Tensor], Tensor]):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, x: Tensor) -> Tensor:
        return self.method(x)


class _ScaleGradient(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * upstream, None
