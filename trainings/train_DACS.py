"""DACS: online self-training on mixed images (Tranheden et al., WACV 2021).

y_T, q   = the teacher's labels of x_t and the share of confident pixels, see trainings/teacher.py
x_m, y_m = ClassMix: half of the classes of (x_s, y_s) pasted onto (x_t, y_T)
w_m      = 1 on pasted pixels, q on the others
L        = CE(phi(x_s), y_s) + w_mix * mean(w_m CE(phi(jitter(x_m)), y_m))

With `--mask_ratio` L has the term of trainings/masked.py, too (MIC). Source, mixed and masked
images go through phi in passes of their own. `--ohem` concerns the source alone: among
pseudo-labels the hardest pixels are the wrong ones.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from datasets.samples import Batch
from model.network import Network
from trainings.masked import MaskOptions, masked_images, masked_term
from trainings.method import Losses, Method
from trainings.teacher import PseudoLabels, Teacher
from utils.cli.checks import at_least
from utils.cli.options import flag
from utils.losses import segmentation_loss
from utils.mixing import WHITE, Mixed, blurred, class_mix, jittered
from utils.pictures.panels import class_colors

COLLAPSED_SHARE = 0.95
"""Share of the target's pixels that a collapsed teacher gives one class, confidently, over an
epoch; roads fill a third of a street scene."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DACSOptions(MaskOptions):
    """Flags of online self-training."""

    mix_weight: float = flag(1.0, "DACS: weight of the mixed images' term", check=at_least(0))


class DACS(Method):
    """The method of the equations above.

    Attributes:
        pseudo: the teacher's labels in the latest forward pass.
    """

    Options = DACSOptions
    has_teacher = True
    options: DACSOptions
    teacher: Teacher
    pseudo: PseudoLabels

    def __init__(self, network: Network, options: DACSOptions):
        super().__init__(network, options)
        self.teacher = Teacher(network, options.teacher_decay)

    def forward(self, batch: Batch) -> Iterator[Losses]:
        source, target = batch
        self.pseudo = pseudo = self.teacher.pseudo_labels(target.image, self.options.confidence)
        _, terms = self.on_source(source.image, source.label)
        yield terms
        mixed = self._mixed(batch, pseudo)
        mixed_heads = self.network.heads(mixed.image)
        mixed_loss = segmentation_loss(
            mixed_heads,
            mixed.label,
            head_weights=self.network.head_weights,
            weight=mixed.weight,
        )
        agreement = self.teacher.agreement(mixed_heads[0], pseudo, mixed.pasted)
        self.observed = {**pseudo.observed(self.network.classes), "agreement": agreement}
        yield {"seg_mixed": self.options.mix_weight * mixed_loss}
        yield from masked_term(self.network, target.image, pseudo, self.options, batch.generator)

    def _mixed(self, batch: Batch, pseudo: PseudoLabels) -> Mixed:
        """Mix the batch, and change the colours and sharpness of the mixed images."""
        source, target = batch
        mixed = class_mix(
            *(source.image, source.label),
            *(target.image, pseudo.label, pseudo.weight),
            batch.generator,
            self.network.num_classes,
        )
        changed = blurred(jittered(mixed.image, batch.generator), batch.generator)
        return mixed._replace(image=changed)

    def after_step(self) -> None:
        self.teacher.update(self.network)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Show what became of the first target image, by the same draws as in its forward pass."""
        seed = batch.generator.initial_seed()
        again = dataclasses.replace(batch, generator=torch.Generator().manual_seed(seed))
        _, target = batch
        image, pseudo = target.image, self.pseudo
        mixed = self._mixed(again, pseudo)
        shown = {
            "target": image[0],
            "pseudo-label": class_colors(pseudo.label[0], self.network.classes),
            "confidence": (WHITE * pseudo.probability[0]).expand(3, -1, -1),
            "mixed": mixed.image[0],
            "mixed label": class_colors(mixed.label[0], self.network.classes),
        }
        if self.options.mask_ratio:
            masked = masked_images(self.network, image, self.options, again.generator)
            shown["masked"] = masked[0]
        return shown

    def diagnose(self, means: Mapping[str, float]) -> str | None:
        for name in self.network.classes.names:
            share = means[f"confident_{name}"]
            if share > COLLAPSED_SHARE:
                return (
                    f"the teacher has collapsed: over an epoch it labelled {share:.0%} of the "
                    f"target's pixels as {name} with confidence; lower --learning_rate or "
                    "--mix_weight, or raise --confidence"
                )
        return None
