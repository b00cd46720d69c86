"""Adversarial domain adaptation (Tsai et al., "AdaptSegNet", CVPR 2018, single level).

P   = softmax(phi(x)), at the input's size
L   = CE(phi(x_s), y_s) + w_adv * BCE(D(P_t), source)              with D fixed
L_D = 1/2 BCE(D(P_s), source) + 1/2 BCE(D(P_t), target)            with phi fixed

With `--mask_ratio` L has the term of trainings/masked.py, too.

The fooling term calls D with detached parameters, D's own terms see detached maps. D(P_t) is
computed for each of the two, as its two gradients differ upstream: one graph of D could serve both
only by two backward passes of its own inside a Function. That saved 2 to 4 % of a step on a CPU,
but under torch.compile each of those passes would compute the gradients of maps and weights alike.

Under float16 autocast w_adv joins the fooling term's gradient at phi's weights alone: see
utils/gradients.py.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.optim import Adam, Optimizer

from datasets.samples import Batch
from model.discriminator import SOURCE, TARGET, Discriminator
from model.network import Network
from trainings.masked import MaskedConsistency, MaskOptions
from trainings.method import Losses, Method
from utils.cli.checks import above, at_least
from utils.cli.options import flag
from utils.gradients import call_with_scaled_weight_gradients, lift_of, scale_gradient
from utils.upsampling import upsampled_softmax

ADAM_BETAS = (0.9, 0.99)
COLLAPSED_ACCURACY, COLLAPSED_LOSS = 0.99, 0.02
"""Accuracy from which, and loss up to which, a discriminator has collapsed: over an epoch, on the
domain that it knows less well, and of both terms. A healthy one has a loss of 0.2 to 0.5."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ADAOptions(MaskOptions):
    """Flags of adversarial adaptation."""

    discriminator: str = flag(
        "conv",
        "ADA: five convolutions, or light: the middle three depthwise-separable",
        choices=("conv", "light"),
    )
    disc_learning_rate: float = flag(
        1e-4, "ADA: learning rate of the discriminator's Adam", check=above(0)
    )
    adv_weight: float = flag(1e-3, "ADA: weight of the adversarial term", check=at_least(0))


class ADA(Method):
    """The method of the equations above."""

    Options = ADAOptions
    options: ADAOptions

    def __init__(self, network: Network, options: ADAOptions):
        super().__init__(network, options)
        self.discriminator = Discriminator(network.num_classes, options.discriminator)
        self.masked = MaskedConsistency(network, options)

    def forward(self, batch: Batch) -> Iterator[Losses]:
        source, target = batch
        heads, terms = self.on_source(source.image, source.label)
        yield terms
        logits_source = heads[0].detach()
        weight = self.options.adv_weight
        lift = lift_of(weight, target.image.device)
        logits_target = call_with_scaled_weight_gradients(
            self.network, "main_logits", target.image, 1 / lift
        )
        size = source.image.shape[-2:]
        p_target = upsampled_softmax(logits_target, size)
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = functional_call(self.discriminator, fixed, (p_target,))
        yield {"adv_target": weight * scale_gradient(_domain_loss(fooled, SOURCE), lift)}

        d_source = self.discriminator(upsampled_softmax(logits_source, size))
        yield {"disc_source": 0.5 * _domain_loss(d_source, SOURCE)}
        d_target = self.discriminator(p_target.detach())
        yield {"disc_target": 0.5 * _domain_loss(d_target, TARGET)}

        yield from self.masked(self.network, target.image, batch.generator)
        self.observed = {
            "disc_accuracy_source": (d_source < 0).float().mean(),
            "disc_accuracy_target": (d_target > 0).float().mean(),
            **self.masked.observed,
        }

    def after_step(self) -> None:
        self.masked.after_step(self.network)

    def optimizers(self) -> dict[str, Optimizer]:
        rate = self.options.disc_learning_rate
        discriminator = Adam(self.discriminator.parameters(), lr=rate, betas=ADAM_BETAS, fused=True)
        return {**super().optimizers(), "discriminator": discriminator}

    def diagnose(self, means: Mapping[str, float]) -> str | None:
        accuracy = min(means["disc_accuracy_source"], means["disc_accuracy_target"])
        loss = means["disc_source"] + means["disc_target"]
        if accuracy >= COLLAPSED_ACCURACY or loss <= COLLAPSED_LOSS:  # neither holds for NaN
            return (
                "the discriminator has collapsed: for a whole epoch it told the domains apart "
                "(almost) without a mistake, so it teaches the network nothing; lower "
                "--disc_learning_rate or raise --adv_weight"
            )
        return None


def _domain_loss(logits: Tensor, domain: float) -> Tensor:
    """Return the binary cross-entropy of D's patch logits against one domain."""
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, logits.new_full(logits.shape, domain))
