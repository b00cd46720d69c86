"""Time three ways to load real files: decode each time, build the cache, read from the cache.

    python benchmarks/data.py --pairs 8

The files are 2048x1024 pairs in Cityscapes' layout, drawn as PNGs into a temporary folder.
"""

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from timing import machine  # its neighbour
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.catalog import TrainingFiles, labelled
from datasets.data_set import Role
from datasets.loading.sets import training_samples
from datasets.samples import SampleDataset, as_tv_tensors
from datasets.toy_city import make_toy_city
from main import FlatSettings as Settings
from utils.transforms import AUGMENTATIONS, JointTransform, augmentation_codes

SIZE = (1024, 2048)

TORCHVISION = {
    "C": v2.ColorJitter(contrast=0.5),
    "S": v2.ColorJitter(saturation=0.5),
    "B": v2.ColorJitter(brightness=0.5),
}
"""The plain forms of the codes that have a faster one here."""


def epoch(samples: SampleDataset, number: int) -> float:
    """Return the seconds that one process takes for all samples."""
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
        settings = Settings(
            cityscapes_root=folder / "Cityscapes",
            cache_dir=Path("none"),
            num_workers=0,
        )
        files = labelled(Role.TARGET, "train", settings)
        data = TrainingFiles(Role.TARGET, files)
        report(data, settings, folder, args.aug_method)
    finally:
        shutil.rmtree(folder)


def report(data: TrainingFiles, settings: Settings, folder: Path, aug_method: str) -> None:
    cache = replace(settings, cache_dir=folder / "cache")
    decoding = training_samples(data, settings, 0)
    first = epoch(decoding, 0)
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        cached = training_samples(data, cache, 0)
    building = time.perf_counter() - start
    reading = epoch(cached, 0)
    rounds = [(epoch(decoding, number), epoch(cached, number)) for number in (1, 2, 3)]
    again, cached_again = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    augmented = epoch(training_samples(data, replace(cache, aug_method=aug_method), 0), 1)
    same = all(
        torch.equal(a, b)
        for index in range(len(cached))
        for a, b in zip(decoding[2, index][:2], cached[2, index][:2], strict=True)
    )
    assert same, "the cache changes a sample"
    pairs = len(data.files)
    size = "x".join(map(str, settings.image_size))
    print(f"{machine('cpu')}\n\n{pairs} pairs of {'x'.join(map(str, SIZE))} to {size}, one process")
    print("\n| form | ms a pair | as fast as plain |\n|---|---:|---:|")
    for name, seconds in (
        ("plain: decoding in every epoch", again),
        ("ours: reading from the cache", cached_again),
        (f"ours, and {aug_method}", augmented),
        ("floor: copying as many bytes", copying(cached)),
    ):
        print(f"| {name} | {1e3 * seconds / pairs:.2f} | {again / seconds:.1f} x |")
    share = (building + reading) / first
    codes = augmentation_codes(aug_method)
    own = {code: AUGMENTATIONS[code].make() for code in codes}
    plain, ours = (
        augmenting(cached, v2.Compose([forms[code] for code in codes]))
        for forms in ({**own, **TORCHVISION}, own)
    )
    print(f"\n| every sample with {aug_method}, one thread | ms a pair | as fast as plain |")
    print("|---|---:|---:|")
    for name, seconds in (("plain: torchvision's colours", plain), ("ours", ours)):
        print(f"| {name} | {1e3 * seconds / pairs:.2f} | {plain / seconds:.1f} x |")
    print(
        f"\nBuilding the cache and a first epoch take {share:.2f} times a first epoch without it."
    )


def augmenting(samples: SampleDataset, transform: JointTransform) -> float:
    """Return the seconds that a transform of all samples takes in one thread, as in a process that
    loads data: the median of five rounds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs = [
        as_tv_tensors(*(part.numpy() for part in samples[0, index][:2]))
        for index in range(len(samples))
    ]
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for image, label in pairs:
            transform(image, label)
        rounds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return statistics.median(rounds)


def copying(samples: SampleDataset) -> float:
    """Return the seconds that it takes to copy the bytes of all samples."""
    pairs = [samples[0, index][:2] for index in range(len(samples))]
    start = time.perf_counter()
    for image, label in pairs:
        image.clone(), label.clone()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
