"""Measure the mIoU that a lower precision costs, by trainings on Toy City over several seeds.

    python benchmarks/precision.py --precisions fp32 bf16 --seeds 1 2 3 --out precision

Each seed has its own city, weights and order, the same for every precision. Scores are therefore
compared in pairs: the table gives the mean and the standard deviation of each precision's
difference to the first one. Finished runs are skipped.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from timing import machine  # its neighbour

MAIN = Path(__file__).resolve().parent.parent / "main.py"

TRAININGS = {
    "source-only": ("train_simple_gta5",),
    "FDA 0.05": ("train_fda", "--fda_beta", "0.05"),
    "ADA": ("train_ada", "--discriminator", "light"),
}
RECIPE = (
    *("--image_size", "128", "256", "--source_resize", "128", "256", "--base_width", "32"),
    *("--optimizer", "adamw", "--learning_rate", "2e-3", "--batch_size", "4"),
    *("--num_epochs", "15", "--validation_step", "15", "--num_workers", "0"),
)
"""The demo's, before its learning rate became 0.008 and it took `--ohem`."""


def run(*arguments: str | Path) -> None:
    command = [sys.executable, MAIN, "--action", *arguments]
    subprocess.run([str(word) for word in command], check=True)


def trained(folder: Path, seed: int, precision: str, name: str) -> dict[str, float]:
    """Return the mIoU of one training in %: of its last epoch, and with the target's statistics."""
    city, runs = folder / "toy_city", folder / precision
    common = ("--seed", str(seed), "--precision", precision, "--save_model_path", runs)
    roots = ("--gta5_root", city / "GTA5", "--cityscapes_root", city / "Cityscapes")
    keyword = name.replace(" ", "_")
    run(*TRAININGS[name], *common, *roots, *RECIPE, "--save_keyword", keyword)
    scores = json.loads((runs / keyword / "scores.json").read_text())
    if "last_target_statistics" not in scores:
        return {f"{name}, on the synthetic look": 100 * scores["last"]["mIoU"]}
    return {
        name: 100 * scores["last"]["mIoU"],
        f"{name}, target statistics": 100 * scores["last_target_statistics"]["mIoU"],
    }


def line(name: str, scores: Sequence[Sequence[float]]) -> str:
    """Return a row of the table from the scores of every precision, seed by seed."""
    cells = [f"{statistics.mean(one):.1f} ({', '.join(f'{s:.1f}' for s in one)})" for one in scores]
    first, *others = scores
    differences = []
    for one in others:
        pairs = [b - a for a, b in zip(first, one, strict=True)]
        deviation = statistics.stdev(pairs) if len(pairs) > 1 else 0.0
        differences.append(f"{statistics.mean(pairs):+.1f} ± {deviation:.1f}")
    return f"| {name} | {' | '.join([*cells, *differences])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("precision"))
    arguments = parser.parse_args()
    scores: dict[str, list[list[float]]] = {}
    for seed in arguments.seeds:
        folder = arguments.out / f"seed_{seed}"
        run("make_toy_data", "--toy_root", folder / "toy_city", "--seed", str(seed))
        for place, precision in enumerate(arguments.precisions):
            for name in TRAININGS:
                for row, score in trained(folder, seed, precision, name).items():
                    columns = scores.setdefault(row, [[] for _ in arguments.precisions])
                    columns[place].append(score)
    header = ["mIoU %", *arguments.precisions, *(f"{p} wins" for p in arguments.precisions[1:])]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [line(name, columns) for name, columns in scores.items()]
    table = "\n".join([*lines, "", machine("cpu")])
    (arguments.out / "precision.md").write_text(table + "\n")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
