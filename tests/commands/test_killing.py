"""A run that was killed or stopped ends with the same files as an undisturbed one.

Real processes get real signals, and continue with another number of workers.
"""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import main
from tests.support.helpers import run_main
from tests.support.runs import (
    OFTEN,
    assert_same,
    content,
    fda_command,
    make_toy,
    read_until,
    signalled,
    started,
)
from utils.disk.run_folder import LATEST, PREVIOUS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A working directory with a Toy City and an uninterrupted run of FDA, `whole`."""
    folder = tmp_path_factory.mktemp("work")
    make_toy(folder, train=12, val=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(fda_command("whole")) == 0
    return folder


@pytest.fixture
def here(data, monkeypatch):
    monkeypatch.chdir(data)
    return data


def finished_like_the_whole(here, capsys, name, *more):
    """Finish a run in this process, compare it with the uninterrupted one, return its output."""
    capsys.readouterr()
    assert main.main(fda_command(name, *more)) == 0
    assert_same(content(here / "runs" / name), content(here / "runs" / "whole"))
    return capsys.readouterr().out


def test_killed_twice_it_ends_the_same(here, capsys):
    for attempt, workers in enumerate(("0", "1"), start=2):
        words = fda_command("killed", *OFTEN, "--num_workers", workers)
        code, _ = signalled(here, signal.SIGKILL, b"epoch %d/4" % attempt, *words)
        assert code == -signal.SIGKILL
    printed = finished_like_the_whole(here, capsys, "killed", "--num_workers", "2")
    assert "continuing" in printed


@pytest.mark.parametrize("signum, workers", [(signal.SIGINT, "2"), (signal.SIGTERM, "2")])
def test_a_signal_stops_in_order_and_the_same_command_goes_on(here, capsys, signum, workers):
    name = f"stopped_{signum}"
    words = fda_command(name, "--num_workers", workers)
    code, printed = signalled(here, signum, b"epoch 2/4", *words)
    assert code == 128 + signum, printed
    assert "stopped after step" in printed and "goes on from there" in printed
    assert "Traceback" not in printed
    finished_like_the_whole(here, capsys, name)


def test_two_processes_cannot_write_one_run(here):
    process = started(here, *fda_command("twice", "--num_epochs", "5000", "--num_workers", "1"))
    try:
        read_until(b"epoch 1/", process)
        second = run_main(*fda_command("twice", "--num_epochs", "5000"), cwd=here)
        assert second.returncode == 1
        assert f"is being written by process {process.pid} on" in second.stderr
        os.kill(process.pid, signal.SIGKILL)  # its worker may live on for a while
        process.wait(timeout=60)
        third = started(here, *fda_command("twice", "--num_epochs", "5000"))
        read_until(b"/5000:", third)  # it goes on where the first was killed
        third.kill()
        third.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def killed(data):
    """A copy of the run `damaged`, which was killed in its third epoch."""
    code, _ = signalled(data, signal.SIGKILL, b"epoch 3/4", *fda_command("damaged"))
    assert code == -signal.SIGKILL
    return shutil.move(data / "runs" / "damaged", data / "killed")


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_taken(here, killed, capsys, damage):
    run = here / "runs" / "damaged"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(killed, run)
    assert (run / PREVIOUS).exists()
    data = bytearray((run / LATEST).read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    data[len(data) // 3] ^= 1
    (run / LATEST).write_bytes(data)
    if damage == "gone":
        (run / LATEST).unlink()
    printed = finished_like_the_whole(here, capsys, "damaged")
    assert damage == "gone" or "latest.pth cannot be read" in printed


def test_the_death_of_a_worker_is_an_error_and_no_hang(here):
    process = started(here, *fda_command("orphaned", "--num_epochs", "5000", "--num_workers", "1"))
    read_until(b"epoch 1/", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (workers := children.read_text().split()):
        time.sleep(0.1)
    os.kill(int(workers[-1]), signal.SIGKILL)  # the newest
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"a process that loads data has died" in rest and b"Traceback" not in rest


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' list of children")
@pytest.mark.parametrize("ending", ["interrupted", "killed", "one of them killed"])
def test_steps_side_by_side_end_with_their_command_and_go_on_with_it(tmp_path, ending):
    words = (
        *("--action", "demo", "--jobs", "2", "--toy_train", "8", "--toy_val", "2"),
        *("--toy_size", "64", "96", "--num_epochs", "2", "--base_width", "8"),
        *("--num_workers", "0", "--save_model_path", "runs"),
    )
    process = started(tmp_path, *words)
    printed = read_until(rb"/14  ", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [n for n in children if b"spawn_main" in Path("/proc", n, "cmdline").read_bytes()]
    assert len(workers) == 2
    time.sleep(0.5)  # until both are at work
    if ending == "one of them killed":
        os.kill(int(workers[0]), signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGINT if ending == "interrupted" else signal.SIGKILL)
    rest, _ = process.communicate(timeout=120)
    text = (printed + rest).decode()
    code, said = {
        "interrupted": (130, "goes on from there"),
        "killed": (-signal.SIGKILL, ""),
        "one of them killed": (1, "was ended from outside"),
    }[ending]
    assert process.returncode == code and said in text and "Traceback" not in text, text
    assert "leaked" not in text
    until = time.monotonic() + 60
    while any(Path("/proc", number).exists() for number in workers):
        assert time.monotonic() < until, "a process has outlived its command"
        time.sleep(0.1)
    if ending == "interrupted":
        again = started(tmp_path, *words)
        finished = printed.count(b"/14  ")
        goes_on = rb"(?s)(finished before.*){%d,}/14  [^\n]*\(\d+ s\)" % finished
        assert b"Traceback" not in read_until(goes_on, again)
        again.kill()
