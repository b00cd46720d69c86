"""Measure how many target images batch-norm statistics need, on the networks of the demo.

python benchmarks/few_statistics.py --demo checkpoints/demo/adamw/seed0 --toy_root toy_city
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import main as command_line
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples, validation_samples
from model.weights.loading import load_network
from trainings.experiment import new_network
from trainings.scoring.batch_norm import with_statistics_of
from trainings.val import evaluate
from utils.cli.command_line import parse_settings

NETWORKS = ("simple_gta5_adamw_noaug", "simple_cityscapes_adamw_noaug")
COUNTS = (2, 4, 8, 64)
DRAWS = 3


def draws(images: int, count: int) -> list[range]:
    """Return the places of up to `DRAWS` parts of `count` images each that share no image."""
    return [range(start, start + count) for start in range(0, images - count + 1, count)][:DRAWS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("checkpoints/demo/adamw/seed0"))
    parser.add_argument("--toy_root", type=Path, default=Path("toy_city"))
    arguments = parser.parse_args()
    settings = parse_settings(
        ("--action", "demo", "--toy_root", str(arguments.toy_root), "--device", "cpu"),
        command_line.ACTIONS,
    )
    device = torch.device("cpu")
    validation = validation_samples(Role.TARGET, settings)
    images = unlabelled_samples(Role.TARGET, settings)

    def score(network) -> str:
        return f"{100 * evaluate(network, validation, settings, device).matrix.mean_iou():.1f}"

    for name in NETWORKS:
        path = arguments.demo / name / "latest.pth"
        network = new_network(settings)
        load_network(network, path)
        print(f"{name}: mIoU {score(network)} with the statistics of the training")
        for count in (count for count in COUNTS if count <= len(images)):
            parts = map(images.subset, draws(len(images), count))
            adapted = (with_statistics_of(network, part, settings, device) for part in parts)
            print(f"  of {count} target images: {', '.join(map(score, adapted))}", flush=True)


if __name__ == "__main__":
    main()
