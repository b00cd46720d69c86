"""Time an epoch of FDA on 2048x1024 PNGs, by a plain pipeline and by the real command.

    python benchmarks/epoch.py --pairs 32

The plain pipeline decodes and resizes every picture in every epoch, in as many workers, and makes
the plain step of `step.py`, in float32. The command is `main.py --action train_fda`, in float32,
and in bfloat16 if the CPU has it; it builds its cache before its first epoch. Both train two epochs
of batches of 4 at 512x1024 on the CPU; the second epoch counts.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from step import plain_fda  # its neighbour
from timing import machine
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.labels import LABEL_ID_TO_TRAIN_ID
from datasets.samples import Batch, Sample
from datasets.toy_city import make_toy_city
from main import FlatSettings as Settings
from model.catalog import Design
from trainings.train_FDA import FDA
from utils.utils import bf16_instructions

MAIN = Path(__file__).resolve().parent.parent / "main.py"
DRAWN = (1024, 2048)
WIDTH_HEIGHT = (1024, 512)
EPOCHS, BATCH, WORKERS = 2, 4, 2


class PlainPairs(Dataset):
    """Source image and label, and target image, decoded and resized with PIL."""

    def __init__(self, city: Path):
        self.images = sorted((city / "GTA5" / "images").glob("*.png"))
        self.labels = sorted((city / "GTA5" / "labels").glob("*.png"))
        self.targets = sorted((city / "Cityscapes" / "leftImg8bit" / "train").glob("*/*.png"))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        label = Image.open(self.labels[index]).resize(WIDTH_HEIGHT, Image.Resampling.NEAREST)
        train_ids = LABEL_ID_TO_TRAIN_ID[np.asarray(label)]
        pictures = (decoded(paths[index]) for paths in (self.images, self.targets))
        return *pictures, torch.from_numpy(train_ids)


def decoded(path: Path) -> Tensor:
    picture = Image.open(path).convert("RGB").resize(WIDTH_HEIGHT, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def plain_epochs(city: Path) -> tuple[list[float], float]:
    """Return the seconds of each epoch, and those of the data alone."""
    settings = Settings(fda_beta=0.05)
    method = FDA(Design().build(), settings).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9, foreach=False)
    loader = DataLoader(
        PlainPairs(city), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for source, target, label in loader:
            optimizer.zero_grad()
            plain_fda(method, Batch(Sample(source, label, []), Sample(target, label, [])))
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in loader:
        pass
    return seconds, time.perf_counter() - start


def our_epochs(city: Path, folder: Path, precision: str) -> tuple[list[float], float]:
    """Return the seconds of each epoch, and those of the whole command."""
    command = [
        *(sys.executable, MAIN, "--action", "train_fda", "--fda_beta", "0.05"),
        *("--gta5_root", city / "GTA5", "--cityscapes_root", city / "Cityscapes"),
        *("--num_epochs", EPOCHS, "--validation_step", EPOCHS, "--batch_size", BATCH),
        *("--num_workers", WORKERS, "--cache_dir", folder / "cache"),
        *("--save_model_path", folder / "runs", "--save_keyword", "fda", "--device", "cpu"),
        *("--precision", precision),
    ]
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    seconds = time.perf_counter() - start
    with (folder / "runs" / "fda" / "history.csv").open() as file:
        return [float(row["train_seconds"]) for row in csv.DictReader(file)], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_toy_city(folder / "city", train=arguments.pairs, val=1, size=DRAWN, seed=0)
        plain, data = plain_epochs(folder / "city")
        ours = {
            name: our_epochs(folder / "city", folder / name, name)
            for name in ("fp32", *(["bf16"] if bf16_instructions() else []))
        }
    print(machine("cpu"))
    print(
        "\n| pipeline | second epoch s | as fast as plain | whole command s |\n|---|---:|---:|---:|"
    )
    print(f"| plain, fp32 | {plain[1]:.1f} | 1.00 x | |")
    for name, (epochs, command) in ours.items():
        ratio = plain[1] / epochs[1]
        print(f"| ours, {name} | {epochs[1]:.1f} | {ratio:.2f} x | {command:.1f} |")
    print(
        f"\n{arguments.pairs} pairs. The whole command starts, builds its cache, trains two epochs "
        f"and validates with both statistics. An epoch of plain's data alone: {data:.1f} s."
    )


if __name__ == "__main__":
    main()
