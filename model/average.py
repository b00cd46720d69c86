"""The moving average of a network: the weights of `--ema_decay`, and teachers of methods."""

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.network import Network


class MovingAverage(nn.Module):
    """m <- decay m + (1 - decay) w, for weights and the statistics of norms; first m <- w.

    A method that owns one as a child module need only call `update` in its `after_step`: saving,
    resuming and moving to the device follow from that. The copy has no gradient, so that no
    optimiser touches it, and processes do not exchange it.

    Unlike torch's `AveragedModel` it leaves the counters of norms alone, and an update never waits
    for the device.

    Args:
        network: the network to copy; its later weights come in by `update`.
        decay: share of the old average in the new one.
        batch_statistics: normalise with the statistics of each batch, as teachers often do, and
            leave the averaged statistics as they are. Without it the copy is in evaluation mode.
        rising: start with smaller decays: min(1 - 1/(t + 1), decay) in update t = 0, 1, ..., which
            is the plain mean of the networks until that reaches `decay`.

    Attributes:
        module: the averaged network.
        updates: how often `update` was called; int64, saved with the average.
    """

    module: Network
    updates: Tensor

    def __init__(
        self,
        network: Network,
        decay: float,
        *,
        batch_statistics: bool = False,
        rising: bool = False,
    ):
        super().__init__()
        self.decay, self.batch_statistics, self.rising = decay, batch_statistics, rising
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._updates = 0  # like `updates`, but the host knows it without asking the device
        if batch_statistics:
            for norm in self._norms():
                norm.momentum = 0.0
        self.train()

    def train(self, mode: bool = True) -> "MovingAverage":
        """Leave the copy in evaluation mode, but for norms that use the statistics of a batch."""
        super().train(mode)
        self.module.eval()
        for norm in self._norms():
            norm.train(self.batch_statistics)
        return self

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [norm for norm in self.module.modules() if isinstance(norm, nn.BatchNorm2d)]

    def update(self, network: nn.Module) -> None:
        """Take in the weights and statistics of the network as they are now."""
        blend = get_ema_multi_avg_fn(self._next_decay())
        blend(_floats(self.module), _floats(network), self.updates)
        self.updates += 1
        self._updates += 1

    def _next_decay(self) -> float:
        """Return the decay of the update to come; the first update copies the network."""
        mean = 1 - 1 / (self._updates + 1)
        return min(mean, self.decay) if self.rising or not self._updates else self.decay

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._updates = int(self.updates)


def _floats(network: nn.Module) -> list[Tensor]:
    tensors = chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
