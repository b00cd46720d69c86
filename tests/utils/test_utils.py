import os
import subprocess
import sys

import pytest
import torch

from datasets.data_set import Role
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.forked import MAIN
from trainings.application.benchmark import benchmark
from trainings.scoring.checkpoints import load_checkpoints
from utils.errors import UsageError
from utils.processes import share_machine, usable_cores
from utils.utils import (
    arithmetic,
    ask_for_determinism,
    float32_products,
    is_out_of_memory,
    progress,
    resolve_device,
    resolve_precision,
    shapes_that_repeat,
    slow_precision,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
"""What a wheel of CUDA 13 is built for."""


@pytest.fixture
def card(monkeypatch):
    """A machine with a GPU of a compute capability, and a torch that is built for some."""

    def has(capability, built_for=WHEEL):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)

    return has


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
def test_auto_is_what_the_gpus_tensor_cores_take(card, capability, expected):
    card(capability)
    assert resolve_precision("auto", CUDA) == expected


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (12, 0), (13, 0)])
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_card_that_this_torch_has_kernels_for_is_taken(card, name, capability):
    card(capability)
    assert resolve_device(name) == CUDA


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [((6, 0), WHEEL), ((7, 0), WHEEL), ((11, 0), WHEEL), ((8, 0), ["sm_86"]), ((8, 9), ["sm_90a"])],
)
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_card_without_kernels_is_a_sentence_with_the_remedy(card, name, capability, built_for):
    card(capability, built_for)
    named = r"no kernels for a card \(compute capability {}\.{};".format(*capability)
    with pytest.raises(UsageError, match=named) as raised:
        resolve_device(name)
    assert "--device cpu" in str(raised.value) and built_for[0] in str(raised.value)
    assert resolve_device("cpu") == CPU


def test_cards_of_other_makers_are_taken(card):
    card((9, 4), ["gfx90a", "gfx942"])
    assert resolve_device("auto") == CUDA


def test_bf16_on_a_card_before_ampere_is_said_to_be_slow(card):
    card((7, 5))
    assert "--precision fp16" in slow_precision("bf16", CUDA)
    assert [slow_precision(name, CUDA) for name in ("auto", "fp16", "fp32")] == [None] * 3
    card((8, 0))
    assert slow_precision("bf16", CUDA) is None and slow_precision("bf16", CPU) is None


@pytest.mark.parametrize(
    "use",
    [
        lambda path, settings: benchmark((), settings),
        lambda path, settings: load_checkpoints([path], Role.TARGET, settings),
    ],
    ids=["benchmark", "scoring and prediction"],
)
def test_whatever_computes_in_slow_bf16_says_so_first(card, use, tmp_path, capsys):
    card((7, 5))
    path = tmp_path / "network.pth"
    torch.save(BiSeNet(base=8).state_dict(), path)
    words = {"precision": "bf16", "precisions": ("fp32", "bf16"), "base_width": 8}
    settings = Settings(**words, save_model_path=tmp_path)
    with pytest.raises((AssertionError, RuntimeError)):  # there is no card
        use(path, settings)
    assert capsys.readouterr().out.count("has no instructions for bf16") == 1


# --------------------------------------------------------------------------------- float32 and TF32


def products():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("name", ["auto", "fp32", "bf16", "fp16"])
def test_float32_is_float32_in_convolutions_too_unless_tf32_is_asked_for(name):
    before = products()
    with float32_products("tf32"):
        assert products() == (True, "high")
        with pytest.raises(ValueError), float32_products(name):
            assert products() == (False, "highest")
            raise ValueError
        assert products() == (True, "high")
    assert products() == before


def test_tf32_needs_an_ampere_card(card):
    card((8, 0))
    assert resolve_precision("tf32", CUDA) == torch.float32
    assert [arithmetic(name, CUDA) for name in ("fp32", "tf32")] == ["float32", "tf32"]
    card((7, 5))
    for device in (CUDA, CPU):
        with pytest.raises(UsageError, match=r"tf32 needs a CUDA GPU of the Ampere .* use fp32"):
            resolve_precision("tf32", device)


def test_cudnn_tries_algorithms_unless_results_are_to_repeat():
    assert not torch.backends.cudnn.benchmark
    with shapes_that_repeat():
        assert torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    try:
        with shapes_that_repeat():
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
    assert not torch.backends.cudnn.benchmark


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


@pytest.mark.slow
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
    assert 1 <= Settings().workers <= min(16, len(before)) and Settings(num_workers=7).workers == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Settings().workers <= max(1, len(before) // 2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    os.sched_setaffinity(0, {min(before)})
    try:
        assert Settings().workers == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("files", "one_core"),
    [
        ({"cpu.max": "100000 100000\n"}, True),
        ({"cpu.max": "max 100000\n"}, False),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, True),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, True),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, False),
        ({}, False),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path, files, one_core):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    cores = 1 if one_core else usable_cores(tmp_path / "none")
    assert usable_cores(tmp_path) == cores


def test_processes_that_share_a_machine_divide_its_cores(monkeypatch):
    cores = usable_cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        share_machine(1, 2, "cpu")
        assert torch.get_num_threads() == 2 and usable_cores() == max(1, cores // 2)
    finally:
        torch.set_num_threads(threads)
