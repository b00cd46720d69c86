import os
import subprocess
import sys

import pytest
import torch

from tests.helpers import MAIN
from utils.errors import UsageError
from utils.utils import (
    ask_for_determinism,
    is_out_of_memory,
    progress,
    resolve_precision,
    worker_count,
)

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


@pytest.mark.parametrize(
    "capability, expected",
    [
        ((6, 1), torch.float32),  # Pascal
        ((7, 5), torch.float16),  # T4
        ((8, 0), torch.bfloat16),  # A100
        ((9, 0), torch.bfloat16),
    ],
)
def test_auto_is_what_the_gpus_tensor_cores_take(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_memory_that_has_run_out_is_known_in_all_its_words(error, expected):
    assert is_out_of_memory(error) == expected


def test_tensorflow_is_not_imported(tmp_path):
    """TensorBoard takes it wherever it is installed, as on Colab."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('imported')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(MAIN), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone can choose cores")
def test_auto_takes_a_worker_for_each_core_that_a_process_may_use(monkeypatch):
    before = os.sched_getaffinity(0)
    assert 1 <= worker_count("auto") <= min(16, len(before)) and worker_count(7) == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert worker_count("auto") <= max(1, len(before) // 2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    os.sched_setaffinity(0, {min(before)})
    try:
        assert worker_count("auto") == 1
    finally:
        os.sched_setaffinity(0, before)
