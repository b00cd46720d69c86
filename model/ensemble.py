"""Several networks as one: FDA's multi-band transfer, MBT (Yang & Soatto, CVPR 2020).

p = 1/M sum_m softmax(phi_m(x))
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from model.network import Network


class Ensemble(nn.Module):
    """The mean of the networks' class probabilities (not of their logits).

    Args:
        networks: at least one, each with `main_logits(x)`; same classes, same resolution.
    """

    networks: Sequence[Network]

    def __init__(self, networks: Iterable[Network]):
        super().__init__()
        self.networks = nn.ModuleList(networks)  # type: ignore[assignment]  # it acts as a sequence
        assert self.networks, "an ensemble of no networks"

    def probabilities(self, x: Tensor) -> Tensor:
        """Return the mean of the members' softmax at 1/8, float32 [N, C, h, w]."""
        return mean_probabilities([network.main_logits(x) for network in self.networks])


def joint_scores(logits: Sequence[Tensor]) -> Tensor:
    """Return logits [N, C, h, w] of one network as they are, of several the mean of their
    softmax."""
    return logits[0] if len(logits) == 1 else mean_probabilities(logits)


def mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Return the mean of the softmax of several logits [N, C, h, w], float32."""
    return torch.stack([one.float().softmax(dim=1) for one in logits]).mean(dim=0)
