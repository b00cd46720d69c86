"""Several networks and ensembles on the same images, each network run once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from datasets.data_set import Role
from datasets.reading import SampleFiles
from model.network import Network
from trainings.options import Settings
from trainings.scoring.checkpoints import load_checkpoints


class Predictor(NamedTuple):
    """A network, or an ensemble of several, under the title that tables and pictures give it."""

    title: str
    checkpoints: tuple[Path, ...]


class LoadedPredictors:
    """The `ScoreMaps` of several predictors; a checkpoint that some of them share is loaded and run
    once."""

    def __init__(self, predictors: Sequence[Predictor], networks: Mapping[Path, Network]):
        self.predictors, self.networks = list(predictors), networks

    def __call__(self, images: Tensor) -> list[list[Tensor]]:
        needed = {path for predictor in self.predictors for path in predictor.checkpoints}
        logits = {path: self.networks[path].main_logits(images) for path in needed}
        return [[logits[path] for path in p.checkpoints] for p in self.predictors]

    def only(self, *numbers: int) -> "LoadedPredictors":
        """Return the predictors at these numbers alone."""
        return LoadedPredictors([self.predictors[number] for number in numbers], self.networks)


def load_predictors(
    predictors: Sequence[Predictor],
    role: Role,
    settings: Settings,
    *,
    doing: str = "",
    seen: Sequence[SampleFiles] | None = None,
) -> LoadedPredictors:
    """Load the predictors' networks for images of that role; `doing` is the purpose in the line
    that is printed, which names the sizes of `seen`, by default the validation split."""
    checkpoints = list(dict.fromkeys(path for p in predictors for path in p.checkpoints))
    networks = load_checkpoints(checkpoints, role, settings, doing=doing, seen=seen)
    return LoadedPredictors(predictors, dict(zip(checkpoints, networks, strict=True)))
