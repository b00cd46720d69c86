"""Supervised training (Fan et al., CVPR 2021), the baseline of every method.

L = sum over the three heads of CE(phi_head(x_s), y_s)
"""

from collections.abc import Iterator

from datasets.samples import Batch
from trainings.method import Losses, Method


class Supervised(Method):
    """The method of the equation above."""

    def forward(self, batch: Batch) -> Iterator[Losses]:
        _, terms = self.on_source(batch.source.image, batch.source.label)
        yield terms
