"""A run that is killed or stopped anywhere ends as one that never was: real processes, real
signals, other numbers of workers."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support.helpers import MAIN, TINY, run_main
from utils.disk.run_folder import BEST, LATEST, PREVIOUS

ROOTS = ("--gta5_root", "toy/GTA5", "--cityscapes_root", "toy/Cityscapes")
LENGTH = ("--num_epochs", "4", "--fda_beta", "0.05")
OFTEN = ("--checkpoint_minutes", "0.00001")
TIMES = ("train_seconds", "images_per_second", "seconds")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A working directory with a Toy City and an uninterrupted run of FDA, `whole`."""
    folder = tmp_path_factory.mktemp("work")
    toy = ("--toy_train", "12", "--toy_val", "2", "--toy_size", "64", "96")
    done = run_main("--action", "make_toy_data", "--toy_root", "toy", *toy, cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run_main(*command("whole"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def command(name, *more, action="train_fda"):
    words = ("--action", action, "--save_model_path", "runs", "--save_keyword", name)
    return (*words, *ROOTS, *TINY, *LENGTH, *more)


def started(folder, *words):
    return subprocess.Popen(
        [sys.executable, str(MAIN), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def signalled(folder, signum, after, *words):
    """Runs a command in a group of its own, which gets the signal once the text was printed; the
    exit code and what was printed."""
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


def content(run):
    """All that a run leaves, but for measured times."""
    scores = json.loads((run / "scores.json").read_text())
    latest, best = (torch.load(run / name, weights_only=True) for name in (LATEST, BEST))
    for row in latest["history"]:
        for name in TIMES:
            row.pop(name, None)
    latest.pop("seconds")
    return {"latest": latest, "best": best, **{name: scores[name] for name in ("last", "best")}}


def assert_same(one, other, where=""):
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


def finished_like_the_whole(here, name, *more):
    done = run_main(*command(name, *more), cwd=here)
    assert done.returncode == 0, done.stderr
    assert_same(content(here / "runs" / name), content(here / "runs" / "whole"))
    return done.stdout


def test_killed_twice_it_ends_the_same(here):
    for attempt, workers in enumerate(("0", "1"), start=2):
        words = command("killed", *OFTEN, "--num_workers", workers)
        code, _ = signalled(here, signal.SIGKILL, b"epoch %d/4" % attempt, *words)
        assert code == -signal.SIGKILL
    printed = finished_like_the_whole(here, "killed", "--num_workers", "2")
    assert "continuing" in printed


@pytest.mark.parametrize("signum, workers", [(signal.SIGINT, "2"), (signal.SIGTERM, "2")])
def test_a_signal_stops_in_order_and_the_same_command_goes_on(here, signum, workers):
    name = f"stopped_{signum}"
    words = command(name, "--num_workers", workers)
    code, printed = signalled(here, signum, b"epoch 2/4", *words)
    assert code == 128 + signum, printed
    assert "stopped after step" in printed and "goes on from there" in printed
    assert "Traceback" not in printed
    finished_like_the_whole(here, name)


def test_two_processes_cannot_write_one_run(here):
    process = started(here, *command("twice", "--num_epochs", "5000", "--num_workers", "1"))
    try:
        while b"epoch 1/" not in os.read(process.stdout.fileno(), 4096):
            pass
        second = run_main(*command("twice", "--num_epochs", "5000"), cwd=here)
        assert second.returncode == 1
        assert f"is being written by process {process.pid} on" in second.stderr
        os.kill(process.pid, signal.SIGKILL)  # its worker may live on for a while
        process.wait(timeout=60)
        third = started(here, *command("twice", "--num_epochs", "5000"))
        printed = b""
        while b"/5000:" not in printed:  # it goes on where the first was killed
            some = os.read(third.stdout.fileno(), 4096)
            assert some, printed.decode()
            printed += some
        third.kill()
        third.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_taken(here, damage):
    name = f"damaged_{damage}"
    code, _ = signalled(here, signal.SIGKILL, b"epoch 3/4", *command(name))
    assert code == -signal.SIGKILL
    run = here / "runs" / name
    assert (run / PREVIOUS).exists()
    data = bytearray((run / LATEST).read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    data[len(data) // 3] ^= 1
    (run / LATEST).write_bytes(data)
    if damage == "gone":
        (run / LATEST).unlink()
    printed = finished_like_the_whole(here, name)
    assert damage == "gone" or "latest.pth cannot be read" in printed


def test_the_death_of_a_worker_is_an_error_and_no_hang(here):
    process = started(here, *command("orphaned", "--num_epochs", "5000", "--num_workers", "1"))
    printed = b""
    while b"epoch 1/" not in printed:
        printed += os.read(process.stdout.fileno(), 4096)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (workers := children.read_text().split()):
        time.sleep(0.1)
    os.kill(int(workers[0]), signal.SIGKILL)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"a process that loads data has died" in rest and b"Traceback" not in rest
