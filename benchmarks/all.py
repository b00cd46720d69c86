"""Run every benchmark of speed one after another, and write benchmarks/results.md.

    python benchmarks/all.py

It takes 12 to 20 minutes on 2 CPU cores; nothing else should run at the same time. `precision.py`,
which measures the mIoU that a lower precision costs, takes longer and is left out.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

PARTS = {
    "The data path": ("data.py --pairs 8",),
    "FDA": (
        "fda.py --size 512 1024",
        "fda.py --size 256 512 --betas 0.05",
        "fda.py --size 1024 2048 --betas 0.05 --rounds 5",
        "fda.py --size 512 1024 --batch 4 --rounds 5",
    ),
    "A training step": (
        "step.py --size 512 1024 --batch 4",
        "step.py --size 256 512 --batch 4 --methods supervised",
        "step.py --size 256 512 --batch 8 --methods supervised",
        "step.py --size 720 1280 --batch 2 --methods supervised",
    ),
    "The discriminators": ("discriminator.py",),
    "Validation and pseudo-labels": ("validation.py",),
    "Inference": ("inference.py --size 512 1024", "inference.py --size 1024 2048"),
    "An epoch": ("epoch.py --pairs 32",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER / "results.md")
    arguments = parser.parse_args()
    start = time.perf_counter()
    sections = ["# Benchmarks\n\nWritten by `python benchmarks/all.py`."]
    for title, commands in PARTS.items():
        sections.append(f"## {title}")
        for command in commands:
            script, *flags = shlex.split(command)
            print(f"after {time.perf_counter() - start:.0f} s: {command}", flush=True)
            result = subprocess.run(
                [sys.executable, FOLDER / script, *flags],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            sections.append(f"`python benchmarks/{command}`\n\n{result.stdout.strip()}")
        arguments.out.write_text("\n\n".join(sections) + "\n")
    minutes = (time.perf_counter() - start) / 60
    print(f"{arguments.out} after {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
