"""Several networks as one: FDA's multi-band transfer, MBT (Yang & Soatto, CVPR 2020).

p = 1/M sum_m softmax(phi_m(x))
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def joint_scores(logits: Sequence[Tensor]) -> Tensor:
    """Return logits [N, C, h, w] of one network as they are, of several the mean of their
    softmax."""
    return logits[0] if len(logits) == 1 else mean_probabilities(logits)


def mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Return the mean of the softmax (not of the logits) of one network or several, each
    [N, C, h, w], float32."""
    return torch.stack([one.float().softmax(dim=1) for one in logits]).mean(dim=0)
