"""Distillation: a network learns the target from the labels of a teacher (Hinton et al., 2015).

L = CE(phi(x_s), y_s) + w_distill * CE(phi(x_t), p_t)

p_t are pseudo-labels of any origin from a folder: train ids, or the teacher's probabilities of each
pixel's best classes. The teacher may be wider, deeper, or an ensemble. `train_ssl_fda` learns from
the same labels with the source in the target's style and an entropy term.
"""

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from datasets.samples import Batch
from trainings.method import Losses, Method
from trainings.options import PseudoLabelOptions
from utils.cli.checks import at_least
from utils.cli.options import flag
from utils.losses import pseudo_label_loss
from utils.pictures.panels import class_colors


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillOptions(PseudoLabelOptions):
    """Flags of distillation."""

    distill_weight: float = flag(
        1.0, "distillation: weight of the pseudo-labels' term", check=at_least(0)
    )


class Distillation(Method):
    """The method of the equation above."""

    Options = DistillOptions
    options: DistillOptions

    def forward(self, batch: Batch) -> Iterator[Losses]:
        source, target = batch
        _, terms = self.on_source(source.image, source.label)
        yield terms
        taught = pseudo_label_loss(
            self.network.heads(target.image),
            target.label,
            head_weights=self.network.head_weights,
            ohem=self.options.ohem,
        )
        yield {"seg_target": self.options.distill_weight * taught}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        _, target = batch
        image, label = target.image[0], target.label[0]
        best = label if label.ndim == 2 else label[0]
        return {"target": image, "pseudo-label": class_colors(best, self.network.classes)}
