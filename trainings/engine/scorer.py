"""Score a training on images, and measure the batch-norm statistics of moving averages.

The average of a network's norm statistics does not fit the average of its weights as long as they
move. After 360 updates on Toy City the average of decay 0.999 scored 6.2 mIoU with its averaged
statistics, 6.0 with those of the network, and 12.6 with statistics measured anew on the source's
images; at 0.99, after 120 updates, the three were 9.2, 11.2 and 15.8. So they are measured anew for
each score (Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018, section 3.2).
"""

from functools import cached_property
from typing import Any

import torch

from datasets.catalog import data_set, name_of
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples, validation_samples
from datasets.samples import SampleDataset
from model.average import MovingAverage
from model.network import Network
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, check_enough, with_statistics_of
from trainings.scoring.record import STATISTICS
from trainings.val import Evaluation, evaluate, print_scores, scored_on
from utils import processes
from utils.errors import UserError
from utils.spread import spread

STATISTICS_IMAGES = 256
"""Training images of the source, at most, that the statistics of an average are measured on."""


class Scorer:
    """Scores networks on the validation split of a role, whose cache it builds.

    Args:
        scored: the role whose validation split has labels; None if no role has one.
        source: the role whose training images give averages their norm statistics.

    Attributes:
        role: the role whose validation split is scored; None without one.
        samples: that split; None without one.
        on: the split in words, the data set and the number of its images; empty without one.
    """

    def __init__(self, scored: Role | None, source: Role, settings: Settings, device: torch.device):
        self.role, self.source = scored, source
        self.settings, self.device = settings, device
        self.samples, self.on = None, ""
        if scored:
            self.samples = validation_samples(scored, settings, often=True)
            names = {"domain": name_of(scored, settings), "data_set": data_set(scored, settings)}
            self.on = scored_on({**names, "images": len(self.samples)})

    def score(self, network: Network) -> Evaluation | None:
        """Score a network with its own statistics, those of the first process; return None without
        a validation split."""
        if self.samples is None:
            return None
        shared = processes.with_first_state(network)
        return evaluate(shared, self.samples, self.settings, self.device)

    def with_training_statistics(self, average: MovingAverage) -> Network:
        """Return the averaged network with statistics of the source's training images."""
        return with_statistics_of(
            processes.with_first_state(average.module),
            self._source_images,
            self.settings,
            self.device,
        )

    @cached_property
    def _source_images(self) -> SampleDataset:
        images = unlabelled_samples(self.source, self.settings)
        return images.subset(spread(len(images), STATISTICS_IMAGES))

    def target_scores(
        self, target: Role, network: Network, average: MovingAverage | None
    ) -> dict[str, Any]:
        """Print and return the scores of both with statistics of the target, by their names in
        scores.json; nothing, and a sentence, where it has too few images for statistics."""
        try:
            images = unlabelled_samples(target, self.settings)
            check_enough(images)
        except UserError as error:  # alike in every process, unlike what may happen from here on
            print(f"not scored with {STATISTICS[TARGET]}: {error}")
            return {}
        scores = {}
        for name, title, one in (
            ("last", "the last epoch", network),
            ("last_average", "averaged weights", None if average is None else average.module),
        ):
            if one is None:
                continue
            evaluation = self.score(with_statistics_of(one, images, self.settings, self.device))
            if evaluation is not None:
                print(f"{title} with {STATISTICS[TARGET]}:")
                scores[f"{name}_target_statistics"] = evaluation.scores()
                print_scores(evaluation.scores())
        return scores
