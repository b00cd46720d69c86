import copy
import math

import pytest
import torch

from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from trainings.engine.state import TrainState
from trainings.optimisers import default_warmup, network_optimizer, parameter_groups, poly
from trainings.options import OPTIMIZERS
from trainings.train_ADA import ADA
from trainings.train_simple import Supervised
from utils.errors import UserError


def settings(**values):
    return Settings(action="train_simple_gta5", **values)


def test_poly_falls_per_step_and_reaches_zero_after_the_last():
    factor = poly(100)
    assert factor(0) == 1 and factor(100) == 0
    assert factor(50) == pytest.approx(0.5**0.9)
    assert all(factor(t + 1) < factor(t) for t in range(100))


def test_with_a_power_of_1_the_rate_falls_in_a_straight_line():
    factor = poly(110, 10, 1.0)
    assert [factor(t) for t in (10, 60, 85, 110)] == pytest.approx([1, 0.5, 0.25, 0])


def test_warm_up_rises_to_the_full_rate():
    factor = poly(100, 10)
    assert all(0 < factor(t) < factor(t + 1) for t in range(10))
    assert factor(10) == 1 and factor(100) == 0
    assert [default_warmup(steps) for steps in (10, 200, 100_000)] == [0, 10, 1000]


def test_heads_at_their_rate_and_no_decay_on_norms_and_biases():
    network = BiSeNet(base=8)
    groups = parameter_groups(network, 0.01, 10, 5e-4)
    names = {id(p): name for name, p in network.named_parameters()}
    seen = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(seen) == sorted(names.values())
    for group in groups:
        for p in group["params"]:
            name = names[id(p)]
            head = name.startswith(("ffm.", "conv_out"))
            assert group["lr"] == pytest.approx(0.1 if head else 0.01), name
            assert group["weight_decay"] == (0 if p.ndim == 1 else 5e-4), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_that_overflows_leaves_no_trace(name):
    """torch's fused SGD made momenta of whatever lay in the memory; as float16's loss scaling skips
    steps, on any device."""
    torch.manual_seed(0)
    networks = [BiSeNet(base=8) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network, losses in zip(networks, ((1.0,), (float("inf"), 1.0)), strict=True):
        optimizer = network_optimizer(network, settings(optimizer=name))
        scaler = torch.amp.GradScaler("cpu")
        litter = [torch.full_like(p, 1e6) for p in network.parameters()]
        del litter
        for factor in losses:
            optimizer.zero_grad()
            total = sum(p.square().sum() for p in network.parameters())
            scaler.scale(factor * total).backward()
            scaler.step(optimizer)
            scaler.update()
    expected, ours = (network.state_dict() for network in networks)
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_every_optimizer_under_a_loss_scale_makes_the_plain_steps(name, clip):
    chosen = settings(optimizer=name, num_epochs=2, clip_grad_norm=clip)
    ends = []
    for scaled in (False, True):
        torch.manual_seed(0)
        method = Supervised(BiSeNet(base=8), chosen)
        state = TrainState(method, chosen, steps_per_epoch=9, scale_loss=scaled)
        for factor in (1, 3, 2):
            step_down(state, factor)
        ends.append(torch.nn.utils.parameters_to_vector(method.parameters()))
    plain, ours = ends
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_the_means_of_an_epoch_leave_out_steps_that_overflowed():
    """One such step made the loss of its epoch infinite, and its history no table."""
    chosen = settings(num_epochs=2)
    state = TrainState(Supervised(BiSeNet(base=8), chosen), chosen, steps_per_epoch=3, scale_loss=0)
    state.scaler = torch.amp.GradScaler("cpu")
    for loss, other in ((1.0, 4.0), (float("inf"), 5.0), (3.0, 8.0)):
        state.add({"loss": torch.tensor(loss), "other": torch.tensor(other)})
    again = TrainState(Supervised(BiSeNet(base=8), chosen), chosen, steps_per_epoch=3, scale_loss=0)
    again.load_state_dict(state.state_dict())
    assert state.means(3) == again.means(3) == {"loss": 2, "other": 6}
    state.end_round({"epoch": 1})
    for _ in range(3):
        state.add({"loss": torch.tensor(float("nan"))})
    assert math.isnan(state.means(3)["loss"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name):
    torch.manual_seed(0)
    network = BiSeNet(base=8)
    chosen = settings(optimizer=name)
    optimizer = network_optimizer(network, chosen)
    assert optimizer.param_groups[0]["lr"] == (0.01 if name == "sgd" else 1e-3)
    assert type(optimizer).__name__.lower() == name
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    losses = []
    for _ in range(6):
        loss = sum(logits[:, 1].sub(1).square().mean() for logits in network.heads(image))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_state_loads_what_it_saved():
    torch.manual_seed(0)

    def fresh():
        chosen = settings(num_epochs=3, warmup_steps=2)
        method = Supervised(BiSeNet(base=8), chosen)
        return TrainState(method, chosen, steps_per_epoch=4, scale_loss=False)

    state = fresh()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for step in range(5):
        if step == 4:
            assert state.steps_left == 0
            state.end_round({"epoch": 1})
        loss = state.method.network.heads(image)[0].square().mean()
        state.backward(loss)
        state.update()
        state.add({"loss": loss.detach()})
    state.seconds, state.best, state.last = 1.5, {"mIoU": 0.5}, {"mIoU": 0.25}
    other = fresh()
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    assert (other.step, other.rounds, other.learning_rate) == (5, 1, state.learning_rate)
    assert other.sums == {"loss": loss} and other.steps_left == 3 and not other.finished
    assert other.latest_rate == state.latest_rate != state.learning_rate
    assert (other.seconds, other.best, other.last) == (1.5, {"mIoU": 0.5}, {"mIoU": 0.25})
    for s in (state, other):
        s.backward(s.method.network.heads(image)[0].square().mean())
        s.update()
    assert other.learning_rate == state.learning_rate
    for a, b in zip(state.method.parameters(), other.method.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_goes_on_where_the_loss_is_scaled_and_refuses_another_length():
    chosen = settings(num_epochs=2)
    method = Supervised(BiSeNet(base=8), chosen)
    state, other = (
        TrainState(method, chosen, steps_per_epoch=steps, scale_loss=True) for steps in (3, 4)
    )
    state.load_state_dict({**state.state_dict(), "scaler": {}})  # saved in another precision
    with pytest.raises(UserError, match="planned for 6 steps, now it would be 8"):
        other.load_state_dict(state.state_dict())


def test_the_learning_rate_is_zero_after_the_last_step():
    chosen = settings(num_epochs=2)
    state = TrainState(
        Supervised(BiSeNet(base=8), chosen), chosen, steps_per_epoch=3, scale_loss=False
    )
    for _ in range(6):
        state.backward(sum(p.sum() for p in state.method.parameters()))
        state.update()
    assert state.step == state.total_steps and state.learning_rate == 0


def test_the_discriminator_has_a_schedule_without_the_networks_warm_up():
    chosen = settings(num_epochs=5, warmup_steps=4)
    state = TrainState(ADA(BiSeNet(base=8), chosen), chosen, steps_per_epoch=2, scale_loss=False)
    rates = []
    for _ in range(10):
        rates.append({n: o.param_groups[0]["lr"] for n, o in state.optimizers.items()})
        state.update()
    assert [rate["discriminator"] for rate in rates] == pytest.approx(
        [1e-4 * (1 - step / 10) ** 0.9 for step in range(10)]
    )
    assert rates[0]["network"] < rates[4]["network"] > rates[9]["network"]


def test_averaged_weights_follow_their_recursion_and_are_saved():
    chosen = settings(num_epochs=2, ema_decay=0.75)
    state = TrainState(
        Supervised(BiSeNet(base=8), chosen), chosen, steps_per_epoch=3, scale_loss=False
    )
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    network, expected = state.method.network, None
    for _ in range(3):
        state.backward(network.heads(image)[0].square().mean())
        state.update()
        now = {name: value.double() for name, value in network.state_dict().items()}
        if expected is None:
            expected = now
        expected = {name: 0.75 * expected[name] + 0.25 * now[name] for name in now}
    averaged = state.average.module.state_dict()
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(averaged[name].double(), value, rtol=1e-5, atol=1e-6)
    saved = copy.deepcopy(state.state_dict())
    older = {**saved, "average": {"module": dict(averaged), "updates": 3}}
    for checkpoint in (saved, older):
        other = TrainState(
            Supervised(BiSeNet(base=8), chosen), chosen, steps_per_epoch=3, scale_loss=False
        )
        other.load_state_dict(checkpoint)
        assert other.average.updates == 3
        for name, value in other.average.module.state_dict().items():
            assert torch.equal(value, averaged[name]), name


def test_a_long_gradient_is_clipped_to_the_norm():
    moved = []
    for norm in (None, 0.5):
        torch.manual_seed(0)
        chosen = settings(num_epochs=2, clip_grad_norm=norm, weight_decay=0.0, head_lr_mult=1.0)
        method = Supervised(BiSeNet(base=8), chosen)
        state = TrainState(method, chosen, steps_per_epoch=9, scale_loss=False)
        before = torch.nn.utils.parameters_to_vector(method.parameters()).detach().clone()
        state.backward(100 * sum(p.sum() for p in method.parameters()))
        state.update()
        after = torch.nn.utils.parameters_to_vector(method.parameters()).detach()
        moved.append((after - before).norm().item() / state.latest_rate)
    assert moved[0] > 1000 and moved[1] == pytest.approx(0.5, rel=1e-3)


def adversarial_state(*, scaled):
    """Return the state of a network and a discriminator whose long gradients are clipped."""
    torch.manual_seed(0)
    chosen = settings(num_epochs=2, clip_grad_norm=0.1)
    return TrainState(ADA(BiSeNet(base=8), chosen), chosen, steps_per_epoch=9, scale_loss=scaled)


def step_down(state, factor=1.0):
    """Take one step down the sum of all weights, times a factor."""
    state.backward(factor * sum(p.sum() for p in state.method.parameters()))
    state.update()


def test_an_overflow_under_a_loss_scale_moves_no_weight_and_halves_the_scale_once():
    state = adversarial_state(scaled=True)
    before, scale = copy.deepcopy(state.method.state_dict()), state.scaler.get_scale()
    step_down(state, float("inf"))
    assert state.scaler.get_scale() == scale / 2 and state.step == 1
    for name, value in state.method.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("resumed", [False, True])
def test_the_loss_scale_starts_low_and_grows_within_a_short_training(resumed):
    """Also in a run that was saved with torch's own settings, which grow it every 2000 steps."""
    chosen = settings(num_epochs=1)
    method = Supervised(BiSeNet(base=8), chosen)
    state = TrainState(method, chosen, steps_per_epoch=1000, scale_loss=True)
    if resumed:
        saved = state.state_dict()
        state.load_state_dict({**saved, "scaler": {**saved["scaler"], "growth_interval": 2000}})
    assert state.scaler.get_scale() == 2**12
    for _ in range(250):
        step_down(state, 1e-6)
    assert state.scaler.get_scale() > 2**12


def test_a_scaled_step_is_the_unscaled_one_clipped_alike():
    scaled, plain = (adversarial_state(scaled=scaled) for scaled in (True, False))
    before = copy.deepcopy(plain.method.state_dict())
    for state in (scaled, plain):
        step_down(state)
    for name, parameter in plain.method.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    for (name, ours), expected in zip(
        scaled.method.named_parameters(), plain.method.parameters(), strict=True
    ):
        moved = ours - before[name]
        torch.testing.assert_close(moved, expected - before[name], rtol=1e-3, atol=1e-8, msg=name)
