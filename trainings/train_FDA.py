"""Fourier Domain Adaptation (Yang & Soatto, CVPR 2020).

x_st = F^-1( M_b |F(x_t)| + (1 - M_b) |F(x_s)|,  arg F(x_s) )
L    = CE(phi(x_st), y_s) + w_ent * rho_eta(H(phi(x_t)))

With `--mask_ratio` L has the term of trainings/masked.py, too.
"""

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from datasets.samples import Batch
from model.network import Network
from trainings.masked import MaskedConsistency, MaskOptions
from trainings.method import Losses, Method
from utils.cli.checks import above, at_least
from utils.cli.options import flag
from utils.fda import fourier_transfer
from utils.losses import robust_entropy


def half_of_spectrum(value: float) -> None:
    """Raise ValueError unless a band of that half-width fits into the spectrum."""
    if not 0 <= value < 0.5:
        raise ValueError("must be at least 0 and below 0.5, half of the spectrum")


def decimals(beta: float) -> str:
    """Return a beta as the names of runs have it: 0.05 -> "05", 0.1 -> "10", 0.005 -> "005"."""
    return f"{beta:.12f}"[2:].rstrip("0").ljust(2, "0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FDAOptions(MaskOptions):
    """Flags of Fourier domain adaptation."""

    fda_beta: float = flag(
        0.01,
        "FDA: share of the image's smaller side that the swapped frequencies reach to; one network "
        "each for 0.01, 0.05 and 0.09",
        check=half_of_spectrum,
        in_name=decimals,
    )
    ent_weight: float = flag(0.005, "FDA: weight of the target's entropy", check=at_least(0))
    ent_eta: float = flag(2.0, "FDA: exponent that spares confident pixels", check=above(0))


class FDA(Method):
    """The method of the equations above."""

    Options = FDAOptions
    options: FDAOptions

    def __init__(self, network: Network, options: FDAOptions):
        super().__init__(network, options)
        self.masked = MaskedConsistency(network, options)

    def forward(self, batch: Batch) -> Iterator[Losses]:
        source, target = batch
        options = self.options
        stylised = fourier_transfer(source.image, target.image, options.fda_beta)
        _, terms = self.on_source(stylised, source.label)
        yield terms
        entropy = robust_entropy(self.network.main_logits(target.image), options.ent_eta)
        yield {"ent_target": options.ent_weight * entropy}
        yield from self.masked(self.network, target.image, batch.generator)
        self.observed = self.masked.observed

    def after_step(self) -> None:
        self.masked.after_step(self.network)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        return transfer_pictures(batch, self.options.fda_beta)


def transfer_pictures(batch: Batch, beta: float) -> dict[str, Tensor]:
    """Return the first source image beside the target whose style it takes."""
    source, target = (sample.image[0] for sample in batch)
    stylised = fourier_transfer(source, target, beta)
    return {"source": source, "target": target, f"source in its style, beta {beta}": stylised}
