"""Self-training with FDA (Yang & Soatto, CVPR 2020): the target's pseudo-labels as labels.

L = CE(phi(x_st), y_s) + CE(phi(x_t), pseudo_t) + w_ent * rho_eta(H(phi(x_t)))

x_st is the source in the target's style as in FDA, pseudo_t comes from the ensemble of the round
before; the network starts afresh in every round.
"""

from torch import Tensor

from datasets.samples import Batch
from model.network import Network
from trainings.method import Losses, Method
from trainings.train_FDA import transfer_pictures
from utils.cli.settings import Settings
from utils.fda import fourier_transfer
from utils.losses import robust_entropy, segmentation_loss


class SSLFDA(Method):
    def __init__(self, network: Network, settings: Settings):
        super().__init__(network)
        self.beta = settings.fda_beta
        self.ent_weight, self.ent_eta = settings.ent_weight, settings.ent_eta
        self.ohem = settings.ohem

    def forward(self, batch: Batch) -> Losses:
        source, target = batch
        stylised = fourier_transfer(source.image, target.image, self.beta)
        source_heads = self.network.heads(stylised)
        target_heads = self.network.heads(target.image)
        entropy = robust_entropy(target_heads[0], self.ent_eta)
        return {
            "seg_source": segmentation_loss(source_heads, source.label, ohem=self.ohem),
            "seg_target": segmentation_loss(target_heads, target.label, ohem=self.ohem),
            "ent_target": self.ent_weight * entropy,
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        return transfer_pictures(batch, self.beta)
