"""Correctness on a CUDA device: `pytest -m gpu`."""

import contextlib
import signal
from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

import main
from model.catalog import Design
from model.model_stages import BiSeNet
from tests.support import forked, gpu_worker
from tests.support.distributed_worker import OTHER, global_batch
from tests.support.gpu_worker import METHODS
from tests.support.helpers import TINY, run_main
from tests.support.methods import all_terms
from tests.support.runs import OFTEN, ROOTS, TORCHRUN, fda_command, make_toy, signalled
from trainings.engine.step import compile_parts
from trainings.options import OPTIMIZERS
from trainings.train_simple import Supervised
from utils.disk.run_folder import LATEST
from utils.utils import autocast, float32_products

gpu = pytest.mark.gpu

SCALE = 2.0**12
"""Of the loss in float16, as a training has it after its first overflows."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

SMALLEST_COSINE = {"fp32": 0.999, "bf16": 0.99, "fp16": 0.99}
"""Smallest cosine between a term's gradient and that of float32."""

LARGEST_DEVIATION = {"fp32": 0.005, "bf16": 0.05, "fp16": 0.05}
"""Largest deviation from 1 of the ratio of their norms."""


def gradients(kind: str, device: torch.device, name: str, *, statistics: str) -> dict[str, Tensor]:
    """Return the gradient of each of a method's terms by all weights, float64 on the CPU.

    `statistics` names what the norms use: those of the "batch" or their "own". Those of a batch of
    two amplify rounding without limit (a norm over two values gives plus and minus 1), so only
    float32 can be compared with them, and only where no large part of the image is of one colour,
    as it is where blocks are masked.
    """
    torch.manual_seed(0)
    settings = gpu_worker.new_settings(kind)
    network = Design(OTHER if kind == OTHER else "bisenet").build()
    method = {**METHODS, OTHER: Supervised}[kind](network, settings).to(
        device, memory_format=torch.channels_last
    )
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(statistics == "batch")
    batch = gpu_worker.moved(global_batch(0, True), device)
    scale = SCALE if name == "fp16" else 1.0
    found, terms = {}, [None]
    while terms:
        method.zero_grad()
        with autocast(device, PRECISIONS[name]):
            losses = all_terms(method, batch)
        terms = [name for name in losses if name not in found]
        if terms:
            (scale * losses[terms[0]]).backward()
            parts = [p.grad for p in method.parameters() if p.grad is not None]
            found[terms[0]] = torch.cat([part.double().cpu().flatten() for part in parts]) / scale
    return found


@gpu
@pytest.mark.parametrize(
    ("precision", "statistics"),
    [("fp32", "batch"), *((name, "own") for name in PRECISIONS)],
)
@pytest.mark.parametrize("kind", [*METHODS, OTHER])
def test_every_terms_gradient_is_that_of_float32_on_a_cpu(gpu_device, kind, precision, statistics):
    if (kind, statistics) == ("mic", "batch"):
        pytest.skip("the norms of masked images amplify rounding")
    with float32_products("fp32"):
        found = gradients(kind, gpu_device, precision, statistics=statistics)
    on_cpu = gradients(kind, torch.device("cpu"), "fp32", statistics=statistics)
    for term, expected in on_cpu.items():
        cosine = torch.cosine_similarity(found[term], expected, dim=0).item()
        ratio = (found[term].norm() / expected.norm()).item()
        assert cosine > SMALLEST_COSINE[precision], (term, cosine, ratio)
        assert abs(ratio - 1) < LARGEST_DEVIATION[precision], (term, cosine, ratio)


@gpu
def test_fp32_is_float32_in_convolutions_and_tf32_is_not(gpu_device):
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(1, 64, 32, 32, generator=draw, dtype=torch.float64)
    weight = torch.randn(64, 64, 3, 3, generator=draw, dtype=torch.float64)
    exact = torch.conv2d(image, weight)
    errors = {}
    for name in ("fp32", "tf32"):
        with float32_products(name):
            found = torch.conv2d(image.float().to(gpu_device), weight.float().to(gpu_device))
        errors[name] = ((found.cpu() - exact).norm() / exact.norm()).item()
    assert errors["fp32"] < 1e-5
    if gpu_device.type == "cuda" and torch.cuda.get_device_capability() >= (8, 0):
        assert errors["tf32"] > 1e-4


