"""The demo over several seeds, each with data, weights and order of its own: mean ± deviation.

    python benchmarks/seeds.py --seeds 1 2 3 --out seeds [flags of the demo]

Finished runs are skipped, as the demo skips them. Writes seeds.md and seeds.csv into the folder.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path

from timing import machine

MAIN = Path(__file__).resolve().parent.parent / "main.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("seeds"))
    arguments, demo_flags = parser.parse_known_args()
    tables = []
    for seed in arguments.seeds:
        folder = arguments.out / f"seed_{seed}"
        subprocess.run(
            [
                *(sys.executable, MAIN, "--action", "demo", "--seed", str(seed)),
                *("--toy_root", folder / "toy_city", "--save_model_path", folder, *demo_flags),
            ],
            check=True,
        )
        with (folder / "demo" / "results.csv").open() as file:
            tables.append(list(csv.reader(file)))
    rows = [tables[0][0], *(averaged(same) for same in zip(*(t[1:] for t in tables), strict=True))]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    seeds = " ".join(map(str, arguments.seeds))
    flags = f", {' '.join(demo_flags)}" if demo_flags else ""
    note = f"Seeds {seeds}{flags}: mean ± standard deviation. {machine('cpu')}"
    table = "\n".join([*lines, "", note]) + "\n"
    (arguments.out / "seeds.md").write_text(table)
    with (arguments.out / "seeds.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    print(table)


def averaged(same: tuple[list[str], ...]) -> list[str]:
    """One row of all tables: its name, and mean ± deviation of each filled cell."""
    assert len({row[0] for row in same}) == 1, same
    return [same[0][0], *(spread(cells) for cells in list(zip(*same, strict=True))[1:])]


def spread(cells: tuple[str, ...]) -> str:
    if "" in cells:
        return ""
    values = [float(cell) for cell in cells]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
