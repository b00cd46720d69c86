"""Everything that changes while training, so that it can be saved and continued."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.model_stages import BiSeNet
from utils.errors import UsageError, UserError
from utils.settings import Settings

MOMENTUM = 0.9
POLY_POWER = 0.9
WARMUP_SHARE, MAX_WARMUP_STEPS = 0.05, 1000


def network_optimizer(network: BiSeNet, settings: Settings) -> Optimizer:
    """The optimiser of `--optimizer`, heads at their own rate, norms and biases without decay."""
    groups = parameter_groups(
        network, settings.learning_rate, settings.head_lr_mult, settings.weight_decay
    )
    if settings.optimizer == "rmsprop":
        return RMSprop(groups)
    if settings.optimizer == "sgd":
        return SGD(groups, momentum=MOMENTUM, fused=True)
    return {"adam": Adam, "adamw": AdamW}[settings.optimizer](groups, fused=True)


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
        self.schedules = {
            # The warm-up is the network's; a discriminator has a schedule of its own.
            name: LambdaLR(optimizer, poly(self.total_steps, warmup if name == "network" else 0))
            for name, optimizer in self.optimizers.items()
        }
        self.scaler = torch.amp.GradScaler("cuda", enabled=scale_loss)
        self.clip_grad_norm = settings.clip_grad_norm
        self.average = _average(method.network, settings.ema_decay)
        self.step = 0
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
        for schedule in self.schedules.values():
            schedule.step()
        if self.average:
            self.average.update_parameters(self.method.network)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "schedules": {name: s.state_dict() for name, s in self.schedules.items()},
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
            self.schedules[name].load_state_dict(state["schedules"][name])
        # A run may go on on another GPU, in another precision: fp16 alone has a scale.
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.seconds, self.latest_rate = state["seconds"], state["latest_rate"]
        self.history, self.best, self.last = state["history"], state["best"], state["last"]
        self.last_average = state.get("last_average")


def _average(network: BiSeNet, decay: float) -> AveragedModel | None:
    """m <- decay m + (1 - decay) w, from the first update's weights on."""
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
