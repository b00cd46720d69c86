"""benchmarks/counts.py: what a step on a GPU launches and moves, by fake tensors of CUDA."""

import importlib
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")
pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def counts(monkeypatch):
    try:
        with FakeTensorMode():
            torch.empty(1, device="cuda").uniform_()
    except (AssertionError, RuntimeError):
        pytest.skip("without a GPU this torch has no fake tensors of one")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("counts")


@pytest.mark.parametrize("form", ["library", "fused"])
def test_a_supervised_step_launches_less_and_moves_less_than_in_bands(form, counts):
    bands, ours = (counts.counted("supervised", one, 8, (512, 1024), 64) for one in ("bands", form))
    assert ours.kernels.total() <= 700 < 1100 < bands.kernels.total()
    if form == "fused":
        assert ours.bytes.total() <= 0.6 * bands.bytes.total()
        assert ours.peak < bands.peak


def test_the_table_has_a_row_of_each_method(counts, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["counts.py", "--size", "64", "96", "--width", "8", "--forms", "fused"]
    )
    counts.main()
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if "/" in line]
    assert len(rows) == 1 + 4
