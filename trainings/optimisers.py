"""Optimisers, their parameter groups, and learning rates as a function of the step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim
from torch.optim import SGD, Adam, AdamW, Optimizer

from model.network import Network
from trainings.options import StepOptions

MOMENTUM = 0.9
POLY_POWER = 0.9
WARMUP_SHARE, MAX_WARMUP_STEPS = 0.05, 1000

MANY_STEPS = 1e6
"""After so many steps the factor 1 - 0.99^t of Adam's bias correction is 1."""


def network_optimizer(network: Network, options: StepOptions) -> Optimizer:
    """Return the optimiser of `--optimizer`, heads at their own rate, norms and biases without
    decay."""
    groups = parameter_groups(
        network, options.learning_rate, options.head_lr_mult, options.weight_decay
    )
    if options.optimizer == "rmsprop":
        return RMSprop(groups)
    if options.optimizer == "sgd":
        return _with_momenta(SGD(groups, momentum=MOMENTUM, fused=True))
    return {"adam": Adam, "adamw": AdamW}[options.optimizer](groups, fused=True)


class RMSprop(optim.RMSprop):
    """torch's RMSprop, but under float16's loss scale the device itself skips a step, as in the
    fused SGD and Adam: for torch's own `GradScaler` waits for whether a gradient overflowed.

    `GradScaler.step` sets `grad_scale`, None where gradients are unscaled already, and `found_inf`.
    """

    _step_supports_amp_scaling = True
    grad_scale: Tensor | None

    def step(self, closure: Any = None) -> Any:
        """Make the update, unless the device finds an overflow."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None:
            return super().step(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                if not (state := self.state[parameter]):
                    state.update(step=torch.zeros(()), square_avg=torch.zeros_like(parameter))
            if parameters:
                self._update(group, parameters, found_inf)
        return None

    @torch.no_grad()
    def _update(self, group: dict[str, Any], parameters: list[Tensor], found_inf: Tensor) -> None:
        """Make an update: Adam whose first moment is the gradient and whose bias corrections are 1
        is RMSprop."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        many = torch.full((), MANY_STEPS, device=found_inf.device)
        torch._fused_adam_(
            parameters,
            gradients,
            gradients,  # no first moment: beta1 is 0
            [self.state[parameter]["square_avg"] for parameter in parameters],
            [],
            [many] * len(parameters),
            lr=group["lr"],
            beta1=0.0,
            beta2=group["alpha"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=self.grad_scale,
            found_inf=found_inf,
        )


def _with_momenta(optimizer: SGD) -> SGD:
    """Start the momenta at 0, which changes no update. Otherwise the fused optimiser takes
    uninitialised memory for them, to be filled by a first step, which float16's loss scaling may
    skip."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(
    network: Network, learning_rate: float, head_lr_mult: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return four groups: backbone and context or heads, decayed or not; the first is the
    backbone's."""
    heads = {id(parameter) for parameter in network.head_parameters()}
    groups = []
    for in_head, rate in ((False, learning_rate), (True, learning_rate * head_lr_mult)):
        for is_norm_or_bias, decay in ((False, weight_decay), (True, 0.0)):
            parameters = [
                p
                for p in network.parameters()
                if (id(p) in heads) == in_head and (p.ndim <= 1) == is_norm_or_bias
            ]
            groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return groups


def poly(
    total_steps: int, warmup_steps: int = 0, power: float = POLY_POWER
) -> Callable[[int], float]:
    """Return the factor on the learning rate of step t of T.

    It rises linearly over W steps and then is ((T - t) / (T - W))^power, 0 after the last step.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        remaining = (total_steps - step) / max(1, total_steps - warmup_steps)
        return max(0.0, remaining) ** power

    return factor


def default_warmup(total_steps: int) -> int:
    """Return the steps of the warm-up of a training of so many steps."""
    return min(MAX_WARMUP_STEPS, int(total_steps * WARMUP_SHARE))


class Schedule:
    """The learning rates of an optimiser's groups as a function of the step, which torch's own
    schedules are not: they count, and so need to be saved."""

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]):
        self.optimizer, self.factor = optimizer, factor
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(self, step: int) -> None:
        """Set the learning rates of a step; steps count from 0."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(step)
