"""The moving average of a network's weights."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.model_stages import BiSeNet


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
