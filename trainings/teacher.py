"""The mean teacher of online self-training: a moving average of the network labels the target.

T_t = a_t T_{t-1} + (1 - a_t) phi_t,   a_t = min(1 - 1/(t + 1), alpha)     after every update
y   = argmax softmax(T(x))                                                 at the image's size
q   = share of the batch's pixels with max softmax(T(x)) >= tau

(Tarvainen & Valpola, NeurIPS 2017; q as in DACS: Tranheden et al., WACV 2021.) The teacher
normalises with the statistics of the batch that it labels.
"""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.labels import ClassTable
from model.average import MovingAverage
from model.network import Network
from trainings.options import MethodOptions
from utils import processes
from utils.cli.checks import probability, share
from utils.cli.options import flag
from utils.upsampling import upsampled_confidence


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherOptions(MethodOptions):
    """Flags of the methods that have a teacher."""

    confidence: float = flag(
        0.968,
        "teachers: probability from which on a pixel counts as confident; the share of such pixels "
        "weighs the pseudo-labels; ADA, FDA and SSL-FDA have a teacher with --mask_ratio only",
        check=probability,
    )
    teacher_decay: float = flag(
        0.99,
        "teachers: T <- decay T + (1 - decay) network after every update, with smaller decays at "
        "the beginning",
        check=share,
    )


class PseudoLabels(NamedTuple):
    """A teacher's labels of a batch; none of them has a gradient.

    Attributes:
        label: train ids, uint8 [N, H, W].
        confident: whether a pixel's probability reaches the threshold, bool [N, H, W].
        probability: that of the label, float32 [N, H, W].
        weight: q, the share of confident pixels in the batch of all processes, a scalar.
        coarse: the label at the logits' resolution, int64 [N, h, w].
    """

    label: Tensor
    confident: Tensor
    probability: Tensor
    weight: Tensor
    coarse: Tensor

    def observed(self, classes: ClassTable) -> dict[str, Tensor]:
        """Return q and, for each class, the share of pixels that are confidently of that class, by
        the names of the scalars; these shares sum to q."""
        count = len(classes)
        confident = torch.where(self.confident, self.label, count).float()
        counts = confident.histc(count + 1, min=0, max=count)[:count]
        shares = (counts / self.label.numel()).unbind()
        named = (f"confident_{name}" for name in classes.names)
        return {"q": self.weight, **dict(zip(named, shares, strict=True))}


class Teacher(MovingAverage):
    """T of the equations above.

    Args:
        network: phi, which the teacher starts as a copy of.
        decay: alpha.
    """

    def __init__(self, network: Network, decay: float):
        super().__init__(network, decay, batch_statistics=True, rising=True)

    @torch.no_grad()
    def pseudo_labels(self, image: Tensor, threshold: float) -> PseudoLabels:
        """Label images [N, 3, H, W]; `threshold` is tau."""
        logits = self.module.main_logits(image)
        best, label = upsampled_confidence(logits, image.shape[-2:])
        confident = best >= threshold
        weight = processes.total(confident.float().mean()) / processes.count()
        return PseudoLabels(label, confident, best, weight, logits.argmax(1))

    @staticmethod
    @torch.no_grad()
    def agreement(logits: Tensor, pseudo: PseudoLabels, pasted: Tensor) -> Tensor:
        """Return the share of pixels, those pasted left out, at which logits [N, C, h, w] have the
        teacher's class, at their resolution; `pasted` is bool [N, H, W]."""
        size = pseudo.coarse.shape[-2:]
        own = 1 - torch.nn.functional.interpolate(pasted[:, None].float(), size)[:, 0]
        equal = (logits.argmax(1) == pseudo.coarse) * own
        return equal.sum() / own.sum().clamp(min=1)
