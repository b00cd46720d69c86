"""A training method: a module whose `forward` yields its weighted loss terms by name."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.samples import Batch
from model.average import MovingAverage
from model.network import WHITE, Network
from trainings.optimisers import network_optimizer
from trainings.options import MethodOptions
from utils.detail import detail_loss, detail_target
from utils.losses import segmentation_loss
from utils.upsampling import upsample

Losses = dict[str, Tensor]
"""Weighted scalar terms; the loop minimises their sum."""


class Method(nn.Module):
    """Base of every method.

    Everything that a method owns and that changes in training, such as a discriminator or a
    teacher (`model.average.MovingAverage`), is a child module or a buffer: it is then saved,
    resumed and moved to the device with the method.

    Attributes:
        Options: the dataclass of the flags that the method reads.
        has_teacher: whether its `teacher` is scored and saved beside the network, as ema.pth; then
            `--ema_decay` is none of its flags.
        teacher: that moving average; only with `has_teacher`.
        options: their values.
        network: the network that is validated and saved.
        observed: scalars of the latest forward that are logged and not minimised.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    has_teacher: ClassVar[bool] = False
    teacher: MovingAverage

    def __init__(self, network: Network, options: MethodOptions):
        super().__init__()
        self.network, self.options = network, options
        self.observed: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> Iterator[Losses]:
        """Yield the loss terms of one batch on the method's device; images uint8, labels train ids.

        The loop takes the gradient of what is yielded, and frees its graph, before it asks for
        more. Terms that share a pass of the network are therefore yielded together, and those of
        another pass apart, which keeps one pass in memory at a time.
        """
        raise NotImplementedError

    def on_source(self, image: Tensor, label: Tensor) -> tuple[tuple[Tensor, ...], Losses]:
        """Return the heads' logits of labelled images, and the terms that every method has of its
        source: `seg_source`, the cross-entropy of the heads, weighted as the network says, with
        `--ohem` of the hard pixels; and `detail_source` under `--detail_guidance`."""
        heads, detail = self.network.heads_and_detail(image)
        weights, ohem = self.network.head_weights, self.options.ohem
        loss = segmentation_loss(heads, label, head_weights=weights, ohem=ohem)
        terms = {"seg_source": loss}
        if detail is not None:
            terms["detail_source"] = detail_loss(detail, label)
        return heads, terms

    def after_step(self) -> None:
        """Do what follows an update, such as moving a teacher; no gradient is recorded.

        The loop calls this exactly once per update, after the optimisers, however many passes the
        update has. It also does so where float16's loss scaling has skipped the update: whether it
        has is known on the device alone, and the weights are then those of before.
        """

    def optimizers(self) -> dict[str, Optimizer]:
        """Return one optimiser per separately trained part, by name."""
        return {"network": network_optimizer(self.network, self.options)}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Return pictures of the latest forward pass's batch by name: images [3, H, W] of 0 to
        255, all of one size. One process of several calls this method alone."""
        return {}

    def detail_pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Return the detail of the first source image beside what the network takes for it; nothing
        without `--detail_guidance`. Leaves the norms' statistics alone."""
        if self.network.detail_head is None:
            return {}
        source, training = batch.source, self.network.training
        self.network.eval()
        _, logits = self.network.heads_and_detail(source.image[:1])
        self.network.train(training)
        assert logits is not None
        target = detail_target(source.label[:1])
        predicted = upsample(logits, target.shape[-2:]).sigmoid()
        maps = {"detail": target, "predicted detail": predicted}
        return {name: (WHITE * one[0]).expand(3, -1, -1) for name, one in maps.items()}

    def diagnose(self, means: Mapping[str, float]) -> str | None:
        """Return a sentence about a fault that the means of an epoch's terms and observations show;
        None if they show none."""
        return None
