"""A network or an ensemble that gives the classes of one picture after the other.

A picture is seen whole, as in validation (`fitted_size`), and its scores are enlarged to its own
size before the argmax.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.data_set import Role
from model.ensemble import joint_scores
from trainings.options import Settings
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from utils.transforms import Size, fitted_size, resize
from utils.upsampling import upsampled_max
from utils.utils import autocast, resolve_device, resolve_precision


class Segmenter:
    """Classes of one picture after the other, by a network or an ensemble."""

    def __init__(self, checkpoints: tuple[Path, ...], settings: Settings):
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.scores: LoadedPredictors = load_predictors(
            [Predictor("", checkpoints)], Role.TARGET, settings
        )

    @torch.inference_mode()
    def __call__(self, seen: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Train ids, uint8 [H, W], of a picture of that size, as the network sees it."""
        with autocast(self.device, self.precision):
            (members,) = self.scores(seen[None].to(self.device))
            scores = joint_scores(members)
        _, train_ids = upsampled_max(scores[0], size)
        return train_ids.cpu().numpy()


def as_seen(image: np.ndarray, size: Size) -> Tensor:
    """Return an image, uint8 [H, W, 3], as validation at that size shows it to the network, uint8
    [3, h, w]."""
    return resize(fitted_size(image.shape[:2], size))(
        torch.from_numpy(image.transpose(2, 0, 1))
    ).contiguous()
