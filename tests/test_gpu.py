"""What a GPU would find, told without one by fake tensors: they have a device, a type and a shape,
but no values, so that tensors of two devices and whatever waits for a value are errors."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from datasets.samples import Batch, Sample
from model.ensemble import Ensemble
from model.model_stages import BiSeNet
from trainings.loop import _Health
from trainings.pseudo_labels import predict
from trainings.state import TrainState
from trainings.train_ADA import ADA
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from trainings.val import Views
from utils import fda, processes
from utils.settings import Settings, with_derived_defaults
from utils.utils import autocast

PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]
SIZE = (96, 160)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    fda._waves.cache_clear()
    with FakeTensorMode(), torch.device("cuda"):
        try:
            torch.empty(1).uniform_()
        except (AssertionError, RuntimeError):
            pytest.skip("without a GPU this torch has no fake tensors of one")
        yield torch.device("cuda")
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


def test_nothing_that_is_kept_of_a_step_waits_for_the_gpu(gpu, monkeypatch):
    """The means over the processes, the epoch's sums, what is bad, and the running average."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "total", lambda tensor: tensor)
    # A real copy of fake tensors would be of a mode of its own.
    copying = SimpleNamespace(deepcopy=lambda network: BiSeNet(base=8))
    monkeypatch.setattr("trainings.state.copy", copying)
    settings = with_derived_defaults(Settings(ema_decay=0.5, num_epochs=1))
    method = Supervised(BiSeNet(base=8), settings)
    state = TrainState(method, settings, steps_per_epoch=9, scale_loss=False)
    health = _Health(state)
    for _ in range(2):
        terms = processes.means({"loss": torch.ones(()), "share": torch.ones(()).half()})
        health.note(terms, [Batch(sample(), sample())])
        state.add(terms)
        state.average.update()
    kept = [*state.sums.values(), health.first_bad, *state.average.module.parameters()]
    assert {value.device.type for value in kept} == {"cuda"}
    assert state.average.updates == 2 and state.sums.keys() == {"loss", "share"}
