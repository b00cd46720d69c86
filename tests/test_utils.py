import pytest
import torch

from utils.errors import UsageError
from utils.utils import ask_for_determinism, progress, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "capabilities, expected",
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bf16_where_the_cpu_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("fp32", CPU) == torch.float32


def test_an_older_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", CPU) == torch.float32


def test_half_precision_needs_a_gpu():
    with pytest.raises(UsageError, match="--precision"):
        resolve_precision("fp16", CPU)


def test_deterministic_algorithms_are_asked_for(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        ask_for_determinism()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_a_log_file_gets_lines_and_no_carriage_returns(capsys):
    with progress(None, "epoch 1/2", total=4, unit="image") as bar:
        for _ in range(4):
            bar.update()
    lines = capsys.readouterr().err
    assert "\r" not in lines and lines.endswith("\n") and "\n\n" not in lines
    assert [line.split("|")[0] for line in lines.splitlines()] == [
        "epoch 1/2:   0%",
        "epoch 1/2: 100%",
    ]