@contextlib.contextmanager
def no_wait(device: torch.device) -> Iterator[None]:
    """Inside, whatever waits for the GPU is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        ("simple", "adamw"),
        *((kind, name) for kind in METHODS for name in ("sgd", "adam", "rmsprop")),
    ],
)
def test_no_step_waits_for_the_device(gpu_device, kind, optimizer, precision):
    """The copy of its batch, clipping, scaling and averaging included."""
    recipe = {"optimizer": optimizer, "clip_grad_norm": 1.0, "ema_decay": 0.9}
    state, step = gpu_worker.started(kind, gpu_device, PRECISIONS[precision], **recipe)
    batches = [global_batch(number, True) for number in range(4)]
    for number, batch in enumerate(batches):
        with no_wait(gpu_device) if number >= 2 else contextlib.nullcontext():
            state.add(step([gpu_worker.moved(batch, gpu_device)]))
    assert all(value.isfinite() for value in state.sums.values())


@gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["simple", "ada"])
def test_float16_trains_with_clipping_average_and_every_optimiser(gpu_device, kind, optimizer):
    recipe = {"optimizer": optimizer, "clip_grad_norm": 1.0, "ema_decay": 0.5}
    state, step = gpu_worker.started(kind, gpu_device, torch.float16, **recipe)
    batch = gpu_worker.moved(global_batch(0, True), gpu_device)
    losses = [step([batch])["seg_source"].item() for _ in range(24)]
    assert losses[-1] < losses[0]
    for network in (state.method, state.average.module):
        tensors = chain(network.parameters(), network.buffers())
        assert all(tensor.isfinite().all() for tensor in tensors)
    assert not state.scaler.is_enabled() or state.scaler.get_scale() >= 1


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiles for CUDA")
@pytest.mark.parametrize("kind", ["ada", "mic"])
def test_compiled_networks_train_as_those_that_are_not(gpu_device, kind):
    losses = {}
    for form in ("eager", "compiled"):
        state, step = gpu_worker.started(kind, gpu_device, torch.float32)
        if form == "compiled":
            compile_parts(state.method)
        batches = [gpu_worker.moved(global_batch(number, True), gpu_device) for number in range(4)]
        with float32_products("fp32"):
            losses[form] = [step([batch])["loss"].item() for batch in batches]
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=0.02)


@gpu
def test_two_processes_on_one_card_train_as_one(gpu_device, tmp_path):
    path = tmp_path / "result.pth"
    words = (*TORCHRUN, "-m", "tests.support.gpu_worker", gpu_device, path)
    done = forked.run(*words, cwd=forked.MAIN.parent)
    assert done.returncode == 0, done.stderr
    with float32_products("fp32"):
        for kind, found in torch.load(path, weights_only=True).items():
            for name, value in gpu_worker.train(kind, gpu_device).items():
                difference = (found[name] - value).float().norm()
                assert difference <= 0.05 * value.float().norm() + 1e-6, f"{kind} {name}"


# ------------------------------------------------------------------------------- the real commands

TOY = ("--toy_root", "toy", "--toy_train", "12", "--toy_val", "2", "--toy_size", "64", "96")
TRAINED = ("--load_model_path", "runs/simple_gta5_sgd_noaug/best.pth")
COMMANDS = (
    ("make_toy_data",),
    ("check_data",),
    ("train_simple_cityscapes",),
    ("train_simple_gta5",),
    ("val_gta5_transfer",),
    ("train_source",),
    ("train_target",),
    ("val_transfer",),
    ("train_ada",),
    *(("train_fda", "--fda_beta", beta) for beta in ("0.01", "0.05", "0.09")),
    ("val_mbt",),
    ("val_mbt", "--eval_scales", "0.5", "1.0", "--eval_flip"),
    ("generate_pseudo_labels",),
    ("train_ssl_fda", "--fda_beta", "0.05", "--ema_decay", "0.9"),
    ("train_dacs",),
    ("train_mic",),
    ("train_distill",),
    ("visualize",),
    ("predict", *TRAINED, "--input", "toy/Cityscapes/leftImg8bit/val"),
    ("export", *TRAINED),
    ("benchmark", "--backends", "eager"),
    ("demo", "--configs", "config2"),
    ("reproduce", "--configs", "config2"),
    ("report",),
)
"""Every action, each after those whose results it needs."""


def test_every_action_is_among_the_commands():
    assert {words[0] for words in COMMANDS} == set(main.ACTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("actions")


@gpu
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_action_runs_in_the_precision_that_auto_takes(gpu_device, folder, words):
    tiny = (*TINY[: TINY.index("--precision")], "--device", gpu_device, "--num_epochs", "1")
    run = ("--save_model_path", "runs", "--num_workers", "1", "--cache_dir", "cache")
    done = run_main("--action", *words, *TOY, *ROOTS, *tiny, *run, cwd=folder)
    assert done.returncode == 0, done.stderr


@gpu
def test_a_killed_run_goes_on(gpu_device, folder):
    """The updates after the kill are those of a whole run; at this learning rate the sums that a
    GPU rounds differently from run to run do not grow to other trainings."""
    make_toy(folder, train=12, val=2)
    more = ("--device", str(gpu_device), "--num_workers", "1", "--learning_rate", "1e-5")
    assert run_main(*fda_command("whole", *more), cwd=folder).returncode == 0
    killed = fda_command("killed", *OFTEN, *more)
    code, _ = signalled(folder, signal.SIGKILL, b"epoch 3/4", *killed)
    assert code == -signal.SIGKILL

    def weights(name: str) -> Tensor:
        state = torch.load(folder / "runs" / name / LATEST, weights_only=True)["method"]
        learned = (name for name, _ in BiSeNet(base=8).named_parameters(prefix="network"))
        return torch.cat([state[name].double().cpu().flatten() for name in learned])

    at_the_kill = weights("killed")
    done = run_main(*killed, cwd=folder)
    assert done.returncode == 0 and "continuing" in done.stdout, done.stderr
    updates = [weights(name) - at_the_kill for name in ("whole", "killed")]
    assert torch.cosine_similarity(*updates, dim=0) > 0.99
    assert updates[1].norm() == pytest.approx(updates[0].norm().item(), rel=0.05)
