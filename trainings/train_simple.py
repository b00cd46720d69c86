"""Supervised training (Fan et al., CVPR 2021), the baseline of every method.

L = sum over the three heads of CE(phi_head(x_s), y_s)
"""

from datasets.samples import Batch
from trainings.method import Losses, Method
from utils.losses import segmentation_loss


class Supervised(Method):
    def forward(self, batch: Batch) -> Losses:
        source = batch.source
        heads = self.network.heads(source.image)
        return {"seg_source": segmentation_loss(heads, source.label, ohem=self.options.ohem)}
