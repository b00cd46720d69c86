"""Batch-norm statistics that the networks of a training are scored with.

The average of a network's norm statistics does not fit the average of its weights as long as they
move. After 360 updates on Toy City the average of decay 0.999 scored 6.2 mIoU with its averaged
statistics, 6.0 with those of the network, and 12.6 with statistics measured anew on the source's
images; at 0.99, after 120 updates, the three were 9.2, 11.2 and 15.8. So they are measured anew for
each score (Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018, section 3.2).
"""

from functools import cached_property
from typing import Any

import torch

from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples
from datasets.samples import SampleDataset
from model.average import MovingAverage
from model.network import Network
from trainings.engine.target import spread
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, check_enough, with_statistics_of
from trainings.scoring.record import STATISTICS
from trainings.val import evaluate, print_scores
from utils import processes
from utils.errors import UserError

STATISTICS_IMAGES = 256
"""Training images of the source, at most, that the statistics of an average are measured on."""


class SourceStatistics:
    """Gives averaged networks statistics of the source's training images."""

    def __init__(self, source: Role, settings: Settings, device: torch.device):
        self.source, self.settings, self.device = source, settings, device

    def __call__(self, average: MovingAverage) -> Network:
        """Return a copy of the averaged network, in evaluation mode, with such statistics."""
        network = processes.with_first_buffers(average.module)
        return with_statistics_of(network, self._images, self.settings, self.device)

    @cached_property
    def _images(self) -> SampleDataset:
        images = unlabelled_samples(self.source, self.settings)
        return images.subset(spread(len(images), STATISTICS_IMAGES))


def target_scores(
    target: Role,
    validation: SampleDataset,
    network: Network,
    average: MovingAverage | None,
    settings: Settings,
    device: torch.device,
) -> dict[str, Any]:
    """Print and return the scores of both with statistics of the target, by their names in
    scores.json; nothing, and a sentence, where it has too few images for statistics."""
    try:
        images = unlabelled_samples(target, settings)
        check_enough(images)
    except UserError as error:  # alike in every process, unlike what may happen from here on
        print(f"not scored with {STATISTICS[TARGET]}: {error}")
        return {}
    scores = {}
    for name, title, one in (
        ("last", "the last epoch", network),
        ("last_average", "averaged weights", average and average.module),
    ):
        if one is not None:
            adapted = with_statistics_of(one, images, settings, device)
            print(f"{title} with {STATISTICS[TARGET]}:")
            found = evaluate(adapted, validation, settings, device).scores()
            print_scores(found)
            scores[f"{name}_target_statistics"] = found
    return scores
