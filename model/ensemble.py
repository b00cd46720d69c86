"""Several networks as one: FDA's multi-band transfer, MBT (Yang & Soatto, CVPR 2020).

p = 1/M sum_m softmax(phi_m(x))
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of the networks' class probabilities (not of their logits).

    Args:
        networks: at least one, each with `main_logits(x)`; same classes, same resolution.
    """

    def __init__(self, networks: Iterable[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        assert self.networks, "an ensemble of no networks"

    def member_probabilities(self, x: Tensor) -> Tensor:
        """Softmax of each network's main logits at 1/8, float32 [M, N, C, h, w]."""
        return torch.stack([net.main_logits(x).float().softmax(dim=1) for net in self.networks])

    def probabilities(self, x: Tensor) -> Tensor:
        """Their mean, float32 [N, C, h, w]."""
        return self.member_probabilities(x).mean(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """The mean at the input's size, [N, C, H, W]: upsampled after it is taken."""
        return F.interpolate(
            self.probabilities(x), x.shape[-2:], mode="bilinear", align_corners=True
        )
