"""Methods that only tests train."""

from collections.abc import Iterator
from typing import ClassVar

import torch

from datasets.samples import Batch
from model.average import MovingAverage
from model.model_stages import BiSeNet
from trainings.method import Losses, Method
from trainings.options import MethodOptions
from trainings.train_DACS import DACS
from utils.losses import segmentation_loss


def all_terms(method: Method, batch: Batch) -> Losses:
    """Every term of a method, with its graph."""
    return {name: term for terms in method(batch) for name, term in terms.items()}


class Killed(Exception):
    """Ends a training as suddenly as a kill, without a word to the loop."""


class Killable(Method):
    """A method that a test kills in the middle of an update."""

    killed_in: ClassVar[int | None] = None
    """The forward pass of this process, counted from 0, that raises Killed; None for none."""

    passes: ClassVar[int] = 0
    """Forward passes made by this process."""

    def forward(self, batch: Batch) -> Iterator[Losses]:
        cls = type(self)
        if cls.passes == cls.killed_in:
            raise Killed
        cls.passes += 1
        yield from self.losses(batch)

    def losses(self, batch: Batch) -> Iterator[Losses]:
        raise NotImplementedError


class Taught(Killable):
    """L = CE(phi(x_s), y_s) + mean |phi(x_t) - T(x_t)|^2, with T the moving average of phi."""

    has_teacher = True

    def __init__(self, network: BiSeNet, options: MethodOptions):
        super().__init__(network, options)
        self.teacher = MovingAverage(network, decay=0.75, batch_statistics=True)

    def losses(self, batch: Batch) -> Iterator[Losses]:
        source, target = batch
        taught = self.teacher.module.main_logits(target.image)
        difference = self.network.main_logits(target.image) - taught
        yield {"taught_target": difference.square().mean()}
        yield {"seg_source": segmentation_loss(self.network.heads(source.image), source.label)}

    def after_step(self) -> None:
        assert not torch.is_grad_enabled()
        self.teacher.update(self.network)


class Drawing(Killable):
    """L = CE(phi(x_s + n), y_s), with n noise of the batch's generator, up to 9 grey levels."""

    def losses(self, batch: Batch) -> Iterator[Losses]:
        image = batch.source.image.float()
        noisy = image + torch.randint(0, 10, image.shape, generator=batch.generator)
        yield {"seg_source": segmentation_loss(self.network.heads(noisy), batch.source.label)}


class KillableDACS(Killable, DACS):
    """DACS, and a test may kill it."""

    def losses(self, batch: Batch) -> Iterator[Losses]:
        yield from DACS.forward(self, batch)
