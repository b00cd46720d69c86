"""What a GPU would find, told without one by fake tensors: they have a device, a type and a shape,
but no values, so that tensors of two devices and whatever waits for a value are errors."""

from collections import Counter, defaultdict

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.samples import Batch, Sample
from model.ensemble import Ensemble
from model.model_stages import BiSeNet
from trainings.engine.health import Health
from trainings.engine.loop import train_step
from trainings.engine.state import TrainState
from trainings.scoring.pseudo_labels import predict
from trainings.train_ADA import ADA
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from trainings.val import Views
from utils import fda, processes
from utils.cli.settings import OPTIMIZERS, Settings, with_derived_defaults
from utils.shared_norm import synchronised
from utils.utils import autocast

aten = torch.ops.aten

PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]
SIZE = (96, 160)


class _Fakes(FakeTensorMode):
    def __deepcopy__(self, memo):
        return self  # copies of fake tensors meet the originals


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    fda._waves.cache_clear()
    fused = torch.library.Library("aten", "IMPL", "Meta")
    fused.impl("_fused_sgd_", lambda *_, **__: None)  # which torch has forgotten
    with _Fakes(), torch.device("cuda"):
        try:
            torch.empty(1).uniform_()
        except (AssertionError, RuntimeError):
            pytest.skip("without a GPU this torch has no fake tensors of one")
        yield torch.device("cuda")
    fused._destroy()
    fda._waves.cache_clear()


def sample() -> Sample:
    image = torch.zeros(2, 3, *SIZE, dtype=torch.uint8)
    return Sample(image, torch.zeros(2, *SIZE, dtype=torch.uint8), ["a", "b"])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("ohem", [False, True])
@pytest.mark.parametrize("method", [Supervised, ADA, FDA, SSLFDA])
def test_the_losses_of_a_method_stay_on_the_gpu(method, ohem, precision, gpu):
    settings = with_derived_defaults(Settings(optimizer="adam", fda_beta=0.05, ohem=ohem))
    made = method(BiSeNet(base=8), settings).train()
    with autocast(gpu, precision):
        losses = made(Batch(sample(), sample()))
    for name, value in {**losses, **made.observed}.items():
        assert (value.device.type, value.dtype, value.ndim) == ("cuda", torch.float32, 0), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_predictions_stay_on_the_gpu(precision, gpu):
    networks = [BiSeNet(base=8).eval() for _ in range(2)]
    batch = sample()
    one = Sample(batch.image[:1], batch.label[:1], batch.name[:1])
    for found in predict(Ensemble(networks), one, precision):
        assert (found.device.type, found.shape) == ("cuda", SIZE)
    with torch.inference_mode(), autocast(gpu, precision):
        maps = [network.main_logits(batch.image) for network in networks]
    assert {logits.dtype for logits in maps} == {precision}
    for views in (maps[:1], maps):
        classes = Views(views, are_logits=True).prediction(0, (192, 320))
        assert (classes.device.type, classes.dtype) == ("cuda", torch.uint8)


class Watch(TorchDispatchMode):
    """Fails where a tensor goes from one device to another, by a copy or as a new one."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        result = operator(*arguments, **(options or {}))
        if operator in (aten.copy_.default, aten._to_copy.default):
            read = arguments[1 if operator is aten.copy_.default else 0]
            assert result.device.type == read.device.type, f"{operator} from {read.device}"
        return result


def backward(loss, **_):
    """What the engine does, which without a GPU finds none of its streams: adds to the gradients,
    node after node."""
    waiting, upstream = Counter(), defaultdict(dict)
    nodes = {loss.grad_fn}
    for node in (queue := [loss.grad_fn]):
        for following, _ in node.next_functions:
            waiting[following] += 1
            if following and following not in nodes:
                nodes.add(following)
                queue.append(following)
    upstream[loss.grad_fn][0] = torch.ones_like(loss)
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        given = upstream.pop(node, {})
        if hasattr(node, "variable"):
            if 0 in given:
                old = node.variable.grad
                node.variable.grad = given[0] if old is None else old + given[0]
            continue
        width = max(given, default=0) + 1
        call = node.apply if isinstance(node, BackwardCFunction) else node
        found = call(*(given.get(place) for place in range(width))) if given else None
        found = found if isinstance(found, tuple) else (found,) * len(node.next_functions)
        for gradient, (following, place) in zip(found, node.next_functions, strict=False):
            if following is None:
                continue
            if gradient is not None:
                before = upstream[following].get(place)
                upstream[following][place] = gradient if before is None else before + gradient
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


@pytest.mark.parametrize(
    "method, optimizer",
    [*((Supervised, name) for name in OPTIMIZERS), (ADA, "sgd"), (FDA, "sgd"), (SSLFDA, "sgd")],
)
def test_a_step_waits_for_nothing_and_copies_nothing_from_the_host(
    method, optimizer, gpu, monkeypatch
):
    """In float16: forward and backward of two passes, norms and scalars of two processes, loss
    scale, clipping, update and average."""
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "total", lambda tensor: tensor)
    chosen = Settings(
        optimizer=optimizer, fda_beta=0.05, ema_decay=0.5, clip_grad_norm=1.0, num_epochs=1
    )
    settings = with_derived_defaults(chosen)
    made = synchronised(method(BiSeNet(base=8), settings)).train()
    state = TrainState(made, settings, steps_per_epoch=9, scale_loss=True)
    assert state.scaler.is_enabled()
    health = Health(state)
    parts = [Batch(sample(), sample())] * 2
    with Watch():
        terms = train_step(made, state, parts, torch.float16)
        health.note(terms, parts)
        state.add(terms)
    kept = [*state.sums.values(), health.first_bad, *state.average.module.parameters()]
    assert {value.device.type for value in kept} == {"cuda"}
    assert state.step == 1
    assert state.sums.keys() >= {"loss", "seg_source"}


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.__setitem__(0, 0.5),
        lambda x: torch.tensor(0.5),
        lambda x: torch.zeros(3, device="cpu").to(x.device),
    ],
)
def test_what_waits_and_what_fetches_is_found(fault, gpu):
    x = torch.zeros(3)
    x[:1] = 0.5
    with pytest.raises((AssertionError, RuntimeError)), Watch():
        fault(x)
