"""The data path on real files: decoding every time, building the cache, and reading from it.

    python benchmarks/data.py --pairs 8

Draws 2048x1024 pairs in Cityscapes' layout, as PNGs, into a temporary folder.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from timing import machine  # its neighbour

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.samples import SampleDataset
from datasets.toy_city import make_toy_city
from trainings.loaders import Domain, TrainingFiles, labelled, training_samples
from utils.settings import Settings, with_derived_defaults

SIZE = (1024, 2048)


def epoch(samples: SampleDataset, number: int) -> float:
    """Seconds that one process takes for all samples."""
    start = time.perf_counter()
    for index in range(len(samples)):
        samples[number, index]
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--aug_method", default="C-S-HF")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        make_toy_city(folder, train=args.pairs, val=1, size=SIZE, seed=0)
        settings = with_derived_defaults(
            Settings(
                cityscapes_root=folder / "Cityscapes",
                cache_dir=Path("none"),
                num_workers=0,
            )
        )
        files = labelled(Domain.CITYSCAPES, "train", settings)
        data = TrainingFiles(Domain.CITYSCAPES, files)
        report(data, settings, folder, args.aug_method)
    finally:
        shutil.rmtree(folder)


def report(data: TrainingFiles, settings: Settings, folder: Path, aug_method: str) -> None:
    print(f"{machine('cpu')}; {len(data.files)} pairs of {SIZE} to {settings.image_size}")
    cache = replace(settings, cache_dir=folder / "cache")
    decoding = training_samples(data, settings, 0)
    first = epoch(decoding, 0)
    start = time.perf_counter()
    cached = training_samples(data, cache, 0)
    building = time.perf_counter() - start
    reading = epoch(cached, 0)
    again, cached_again = epoch(decoding, 1), epoch(cached, 1)
    augmented = epoch(training_samples(data, replace(cache, aug_method=aug_method), 0), 1)
    same = all(
        torch.equal(a, b)
        for index in range(len(cached))
        for a, b in zip(decoding[2, index][:2], cached[2, index][:2], strict=True)
    )
    pairs = len(data.files)
    for name, seconds in (
        ("decoding, first epoch", first),
        ("building the cache", building),
        ("reading, first epoch", reading),
        ("decoding, second epoch", again),
        ("reading, second epoch", cached_again),
        (f"reading and {aug_method}", augmented),
    ):
        print(f"{name:24} {1e3 * seconds / pairs:8.2f} ms a pair")
    print(
        f"second epoch {again / cached_again:.0f} x; building and first epoch "
        f"{(building + reading) / first:.2f} x a first epoch without; equal: {same}"
    )


if __name__ == "__main__":
    main()
