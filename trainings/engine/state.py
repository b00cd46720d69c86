"""Everything that changes while training, so that it can be saved and continued."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from datasets.labels import CLASS_TABLE
from model.average import MovingAverage
from model.network import Network
from trainings.engine.length import Length
from trainings.method import Method
from trainings.optimisers import Schedule, default_warmup, poly
from trainings.options import Settings
from utils.errors import UsageError, UserError

FIRST_LOSS_SCALE, LOSS_SCALE_GROWTH_STEPS = 2.0**12, 200
"""Under float16. At 2^13 the first steps of a training overflow, and each overflow is a step lost;
after 10 steps 2^16 is possible. torch doubles the scale every 2000 steps, whole trainings are
shorter; with 200 at most one step in 200 is lost."""


def network_content(network: Network) -> dict[str, Any]:
    """Return what a checkpoint holds of a network: its weights, and its classes."""
    return {"network": network.state_dict(), CLASS_TABLE: network.classes.recorded()}


def check_settings(method: type[Method], settings: Settings, total_steps: int) -> None:
    """Raise UsageError where the method cannot be trained so for so many steps."""
    if (settings.warmup_steps or 0) >= total_steps:
        raise UsageError(
            f"argument --warmup_steps: {settings.warmup_steps} is not below the {total_steps} "
            "steps of the whole training"
        )
    if settings.ema_decay and method.has_teacher:
        raise UsageError(
            "argument --ema_decay: the teacher of this method is such an average, which is scored "
            "and saved as ema.pth: leave the flag out"
        )


class TrainState:
    """A method in training: weights, optimisers, schedules, loss scale, step and curves.

    The settings are of those that `check_settings` lets through.

    Attributes:
        average: the network's moving average (`--ema_decay`); None without one.
        step: updates done; the only clock.
        length: total steps, rounds and epochs.
        history: one row of scalars per finished round.
        sums: sums of the unfinished round's scalars by name, on the device.
        skipped: how many of its steps the sums leave out, on the device.
        seconds: time that the steps of the unfinished round have taken.
        latest_rate: the learning rate of the latest step, of the network's backbone.
        best: scores of the best validation so far, with its epoch; None before the first.
        last: scores of the latest validation, likewise.
        last_average: those of the average, likewise.
    """

    def __init__(
        self, method: Method, settings: Settings, *, steps_per_epoch: int, scale_loss: bool
    ):
        self.method = method
        self.length = Length.of(settings, steps_per_epoch)
        self.total_steps = self.length.total_steps
        warmup = settings.warmup_steps
        warmup = default_warmup(self.total_steps) if warmup is None else warmup
        self.optimizers = method.optimizers()
        # Warm-up and exponent are the network's; a discriminator has a schedule of its own.
        factors = dict.fromkeys(self.optimizers, poly(self.total_steps))
        factors["network"] = poly(self.total_steps, warmup, settings.poly_power)
        self.schedules = {
            name: Schedule(optimizer, factors[name]) for name, optimizer in self.optimizers.items()
        }
        self.scaler = torch.amp.GradScaler(
            next(method.parameters()).device.type,
            init_scale=FIRST_LOSS_SCALE,
            growth_interval=LOSS_SCALE_GROWTH_STEPS,
            enabled=scale_loss,
        )
        self.clip_grad_norm = settings.clip_grad_norm
        decay = settings.ema_decay
        self.average = MovingAverage(method.network, decay) if decay else None
        self.step = 0
        self._set_rates()
        self.sums: dict[str, torch.Tensor] = {}
        self.skipped: torch.Tensor | int = 0
        self.seconds = 0.0
        self.latest_rate = self.learning_rate
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None
        self.last_average: dict[str, Any] | None = None

    @property
    def epoch(self) -> float:
        """Return the epochs trained, an int at the end of one."""
        return self.length.epoch_at(self.step)

    @property
    def scored_average(self) -> MovingAverage | None:
        """Return the average that is scored and saved beside the network: that of `--ema_decay`,
        or the teacher of a method that has one."""
        return self.method.teacher if self.method.has_teacher else self.average

    @property
    def rounds(self) -> int:
        """Return the number of finished rounds, whose validation is over, too."""
        return len(self.history)

    @property
    def steps_left(self) -> int:
        """Return the steps that are left in the unfinished round."""
        return self.length.end_of_round(self.rounds) - self.step

    @property
    def finished(self) -> bool:
        return self.rounds >= self.length.rounds

    def add(self, scalars: Mapping[str, torch.Tensor]) -> None:
        """Add the scalars of a step to the round's sums, unless the loss scale made it overflow."""
        if self.scaler.is_enabled():
            counts = scalars["loss"].isfinite()
            self.skipped = self.skipped + (~counts).long()
            scalars = {name: torch.where(counts, value, 0) for name, value in scalars.items()}
        self.sums = {name: self.sums.get(name, 0) + value for name, value in scalars.items()}

    def means(self, steps: int) -> dict[str, float]:
        """Return the means of the scalars over a round of `steps`; NaN where all overflowed."""
        counted = steps - int(self.skipped)
        return {
            name: value.item() / counted if counted else math.nan
            for name, value in self.sums.items()
        }

    def end_round(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        self.sums, self.skipped, self.seconds = {}, 0, 0.0

    @property
    def learning_rate(self) -> float:
        """Return the learning rate of the network's backbone in the next step."""
        return self.optimizers["network"].param_groups[0]["lr"]

    def backward(self, loss: torch.Tensor) -> None:
        """Add the loss's gradient to those that `update` will follow."""
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        """Take one step of every optimiser, drop the gradients, and call `Method.after_step`."""
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
        with torch.no_grad():
            self.method.after_step()
        if self.average:
            self.average.update(self.method.network)
        self.step += 1
        self._set_rates()

    def _set_rates(self) -> None:
        for schedule in self.schedules.values():
            schedule.set_rates(self.step)

    def state_dict(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            CLASS_TABLE: self.method.network.classes.recorded(),
            "average": self.average and self.average.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "total_steps": self.total_steps,
            "sums": self.sums,
            "skipped": int(self.skipped),
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
            self.average.load_state_dict(_flat(state["average"]))
        device = next(self.method.parameters()).device
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        # A run may go on on another GPU, in another precision: fp16 alone has a scale.
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
            self.scaler.set_growth_interval(LOSS_SCALE_GROWTH_STEPS)  # older runs have torch's
        self.step = state["step"]
        self._set_rates()
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.skipped = state.get("skipped", 0)
        self.seconds, self.latest_rate = state["seconds"], state["latest_rate"]
        self.history, self.best, self.last = state["history"], state["best"], state["last"]
        self.last_average = state.get("last_average")


def _flat(average: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a `MovingAverage`. In older checkpoints the network's tensors lie in a
    dictionary of their own, and the count of updates is an int."""
    if "module" not in average:
        return dict(average)
    module = {f"module.{name}": tensor for name, tensor in average["module"].items()}
    return {**module, "updates": torch.tensor(average["updates"])}
