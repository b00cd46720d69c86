"""Kill trainings at random moments, run them to their end, and compare with uninterrupted runs.

    python benchmarks/kills.py --kills 50 --out kills

Every kind of training is killed, and the making of pseudo-labels; all files that a run leaves are
compared. Trainings save after every step, so that many kills happen while a checkpoint is written;
the number of workers changes from attempt to attempt. The script ends with exit code 1 at the first
difference.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.helpers import MAIN, TINY, run_main
from tests.support.runs import OFTEN, ROOTS, assert_same, content, make_toy
from trainings.scoring.pseudo_label_folder import SUMMARY

EPOCHS = "4"
BETAS = ("0.01", "0.05", "0.09")
TRAININGS = ("train_simple_gta5", "train_ada", "train_fda", "train_ssl_fda")
LABELS = "generate_pseudo_labels"
ACTIONS = (*TRAININGS, LABELS)


def command(action: str, name: str, workers: int) -> tuple[str, ...]:
    common = (*("--action", action, "--save_model_path", "runs"), *ROOTS, *TINY)
    common += ("--num_workers", str(workers))
    if action == LABELS:
        return (*common, "--pseudo_label_path", f"runs/{name}")
    labels = ("--pseudo_label_path", "labels") if action == "train_ssl_fda" else ()
    return (*common, "--save_keyword", name, "--num_epochs", EPOCHS, *OFTEN, *labels)


def prepare(folder: Path) -> None:
    """Make a Toy City, and the three networks and the labels that self-training starts from."""
    make_toy(folder, train=16, val=2)
    common = ("--save_model_path", "runs", *ROOTS, *TINY)
    steps = [
        ("--action", "train_fda", "--fda_beta", beta, "--num_epochs", "1", *common)
        for beta in BETAS
    ]
    steps.append(("--action", LABELS, "--pseudo_label_path", "labels", *common))
    for words in steps:
        done = run_main(*words, cwd=folder)
        assert done.returncode == 0, done.stderr


def left(action: str, run: Path) -> object:
    if action != LABELS:
        return content(run)
    labels = sorted((run / "train").rglob("*.*"))
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in labels}
    return {**digests, "thresholds": json.loads((run / SUMMARY).read_text())["classes"]}


def whole(folder: Path, action: str, name: str, workers: int = 0) -> float:
    """Run a command to its end and return its seconds."""
    start = time.perf_counter()
    done = run_main(*command(action, name, workers), cwd=folder)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - start


def killed(folder: Path, action: str, name: str, workers: int, after: float) -> bool:
    """Run a command for some seconds and kill it; return whether it was still running."""
    process = subprocess.Popen(
        [sys.executable, str(MAIN), *command(action, name, workers)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )
    try:
        process.wait(after)
        assert process.returncode == 0, f"{action} {name}: exit {process.returncode}"
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--actions", nargs="+", default=ACTIONS, choices=ACTIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills"))
    arguments = parser.parse_args()
    draw, folder = random.Random(arguments.seed), arguments.out.resolve()
    prepare(folder)
    quota = -(-arguments.kills // len(arguments.actions))
    kills = 0
    for action in arguments.actions:
        seconds = whole(folder, action, f"{action}_whole")
        expected = left(action, folder / "runs" / f"{action}_whole")
        survived = runs = 0
        while survived < quota:
            name = f"{action}_{runs}"
            while survived < quota and killed(
                folder, action, name, draw.choice((0, 1, 2)), draw.uniform(0.2, 1.0) * seconds
            ):
                survived += 1
            whole(folder, action, name, workers=1)
            assert_same(left(action, folder / "runs" / name), expected, name)
            runs += 1
        kills += survived
        print(
            f"{action}: {survived} kills, {runs} runs, all like the uninterrupted one", flush=True
        )
    print(f"{kills} kills, none lost anything")


if __name__ == "__main__":
    main()
