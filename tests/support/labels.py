"""Making pseudo-labels of a tiny data set."""

from pathlib import Path
from typing import Any

import torch

from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples
from main import FlatSettings as Settings
from model.ensemble import mean_probabilities
from model.model_stages import BiSeNet
from tests.support.helpers import make_cityscapes
from trainings.scoring.pseudo_label_folder import label_folder
from trainings.scoring.pseudo_label_making import Making
from utils.disk.run_folder import RunFolder

IDENTITY = {
    "image_size": [64, 96],
    "bn_statistics": "training",
    "precision": "float32",
    "images": 5,
    "data": "d",
}


class Toy:
    """A data set with a network, and what makes labels of it."""

    def __init__(self, folder: Path, **changes: Any):
        self.root = make_cityscapes(folder / "Cityscapes", train=5)
        for label in (self.root / "gtFine").glob("train/*/*"):
            label.unlink()  # they must never be read
        self.settings = Settings(
            cityscapes_root=self.root,
            save_model_path=folder / "runs",
            image_size=(64, 96),
            num_workers=0,
            precision="fp32",
            **changes,
        )
        torch.manual_seed(0)
        self.networks = [BiSeNet(base=8).eval() for _ in range(3)]
        for network in self.networks:  # sure of something
            network.conv_out.conv_out.weight.data *= 30
        self.samples = unlabelled_samples(Role.TARGET, self.settings)
        self.folder = RunFolder(label_folder(self.settings))

    def probabilities(self, place: int) -> torch.Tensor:
        """Return those of the ensemble on a sample, [1, C, h, w]."""
        image = self.samples[0, place].image[None]
        return mean_probabilities([network.main_logits(image) for network in self.networks])

    def making(self, **identity):
        checkpoints = [{"path": "a/best.pth", "sha256": "0" * 64}]
        whole = {**IDENTITY, "checkpoints": checkpoints, **identity}
        return Making(self.folder, self.samples, whole, self.settings)

    def make(self, **identity):
        making = self.making(**identity)
        if not making.begin(overwrite=False):
            making.run(self.networks)
        return self.labels()

    def labels(self):
        return {path.name: path.read_bytes() for path in self.folder.path.glob("train/*/*.png")}
