"""The domain gap over time: a network that is trained on the source alone, scored on the target."""

import torch

from datasets.catalog import data_set, name_of
from datasets.data_set import Role
from datasets.loading.sets import validation_samples
from model.network import Network
from trainings.engine.state import TrainState
from trainings.options import Settings
from trainings.val import evaluate, scored_on
from utils import processes
from utils.disk.run_folder import RunFolder
from utils.text import in_percent

COLUMNS = {"mIoU": "target/mIoU", "pixel_accuracy": "target/pixel_accuracy"}
"""Columns of history.csv by the names of the scores."""


class TargetScores:
    """Scores a network on the target's validation split; nothing is selected by these scores."""

    def __init__(self, settings: Settings, device: torch.device):
        self.settings, self.device = settings, device
        self.samples = validation_samples(Role.TARGET, settings, often=True)
        counted = {"data_set": data_set(Role.TARGET, settings), "images": len(self.samples)}
        self.on = scored_on({"domain": name_of(Role.TARGET, settings), **counted})

    def __call__(
        self, network: Network, average: Network | None, state: TrainState, run: RunFolder
    ) -> dict[str, float]:
        """Print the scores, and return them for the round's row."""
        shared = processes.with_first_state(network)
        scores = evaluate(shared, self.samples, self.settings, self.device).scores()
        print(f"mIoU on the target ({self.on}): {in_percent(scores['mIoU'])} %", flush=True)
        row = {column: scores[name] for name, column in COLUMNS.items()}
        run.board.scalars(row, state.step)
        return row
