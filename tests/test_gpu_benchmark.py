"""benchmarks/gpu.py tries itself out on the CPU, at a tiny size."""

import importlib
import re
import warnings
from pathlib import Path

import pytest
import torch

import main

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    *("--device", "cpu", "--size", "64", "96", "--batch", "2", "--width", "8", "--workers", "0"),
    *("--steps", "1", "--curve_steps", "3", "--seeds", "1", "2", "--forms", "fp32", "fp16"),
)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text((ROOT / "benchmarks" / "README.md").read_text())
    return path


def test_the_tables_are_filled_and_the_rest_stays(gpu, readme):
    parts = ("speed", "profile", "curves", "waits")
    before = readme.read_text()
    gpu.main([*TINY, "--methods", "supervised", "ADA", "--out", str(readme), "--parts", *parts])
    after = readme.read_text()
    assert after.count("Open: no GPU") == 1 and after.count("<!--") == before.count("<!--")
    assert "| ADA        | fp16 | not on this device |" in after
    assert "aten::convolution_backward" in after or "aten::mkldnn_convolution" in after
    assert "3 steps of batches of 2 at 64x64" in after
    outside = re.compile(r"(<!-- gpu.py (\w+) -->).*?(<!-- end of \2 -->)", re.DOTALL)
    assert outside.sub(r"\1\3", after) == outside.sub(r"\1\3", before)
    gpu.fill(readme, "speed", "new")
    assert "not on this device" not in readme.read_text()


def test_actions_are_run_by_the_real_command(gpu, readme, monkeypatch):
    commands = (("make_toy_data",), ("val_gta5_transfer",))
    monkeypatch.setattr(gpu, "COMMANDS", commands)
    gpu.main([*TINY, "--out", str(readme), "--parts", "actions"])
    rows = [line for line in readme.read_text().splitlines() if "_" in line and "|" in line]
    codes = {cells[1].strip(): cells[2].strip() for cells in (row.split("|") for row in rows)}
    assert codes["make_toy_data"] == "0" and codes["val_gta5_transfer"] == "1"


def test_every_action_is_among_them(gpu):
    assert {words[0] for words in gpu.COMMANDS} == set(main.ACTIONS)


def test_a_wait_is_told_from_other_warnings(gpu):
    with gpu._noticing_waits("cpu") as noticed:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert len(noticed) == 2


def test_without_a_gpu_it_says_so(gpu, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch sees no CUDA GPU here" in capsys.readouterr().err
