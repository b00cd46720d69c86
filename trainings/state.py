"""Everything that changes while training, so that it can be saved and continued."""

import copy
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.model_stages import BiSeNet
from utils.cli.settings import Settings
from utils.errors import UsageError, UserError

MOMENTUM = 0.9
POLY_POWER = 0.9
WARMUP_SHARE, MAX_WARMUP_STEPS = 0.05, 1000

MANY_STEPS = 1e6
"""After so many steps the factor 1 - 0.99^t of Adam's bias correction is 1."""

FIRST_LOSS_SCALE, LOSS_SCALE_GROWTH_STEPS = 2.0**12, 200
"""Under float16. At 2^13 the first steps of a training overflow, and each overflow is a step lost;
after 10 steps 2^16 is possible. torch doubles the scale every 2000 steps, whole trainings are
shorter; with 200 at most one step in 200 is lost."""


def network_optimizer(network: BiSeNet, settings: Settings) -> Optimizer:
    """The optimiser of `--optimizer`, heads at their own rate, norms and biases without decay."""
    groups = parameter_groups(
        network, settings.learning_rate, settings.head_lr_mult, settings.weight_decay
    )
    if settings.optimizer == "rmsprop":
        return RMSprop(groups)
    if settings.optimizer == "sgd":
        return _with_momenta(SGD(groups, momentum=MOMENTUM, fused=True))
    return {"adam": Adam, "adamw": AdamW}[settings.optimizer](groups, fused=True)


class RMSprop(optim.RMSprop):
    """torch's RMSprop, but under float16's loss scale the device itself skips a step, as in the
    fused SGD and Adam: for torch's own `GradScaler` waits for whether a gradient overflowed.

    `GradScaler.step` sets `grad_scale`, None where gradients are unscaled already, and `found_inf`.
    """

    _step_supports_amp_scaling = True

    def step(self, closure: None = None) -> None:
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None:
            super().step()
            return
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                if not (state := self.state[parameter]):
                    state.update(step=torch.zeros(()), square_avg=torch.zeros_like(parameter))
            if parameters:
                self._update(group, parameters, found_inf)

    @torch.no_grad()
    def _update(self, group: dict[str, Any], parameters: list[Tensor], found_inf: Tensor) -> None:
        """Adam whose first moment is the gradient and whose bias corrections are 1 is RMSprop."""
        gradients = [parameter.grad for parameter in parameters]
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
    """Starts the momenta at 0, which changes no update. Left to it, the fused optimiser takes
    memory as it is for them, to be filled by a first step, which float16's loss scaling may skip.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(
    network: BiSeNet, learning_rate: float, head_lr_mult: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Four groups: backbone and context or heads, decayed or not; the first is the backbone's."""
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


def poly(total_steps: int, warmup_steps: int = 0) -> Callable[[int], float]:
    """Factor on the learning rate of step t of T: a linear rise over W steps, then
    ((T - t) / (T - W))^0.9, which is 0 after the last step.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        remaining = (total_steps - step) / max(1, total_steps - warmup_steps)
        return max(0.0, remaining) ** POLY_POWER

    return factor


def default_warmup(total_steps: int) -> int:
    return min(MAX_WARMUP_STEPS, int(total_steps * WARMUP_SHARE))


class Schedule:
    """The learning rates of an optimiser's groups as a function of the step, which torch's own
    schedules are not: they count, and so need to be saved."""

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]):
        self.optimizer, self.factor = optimizer, factor
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(self, step: int) -> None:
        """Those of that step, which is counted from 0."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(step)


