"""Self-training with FDA (Yang & Soatto, CVPR 2020): the target's pseudo-labels as labels.

L = CE(phi(x_st), y_s) + CE(phi(x_t), pseudo_t) + w_ent * rho_eta(H(phi(x_t)))

x_st is the source in the target's style as in FDA, pseudo_t comes from the ensemble of the round
before, or from any other teacher, hard or soft; the network starts afresh in every round.

With `--mask_ratio` L has the term of trainings/masked.py, too.
"""

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from datasets.samples import Batch
from model.network import Network
from trainings.masked import MaskedConsistency
from trainings.method import Losses, Method
from trainings.options import PseudoLabelOptions
from trainings.train_FDA import FDAOptions, transfer_pictures
from utils.cli.checks import at_least
from utils.cli.options import flag
from utils.fda import fourier_transfer
from utils.losses import pseudo_label_loss, robust_entropy


def number_in_name(ssl_round: int) -> str:
    """Return a round as the names of runs have it: nothing for the first."""
    return "" if ssl_round == 1 else str(ssl_round)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSLFDAOptions(PseudoLabelOptions, FDAOptions):
    """Flags of FDA and of its self-training."""

    ssl_round: int = flag(
        1,
        "round of self-training: generate_pseudo_labels makes its labels with the networks of the "
        "round before (0 is FDA), train_ssl_fda trains on them, val_mbt scores it (its default: 0)",
        check=at_least(0),
        in_name=number_in_name,
    )


class SSLFDA(Method):
    """The method of the equations above."""

    Options = SSLFDAOptions
    options: SSLFDAOptions

    def __init__(self, network: Network, options: SSLFDAOptions):
        super().__init__(network, options)
        self.masked = MaskedConsistency(network, options)

    def forward(self, batch: Batch) -> Iterator[Losses]:
        source, target = batch
        options = self.options
        stylised = fourier_transfer(source.image, target.image, options.fda_beta)
        _, terms = self.on_source(stylised, source.label)
        yield terms
        target_heads = self.network.heads(target.image)
        entropy = robust_entropy(target_heads[0], options.ent_eta)
        yield {
            "seg_target": pseudo_label_loss(
                target_heads,
                target.label,
                head_weights=self.network.head_weights,
                ohem=options.ohem,
            ),
            "ent_target": options.ent_weight * entropy,
        }
        yield from self.masked(self.network, target.image, batch.generator)
        self.observed = self.masked.observed

    def after_step(self) -> None:
        self.masked.after_step(self.network)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        return transfer_pictures(batch, self.options.fda_beta)
