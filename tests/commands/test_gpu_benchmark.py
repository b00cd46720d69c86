"""benchmarks/gpu.py runs on the CPU, at a tiny size."""

import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.forked import quick_python

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *("--device", "cpu", "--size", "64", "96", "--batch", "2", "--width", "8", "--workers", "0"),
    *("--steps", "1", "--curve_steps", "3", "--forms", "fp32", "fp16"),
)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


TABLES = re.compile(r"(<!-- gpu.py (\w+) -->).*?(<!-- end of \2 -->)", re.DOTALL)
"""The parts of benchmarks/README.md that the script fills."""


@pytest.fixture
def readme(tmp_path):
    """The page before any table is filled."""
    path = tmp_path / "README.md"
    page = (ROOT / "benchmarks" / "README.md").read_text()
    path.write_text(TABLES.sub(r"\1\n\nOpen\n\n\3", page))
    return path


def test_the_tables_are_filled_and_the_rest_stays(gpu, readme):
    """A form that fails says why, and costs no other row."""
    parts = ("speed", "loaders", "curves")
    before = readme.read_text()
    gpu.main([*TINY, "--out", str(readme), "--parts", *parts])
    gpu.main([*TINY, "--out", str(readme), "--parts", "profile", "--methods", "supervised"])
    after = readme.read_text()
    assert after.count("\nOpen\n") == len(gpu.PARTS) - len(parts) - 1
    for part in ("speed", "curves"):
        rows = re.search(rf"gpu.py {part} -->(.*?)<!--", after, re.DOTALL).group(1)
        for method in gpu.METHODS:
            assert re.search(rf"\| {method} +\| fp32 +\| \d+\.\d", rows), rows
            assert re.search(rf"\| {method} +\| fp16 +\| UsageError: .*needs a CUDA GPU", rows)
    assert "aten::convolution_backward" in after or "aten::mkldnn_convolution" in after
    assert TABLES.sub(r"\1\3", after) == TABLES.sub(r"\1\3", before)


def test_correctness_is_the_tests_for_the_gpu(gpu, readme, monkeypatch):
    """Three of them run here on the CPU: gradients, waits, and two processes."""
    monkeypatch.setattr(sys, "executable", str(quick_python()))
    chosen = "gradient and simple and fp16 or simple-sgd and bf16 or two_processes_on"
    gpu.main([*TINY, "--out", str(readme), "--parts", "correctness", "--tests", chosen])
    rows = readme.read_text()
    assert re.search(r"test_every_terms_gradient_is_that_of_float32_on_a_cpu +\| 1 of 1", rows), (
        rows
    )
    assert re.search(r"test_no_step_waits_for_the_device +\| 1 of 1", rows), rows
    assert re.search(r"test_two_processes_on_one_card_train_as_one +\| 1 of 1", rows), rows


def test_after_its_minutes_no_row_is_begun(gpu, readme):
    gpu.main([*TINY, "--out", str(readme), "--minutes", "0", "--suite"])
    assert "\nOpen\n" not in readme.read_text()
    assert readme.read_text().count("no time left") > len(gpu.PARTS)


@pytest.mark.skipif(sys.platform != "linux", reason="a process is looked for in /proc")
def test_a_command_whose_time_is_over_leaves_no_process(gpu, tmp_path):
    words = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.within(1.0, ["sh", "-c", words])
    child = int((tmp_path / "child").read_text())
    status, deadline = Path(f"/proc/{child}/stat"), time.monotonic() + 30
    while status.exists() and ") Z " not in status.read_text():  # a zombie until its parent looks
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_gpu_it_says_so(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch sees no CUDA GPU here" in capsys.readouterr().err
