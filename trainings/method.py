"""A training method: a module whose `forward` returns its weighted loss terms by name."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.samples import Batch
from model.network import Network
from trainings.optimisers import network_optimizer
from trainings.options import MethodOptions

Losses = dict[str, Tensor]
"""Weighted scalar terms; the loop minimises their sum."""


class Method(nn.Module):
    """Base of every method.

    Everything that a method owns and that changes in training, such as a discriminator or a
    teacher (`model.average.MovingAverage`), is a child module or a buffer: it is then saved,
    resumed and moved to the device with the method. A `MovingAverage` that is called `teacher` is
    also scored and saved beside the network, as ema.pth.

    Attributes:
        Options: the dataclass of the flags that the method reads.
        options: their values.
        network: the network that is validated and saved.
        observed: scalars of the latest forward that are logged and not minimised.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions

    def __init__(self, network: Network, options: MethodOptions):
        super().__init__()
        self.network, self.options = network, options
        self.observed: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> Losses:
        """The loss terms of one batch on the method's device; images uint8, labels train ids."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows an update, such as moving a teacher; no gradient is recorded.

        The loop calls this exactly once per update, after the optimisers, however many passes the
        update has. It also does so where float16's loss scaling has skipped the update: whether it
        has is known on the device alone, and the weights are then those of before.
        """

    def optimizers(self) -> dict[str, Optimizer]:
        """One optimiser per separately trained part, by name."""
        return {"network": network_optimizer(self.network, self.options)}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """What is worth seeing of the latest forward pass's batch, by name: images [3, H, W] of 0
        to 255, of one size. One process of several calls it alone."""
        return {}

    def diagnose(self, means: Mapping[str, float]) -> str | None:
        """What is wrong with a training whose terms and observations had these means over an
        epoch, if anything is."""
        return None
