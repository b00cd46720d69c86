"""benchmarks/counts.py counts the kernels and bytes of a step on a GPU, with fake CUDA tensors."""

import importlib
from pathlib import Path

import pytest
import torch

from benchmarks.fake_cuda import fake_cuda
from utils.losses import segmentation_loss

pytest.importorskip("triton")
pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def counts(monkeypatch):
    try:
        with fake_cuda():
            pass
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
    assert len(rows) == 1 + len(counts.METHODS)


@pytest.mark.parametrize(
    ("capability", "classes", "fused"),
    [((8, 0), 19, True), ((8, 0), 40, False), ((6, 0), 19, False)],
)
def test_a_gpu_takes_the_fused_form_where_it_can(capability, classes, fused, counts):
    with fake_cuda(capability):
        logits, label = torch.zeros(2, classes, 4, 6), torch.zeros(2, 32, 48, dtype=torch.uint8)
        segmentation_loss([logits], label)  # tries the kernels out
        with counts.Count() as count:
            segmentation_loss([logits], label)
    assert ("losses_and_gradient" in count.operators) == fused
    assert ("upsample_bilinear2d" in count.operators) != fused
