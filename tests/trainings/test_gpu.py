"""Errors of devices and waits on a GPU, found without one by fake tensors.

Fake tensors have a device, a type and a shape, but no values: to mix devices, or to wait for a
value, is an error.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.fake_cuda import fake_cuda
from datasets.samples import Batch, Sample
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.methods import all_terms
from trainings.engine.health import Health
from trainings.engine.state import TrainState
from trainings.engine.step import train_step
from trainings.options import OPTIMIZERS
from trainings.scoring.pseudo_label_making import predict
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from trainings.val import Views
from utils import processes
from utils.shared_norm import synchronised
from utils.utils import autocast

aten = torch.ops.aten

PRECISIONS = [
    *(pytest.param(one, marks=pytest.mark.slow) for one in (torch.float32, torch.bfloat16)),
    torch.float16,
]
SIZE = (96, 160)


@pytest.fixture(params=[(8, 0)])
def gpu(request):
    """A fake GPU of that compute capability."""
    with contextlib.ExitStack() as stack:
        try:
            device = stack.enter_context(fake_cuda(request.param))
        except (AssertionError, RuntimeError):
            pytest.skip("without a GPU this torch has no fake tensors of one")
        yield device


def sample() -> Sample:
    image = torch.zeros(2, 3, *SIZE, dtype=torch.uint8)
    return Sample(image, torch.zeros(2, *SIZE, dtype=torch.uint8), ["a", "b"])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("ohem", [False, True])
@pytest.mark.parametrize("method", [Supervised, ADA, FDA, SSLFDA, DACS])
def test_the_losses_of_a_method_stay_on_the_gpu(method, ohem, precision, gpu):
    settings = Settings(optimizer="adam", fda_beta=0.05, ohem=ohem, mask_ratio=0.7 * ohem)
    made = method(BiSeNet(base=8), settings).train()
    with autocast(gpu, precision):
        losses = all_terms(made, Batch(sample(), sample()))
    for name, value in {**losses, **made.observed}.items():
        assert (value.device.type, value.dtype, value.ndim) == ("cuda", torch.float32, 0), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_predictions_stay_on_the_gpu(precision, gpu):
    networks = [BiSeNet(base=8).eval() for _ in range(2)]
    batch = sample()
    for found in predict(networks, batch.image[:1], precision):
        assert (found.device.type, found.shape) == ("cuda", SIZE)
    with torch.inference_mode(), autocast(gpu, precision):
        maps = [network.main_logits(batch.image) for network in networks]
    assert {logits.dtype for logits in maps} == {precision}
    for views in (maps[:1], maps):
        classes = Views(views, are_logits=True).prediction(0, (192, 320))
        assert (classes.device.type, classes.dtype) == ("cuda", torch.uint8)


class Watch(TorchDispatchMode):
    """Fails where a tensor goes from one device to another, by a copy or as a new one, unless the
    host waits for nothing: the memory is pinned and the copy is not blocking."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        result = operator(*arguments, **(options or {}))
        if operator in (aten.copy_.default, aten._to_copy.default):
            read = arguments[1 if operator is aten.copy_.default else 0]
            same = result.device.type == read.device.type
            passes_by = getattr(read, "in_pinned_memory", False) and options.get("non_blocking")
            assert same or passes_by, f"{operator} from {read.device}"
        return result


SLOW_STEPS = (
    *((Supervised, name, 1.0, (8, 0)) for name in OPTIMIZERS),
    *((method, "sgd", None, (8, 0)) for method in (ADA, FDA, SSLFDA, DACS)),
    *((method, "adam", 1.0, (8, 0)) for method in (ADA, FDA, SSLFDA, DACS)),
    (Supervised, "sgd", 1.0, (6, 0)),
)
"""Method, optimiser, clipping and compute capability of a step's cases, but for the first."""


@pytest.mark.parametrize(
    ("method", "optimizer", "clip", "gpu"),
    [
        (Supervised, "sgd", None, (8, 0)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_STEPS),
    ],
    indirect=["gpu"],
)
def test_a_step_waits_for_nothing_and_copies_nothing_from_the_host(
    method, optimizer, clip, gpu, monkeypatch
):
    """In float16: forward and backward of two passes, losses fused or, where Triton has no kernels,
    in torch's own, loss scale, clipping, update and average. Two processes are replaced: norms and
    scalars take the way of two, on which the sum over them is this process's share."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "total", lambda tensor: tensor)
    settings = Settings(
        optimizer=optimizer,
        fda_beta=0.05,
        mask_ratio=0.7 if clip else 0.0,
        ema_decay=0.0 if method is DACS else 0.5,
        clip_grad_norm=clip,
        detail_guidance=clip is not None,
        num_epochs=1,
    )
    network = BiSeNet(base=8)
    if settings.detail_guidance:
        network.add_detail_head()
    made = synchronised(method(network, settings)).train()
    state = TrainState(made, settings, steps_per_epoch=9, scale_loss=True)
    assert state.scaler.is_enabled()
    health = Health(state)
    parts = [Batch(sample(), sample())] * 2
    with Watch():
        terms = train_step(state, parts, torch.float16)
        health.note(terms, parts)
        state.add(terms)
    kept = [*state.sums.values(), health.first_bad, *state.scored_average.module.parameters()]
    assert {value.device.type for value in kept} == {"cuda"}
    assert state.step == 1
    assert state.sums.keys() >= {"loss", "seg_source"}
    assert ("detail_source" in state.sums) == settings.detail_guidance


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.__setitem__(0, 0.5),
        lambda x: torch.tensor(0.5),
        lambda x: torch.zeros(3, device="cpu").to(x.device),
        lambda x: torch.zeros(3, device="cpu").to(x.device, non_blocking=True),
        lambda x: torch.zeros(3, device="cpu").pin_memory().to(x.device),
        lambda x: x.tolist(),
    ],
)
def test_waits_and_copies_from_the_host_are_found(fault, gpu):
    x = torch.zeros(3)
    x[:1] = 0.5
    with pytest.raises((AssertionError, RuntimeError)), Watch():
        fault(x)
