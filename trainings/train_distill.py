"""Distillation: a network learns the target from the labels of a teacher (Hinton et al., 2015).

L = CE(phi(x_s), y_s) + w_distill * CE(phi(x_t), p_t)

p_t are pseudo-labels of any origin from a folder: train ids, or the teacher's probabilities of each
pixel's best classes. The teacher may be wider, deeper, or an ensemble. `train_ssl_fda` learns from
the same labels with the source in the target's style and an entropy term.
"""

from torch import Tensor

from datasets.samples import Batch
from model.network import Network
from trainings.method import Losses, Method
from utils.cli.settings import Settings
from utils.losses import pseudo_label_loss, segmentation_loss
from utils.pictures.panels import class_colors


class Distillation(Method):
    def __init__(self, network: Network, options: Settings):
        super().__init__(network)
        self.options = options

    def forward(self, batch: Batch) -> Losses:
        source, target = batch
        source_heads = self.network.heads(source.image)
        target_heads = self.network.heads(target.image)
        taught = pseudo_label_loss(target_heads, target.label, ohem=self.options.ohem)
        return {
            "seg_source": segmentation_loss(source_heads, source.label, ohem=self.options.ohem),
            "seg_target": self.options.distill_weight * taught,
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        image, label = batch.target.image[0], batch.target.label[0]
        best = label if label.ndim == 2 else label[0]
        return {"target": image, "pseudo-label": class_colors(best)}
