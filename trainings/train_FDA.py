"""Fourier Domain Adaptation (Yang & Soatto, CVPR 2020).

x_st = F^-1( M_b |F(x_t)| + (1 - M_b) |F(x_s)|,  arg F(x_s) )
L    = CE(phi(x_st), y_s) + w_ent * rho_eta(H(phi(x_t)))
"""

from torch import Tensor

from datasets.samples import Batch
from model.network import Network
from trainings.method import Losses, Method
from utils.cli.settings import Settings
from utils.fda import fourier_transfer
from utils.losses import robust_entropy, segmentation_loss


class FDA(Method):
    def __init__(self, network: Network, settings: Settings):
        super().__init__(network)
        self.beta = settings.fda_beta
        self.ent_weight, self.ent_eta = settings.ent_weight, settings.ent_eta
        self.ohem = settings.ohem

    def forward(self, batch: Batch) -> Losses:
        source, target = batch
        stylised = fourier_transfer(source.image, target.image, self.beta)
        heads = self.network.heads(stylised)
        entropy = robust_entropy(self.network.main_logits(target.image), self.ent_eta)
        return {
            "seg_source": segmentation_loss(heads, source.label, ohem=self.ohem),
            "ent_target": self.ent_weight * entropy,
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        return transfer_pictures(batch, self.beta)


def transfer_pictures(batch: Batch, beta: float) -> dict[str, Tensor]:
    """The first source image beside the target whose style it takes."""
    source, target = batch.source.image[0], batch.target.image[0]
    stylised = fourier_transfer(source, target, beta)
    return {"source": source, "target": target, f"source in its style, beta {beta}": stylised}
