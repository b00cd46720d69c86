"""The fused CUDA kernels, interpreted and compiled without a GPU, and run on one."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datasets.labels import IGNORE
from utils.losses import OHEM_THRESHOLD, segmentation_loss

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from tests.support.fused_interpreted import example, plain, plain_losses  # noqa: E402
from utils import fused_cross_entropy as fused  # noqa: E402

INTERPRETED = Path(__file__).parents[1] / "support" / "fused_interpreted.py"


@pytest.mark.slow
def test_the_interpreted_kernels_compute_the_loss():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", INTERPRETED]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def ptxas():
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    found = str(path) if path.exists() else shutil.which("ptxas")
    return found or pytest.skip("needs ptxas, which Triton's wheel for CUDA brings along")


def registers(ptx: str, capability: int, ptxas: str, folder: Path) -> int:
    """Registers of a thread, by NVIDIA's assembler, which must spill none."""
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    (target,) = re.findall(r"\.target (\w+)", ptx)
    assert target.startswith(f"sm_{capability}")
    command = [ptxas, "-v", f"--gpu-name={target}", source, "-o", folder / "kernel.cubin"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.findall(r"(\d+) bytes spill", told) == ["0", "0"], told
    return int(re.search(r"Used (\d+) registers", told).group(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "capability, ones, of_each_pixel",
    [
        (75, ("class_stride",), False),
        (75, ("class_stride",), True),
        (80, ("column_stride",), False),
        (90, ("last_row", "last_column", "last"), False),
        (90, ("rows", "columns", "height", "width", "column_stride"), False),
    ],
)
@pytest.mark.skipif(
    "constexprs" not in inspect.signature(ASTSource).parameters,
    reason="Triton below 3.3 takes constants in another way",
)
def test_the_kernels_compile_without_a_gpu_and_stay_in_registers(
    capability, ones, of_each_pixel, ptxas, monkeypatch, tmp_path
):
    """Triton compiles arguments that are 1 as constants."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"CLASSES": 32, "COLUMNS": fused.COLUMNS, "BLOCK": fused.BLOCK, "NO_CLASS": -1e30}
    sizes["OF_EACH_PIXEL"] = of_each_pixel
    sizes |= dict.fromkeys(ones, 1)
    if of_each_pixel:
        sizes |= {"weight": None, "gradient": None}
    pointers = {"logits": "*fp16", "label": "*u8"}
    pointers |= dict.fromkeys(("weight", "losses", "gradient", "wide", "narrow"), "*fp32")
    for kernel in (fused._cross_entropy_kernel, fused._narrowing_kernel):
        names = kernel.arg_names
        constants = {(names.index(name),): sizes[name] for name in names if name in sizes}
        signature = {name: pointers.get(name, "i32") for name in names}
        signature |= dict.fromkeys((name for name in names if name in sizes), "constexpr")
        source = ASTSource(kernel, signature, constexprs=constants)
        warps = fused.WARPS if kernel is fused._cross_entropy_kernel else 4  # Triton's own number
        target, options = GPUTarget("cuda", capability, 32), {"num_warps": warps}
        compiled = triton.compile(source, target=target, options=options)
        assert registers(compiled.asm["ptx"], capability, ptxas, tmp_path) <= 224
        assert compiled.metadata.shared <= 16 * 1024


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def on_gpu(request):
    """Logits and labels on a GPU, at a training's size."""
    fused.try_out(torch.device("cuda"))
    sizes = {"classes": 19, "count": 2, "dtype": request.param}
    logits, label, _ = example((64, 128), (512, 1024), **sizes)
    return logits.detach().cuda(), label.cuda()


@pytest.mark.gpu
def test_a_gpu_finds_the_same_in_every_run_and_never_waits(on_gpu):
    logits, label = on_gpu
    logits.requires_grad_()
    expected = plain(logits, label, 1 / (label != IGNORE).sum())
    (wanted,) = torch.autograd.grad(4096 * expected, logits)
    results = []
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        loss = segmentation_loss([logits], label)
        results.append((loss, *torch.autograd.grad(4096 * loss, logits)))
        torch.cuda.set_sync_debug_mode("default")
    assert all(map(torch.equal, *results))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    rtol = 1e-4 if logits.dtype == torch.float32 else 1e-2
    torch.testing.assert_close(results[0][1], wanted, rtol=rtol, atol=1e-4)


@pytest.mark.gpu
def test_a_gpu_chooses_hard_pixels_without_waiting_and_without_full_size_logits(on_gpu):
    logits, label = on_gpu
    losses = fused.fused_losses(logits, label.masked_fill(label == IGNORE, 0))
    exact = plain_losses(logits, label).flatten()
    counted = (label != IGNORE).flatten()
    found = losses.double().flatten()[counted]
    torch.testing.assert_close(found, exact[counted], rtol=1e-4, atol=1e-5)
    hardest = exact.sort(descending=True).values[exact.numel() // 16 - 1]
    hard = counted & (exact >= hardest.clamp(max=OHEM_THRESHOLD))
    del losses, found
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("error")
    loss = segmentation_loss([logits], label, ohem=True)
    torch.cuda.set_sync_debug_mode("default")
    assert loss.item() == pytest.approx(exact[hard].mean().item(), rel=1e-4)
    full_size = 4 * logits.shape[1] * label.numel()
    assert torch.cuda.max_memory_allocated() - before < full_size
