"""The domain gap over time: a network that is trained on the source alone, scored on the target."""

import torch

from datasets.data_set import Role
from model.network import Network
from trainings.engine.scorer import Scorer
from trainings.engine.state import TrainState
from trainings.options import Settings
from utils.disk.run_folder import RunFolder
from utils.text import in_percent

COLUMNS = {"mIoU": "target/mIoU", "pixel_accuracy": "target/pixel_accuracy"}
"""Columns of history.csv by the names of the scores."""


class TargetScores:
    """Scores a network on the target's validation split; nothing is selected by these scores."""

    def __init__(self, settings: Settings, device: torch.device):
        self.scorer = Scorer(Role.TARGET, Role.SOURCE, settings, device)

    def __call__(
        self, network: Network, average: Network | None, state: TrainState, run: RunFolder
    ) -> dict[str, float]:
        """Print the scores, and return them for the round's row."""
        evaluation = self.scorer.score(network)
        assert evaluation, "the target's validation split has labels"
        scores = evaluation.scores()
        print(f"mIoU on the target ({self.scorer.on}): {in_percent(scores['mIoU'])} %", flush=True)
        row = {column: scores[name] for name, column in COLUMNS.items()}
        run.board.scalars(row, state.step)
        return row
