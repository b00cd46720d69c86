"""Masked image consistency (MIC: Hoyer et al., CVPR 2023), a term that methods add to their own.

L_mask = q * mean(CE(phi(M * jitter(x_t)), y_T))

M replaces square blocks by the mean colour, each with probability `--mask_ratio`; y_T and q are the
teacher's, see trainings/teacher.py. A ratio of 0 adds nothing.
"""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from model.network import Network
from trainings.method import Losses
from trainings.teacher import PseudoLabels, Teacher, TeacherOptions
from utils.cli.checks import at_least, share
from utils.cli.options import flag
from utils.losses import segmentation_loss
from utils.mixing import block_side, jittered, masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskOptions(TeacherOptions):
    """Flags of masked consistency, and of the teacher that it needs."""

    mask_ratio: float = flag(
        0.0,
        "share of the target image that is masked for masked consistency (MIC), such as 0.7; 0 for "
        "none",
        check=share,
    )
    mask_block: int = flag(
        32,
        "side of a masked block in pixels where the image's shorter side is 512; in proportion "
        "elsewhere",
        check=at_least(1),
        only_with="mask_ratio",
    )


class MaskedConsistency(nn.Module):
    """The term for a method without a teacher: it brings one of its own.

    Attributes:
        observed: as `Method.observed`.
    """

    def __init__(self, network: Network, options: MaskOptions):
        super().__init__()
        self.options = options
        self.observed: dict[str, Tensor] = {}
        self.teacher: Teacher | None = None
        if options.mask_ratio:
            self.teacher = Teacher(network, options.teacher_decay)

    def forward(
        self, network: Network, image: Tensor, generator: torch.Generator
    ) -> Iterator[Losses]:
        """Yield the term of target images, uint8 [N, 3, H, W]; none at a ratio of 0."""
        if self.teacher is None:
            return
        pseudo = self.teacher.pseudo_labels(image, self.options.confidence)
        self.observed = pseudo.observed(network.classes)
        yield from masked_term(network, image, pseudo, self.options, generator)

    def after_step(self, network: Network) -> None:
        """Move the teacher, if there is one."""
        if self.teacher is not None:
            self.teacher.update(network)


def masked_term(
    network: Network,
    image: Tensor,
    pseudo: PseudoLabels,
    options: MaskOptions,
    generator: torch.Generator,
) -> Iterator[Losses]:
    """Yield L_mask of target images, uint8 [N, 3, H, W], by its name; none at a ratio of 0."""
    if not options.mask_ratio:
        return
    heads = network.heads(masked_images(network, image, options, generator))
    loss = segmentation_loss(heads, pseudo.label, head_weights=network.head_weights)
    yield {"seg_masked": pseudo.weight * loss}


def masked_images(
    network: Network, image: Tensor, options: MaskOptions, generator: torch.Generator
) -> Tensor:
    """Return M * jitter(x) of images, uint8 [N, 3, H, W], float32."""
    height, width = image.shape[-2:]
    block = block_side(options.mask_block, (height, width))
    changed = jittered(image, generator)
    return masked(changed, network.mean, generator, ratio=options.mask_ratio, block=block)
