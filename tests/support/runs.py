"""Runs of the real command on Toy City: start them, stop them, compare two of them."""

import contextlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.distributed import TCPStore

from datasets.toy_city import make_toy_city
from tests.support.forked import MAIN, Command
from tests.support.helpers import TINY
from utils.disk.run_folder import BEST, LATEST

ROOTS = ("--gta5_root", "toy/GTA5", "--cityscapes_root", "toy/Cityscapes")
OFTEN = ("--checkpoint_minutes", "0.00001")
TIMES = ("train_seconds", "images_per_second", "seconds")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def make_toy(folder: Path, train: int, val: int, size: tuple[int, int] = (64, 96)) -> None:
    """Draw a Toy City where ROOTS finds it from `folder`."""
    make_toy_city(folder / "toy", train=train, val=val, size=size, seed=0)


def fda_command(name: str, *more: str) -> tuple[str, ...]:
    """Return the words that train FDA for four epochs in the run folder `name`."""
    words = ("--action", "train_fda", "--save_model_path", "runs", "--save_keyword", name)
    return (*words, *ROOTS, *TINY, "--num_epochs", "4", "--fda_beta", "0.05", *more)


def started(folder: Path, *words: str) -> Command:
    """Start a command in a process group of its own."""
    return Command((MAIN, *words), cwd=folder)


@contextlib.contextmanager
def two_started(*words: object, cwd: Path) -> Iterator[list[Command]]:
    """Start the two processes of a command with the environment that torchrun gives them; kill
    those that are left at the end of the block."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
        **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"},
        **{"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"},
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is this process's, not rank 0's
    }
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))
    commands = [Command(words, cwd=cwd, env={**shared, **rank}) for rank in ranks]
    try:
        yield commands
    finally:
        for command in commands:
            command.kill()


def signalled(folder: Path, signum: signal.Signals, after: bytes, *words: str) -> tuple[int, str]:
    """Signal a command's process group soon after it has printed `after`.

    Returns its exit code and all that it printed.
    """
    process = started(folder, *words)
    printed = read_until(re.escape(after), process)
    time.sleep(random.Random(after).uniform(0, 0.3))
    os.killpg(process.pid, signum)
    rest, _ = process.communicate(timeout=300)
    return process.returncode, (printed + rest).decode()


def read_until(pattern: bytes, process: Command) -> bytes:
    """Return what a command prints until that matches."""
    printed = b""
    while not re.search(pattern, printed):
        some = os.read(process.stdout.fileno(), 4096)
        assert some, printed.decode()
        printed += some
    return printed


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
