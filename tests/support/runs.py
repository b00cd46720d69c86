"""Runs of the real command on Toy City: start them, stop them, compare two of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from datasets.toy_city import make_toy_city
from tests.support.helpers import MAIN, TINY
from utils.disk.run_folder import BEST, LATEST

ROOTS = ("--gta5_root", "toy/GTA5", "--cityscapes_root", "toy/Cityscapes")
OFTEN = ("--checkpoint_minutes", "0.00001")
TIMES = ("train_seconds", "images_per_second", "seconds")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def make_toy(folder: Path, train: int, val: int, size: tuple[int, int] = (64, 96)) -> None:
    """Draw a Toy City where ROOTS finds it from `folder`."""
    make_toy_city(folder / "toy", train=train, val=val, size=size, seed=0)


def fda_command(name: str, *more: str) -> tuple[str, ...]:
    """Return the words that train FDA for four epochs in the run folder `name`."""
    words = ("--action", "train_fda", "--save_model_path", "runs", "--save_keyword", name)
    return (*words, *ROOTS, *TINY, "--num_epochs", "4", "--fda_beta", "0.05", *more)


def started(folder: Path, *words: str) -> subprocess.Popen:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(MAIN), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def signalled(folder: Path, signum: signal.Signals, after: bytes, *words: str) -> tuple[int, str]:
    """Signal a command's process group soon after it has printed `after`.

    Returns its exit code and all that it printed.
    """
    process = started(folder, *words)
    printed = b""
    while after not in printed:
        some = os.read(process.stdout.fileno(), 4096)
        assert some, printed.decode()
        printed += some
    time.sleep(random.Random(after).uniform(0, 0.3))
    os.killpg(process.pid, signum)
    rest, _ = process.communicate(timeout=300)
    return process.returncode, (printed + rest).decode()


def content(run: Path) -> dict[str, object]:
    """Return all that a run leaves, except measured times."""
    scores = json.loads((run / "scores.json").read_text())
    latest, best = (torch.load(run / name, weights_only=True) for name in (LATEST, BEST))
    for row in latest["history"]:
        for name in TIMES:
            row.pop(name, None)
    latest.pop("seconds")
    return {"latest": latest, "best": best, **{name: scores[name] for name in ("last", "best")}}


def assert_same(one: object, other: object, where: str = "") -> None:
    """Compare nested dictionaries, lists and tensors bit by bit; `where` names the place."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), where