class RunningAverage:
    """m <- decay m + (1 - decay) w, of weights and norms' statistics, from the first update's on.

    Unlike torch's `AveragedModel` it leaves counters alone, and nothing waits for the device.

    Attributes:
        module: the averaged network.
    """

    def __init__(self, network: BiSeNet, decay: float):
        self.module = copy.deepcopy(network)
        self.updates = 0
        # Weights are updated and loaded in place, so that these lists stay those of the modules.
        self._floats = _floats(self.module), _floats(network)
        self._copy, self._average = get_ema_multi_avg_fn(0.0), get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Takes in the network as it is now."""
        step = self._average if self.updates else self._copy
        step(*self._floats, self.updates)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def _floats(network: BiSeNet) -> list[torch.Tensor]:
    tensors = chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


class TrainState:
    """A method in training: weights, optimisers, schedules, loss scale, step and curves.

    Attributes:
        average: the network's running average (`--ema_decay`), with its buffers'; None without one.
        step: updates done; the only clock.
        history: one row of scalars per finished epoch.
        sums: of the unfinished epoch's scalars by name, on the device.
        seconds: that its steps have taken.
        latest_rate: the learning rate of the latest step, of the network's backbone.
        best: scores of the best validation so far, with its epoch; None before the first.
        last: scores of the latest validation, likewise.
        last_average: those of the average, likewise.
    """

    def __init__(
        self, method: nn.Module, settings: Settings, *, steps_per_epoch: int, scale_loss: bool
    ):
        self.method = method
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * settings.num_epochs
        warmup = settings.warmup_steps
        warmup = default_warmup(self.total_steps) if warmup is None else warmup
        if warmup >= self.total_steps:
            raise UsageError(
                f"argument --warmup_steps: {warmup} is not below the {self.total_steps} steps of "
                "the whole training"
            )
        self.optimizers = method.optimizers(settings)
        # The warm-up is the network's; a discriminator has a schedule of its own.
        self.schedules = {
            name: Schedule(optimizer, poly(self.total_steps, warmup if name == "network" else 0))
            for name, optimizer in self.optimizers.items()
        }
        self.scaler = torch.amp.GradScaler(
            "cuda",
            init_scale=FIRST_LOSS_SCALE,
            growth_interval=LOSS_SCALE_GROWTH_STEPS,
            enabled=scale_loss,
        )
        self.clip_grad_norm = settings.clip_grad_norm
        decay = settings.ema_decay
        self.average = RunningAverage(method.network, decay) if decay else None
        self.step = 0
        self._set_rates()
        self.sums: dict[str, torch.Tensor] = {}
        self.seconds = 0.0
        self.latest_rate = self.learning_rate
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None
        self.last_average: dict[str, Any] | None = None

    @property
    def epoch(self) -> int:
        """Epochs finished, their validation included."""
        return len(self.history)

    @property
    def steps_left(self) -> int:
        """In the unfinished epoch."""
        return (self.epoch + 1) * self.steps_per_epoch - self.step

    @property
    def finished(self) -> bool:
        return self.epoch * self.steps_per_epoch >= self.total_steps

    def add(self, scalars: Mapping[str, torch.Tensor]) -> None:
        """Counts the scalars of a step into the epoch's sums."""
        self.sums = {name: self.sums.get(name, 0) + value for name, value in scalars.items()}

    def end_epoch(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        self.sums, self.seconds = {}, 0.0

    @property
    def learning_rate(self) -> float:
        """Of the network's backbone, in the step to come."""
        return self.optimizers["network"].param_groups[0]["lr"]

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the loss's gradient to what `update` will go down."""
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        """One step of every optimiser down the gradients, which are gone afterwards."""
        self.latest_rate = self.learning_rate
        for optimizer in self.optimizers.values():
            if self.clip_grad_norm:
                self.scaler.unscale_(optimizer)
                groups = optimizer.param_groups
                parameters = [p for group in groups for p in group["params"]]
                clip_grad_norm_(parameters, self.clip_grad_norm)
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        if self.average:
            self.average.update()
        self.step += 1
        self._set_rates()

    def _set_rates(self) -> None:
        for schedule in self.schedules.values():
            schedule.set_rates(self.step)

    def state_dict(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "total_steps": self.total_steps,
            "sums": self.sums,
            "seconds": self.seconds,
            "latest_rate": self.latest_rate,
            "history": self.history,
            "best": self.best,
            "last": self.last,
            "last_average": self.last_average,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["total_steps"] != self.total_steps:
            raise UserError(
                f"the run was planned for {state['total_steps']} steps, now it would be "
                f"{self.total_steps}: the data set has changed; restore it, or start afresh with "
                "--overwrite"
            )
        self.method.load_state_dict(state["method"])
        if self.average:
            self.average.load_state_dict(state["average"])
        device = next(self.method.parameters()).device
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        # A run may go on on another GPU, in another precision: fp16 alone has a scale.
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self._set_rates()
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.seconds, self.latest_rate = state["seconds"], state["latest_rate"]
        self.history, self.best, self.last = state["history"], state["best"], state["last"]
        self.last_average = state.get("last_average")
