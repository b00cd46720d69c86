import math

import pytest
import torch
import torch.nn.functional as F

from datasets.labels import IGNORE
from utils import losses, upsampling
from utils.losses import robust_entropy, segmentation_loss
from utils.upsampling import upsample


def heads_and_label(requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    heads = [
        torch.randn(2, 19, *size, generator=generator, requires_grad=requires_grad)
        for size in ((4, 8), (4, 8), (2, 4))
    ]
    label = torch.randint(0, 19, (2, 32, 64), generator=generator, dtype=torch.uint8)
    label[:, :5] = IGNORE
    return heads, label


def test_sum_of_the_heads_cross_entropies_at_label_size():
    heads, label = heads_and_label()
    expected = sum(
        F.cross_entropy(
            F.interpolate(h, (32, 64), mode="bilinear", align_corners=True),
            label.long(),
            ignore_index=IGNORE,
        )
        for h in heads
    )
    assert segmentation_loss(heads, label).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("ohem", [False, True])
def test_all_ignored_is_zero_with_finite_gradients(ohem):
    heads, label = heads_and_label(requires_grad=True)
    loss = segmentation_loss(heads, torch.full_like(label, IGNORE), ohem=ohem)
    loss.backward()
    assert loss.item() == 0
    assert all(h.grad.isfinite().all() and not h.grad.any() for h in heads)


def ohem_by_sorting(logits, label):
    """The paper's rule written down plainly: keep losses > -ln 0.7, or the hardest 1/16."""
    losses = F.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="none").flatten()
    order = losses.sort(descending=True).values
    at_least = losses.numel() // 16
    threshold = -math.log(0.7)
    kept = order[order > threshold] if order[at_least] > threshold else order[:at_least]
    return kept.mean()


@pytest.mark.parametrize("confidence", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("size", [(32, 64), (9, 16)])
@pytest.mark.parametrize("bands", [True, False])
def test_ohem_keeps_the_hard_pixels(confidence, size, bands, monkeypatch):
    monkeypatch.setattr(losses, "in_bands", lambda logits: bands)  # else the form of a GPU
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 19, (2, 4, 8), generator=generator, dtype=torch.uint8)
    label = label.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    truth = F.one_hot(label.long(), 19).permute(0, 3, 1, 2).float()
    noise = torch.randn(2, 19, *size, generator=generator)
    logits = confidence * F.interpolate(truth, size) + noise
    label[:, :5] = IGNORE
    up = F.interpolate(logits.double(), label.shape[-2:], mode="bilinear", align_corners=True)
    ours = segmentation_loss([logits], label, ohem=True)
    assert ours.item() == pytest.approx(ohem_by_sorting(up, label).item(), rel=1e-4)
    each = F.cross_entropy(up, label.long(), ignore_index=IGNORE, reduction="none")
    some_are_easy = (each[label != IGNORE] < -math.log(0.7)).any()
    assert (ours > segmentation_loss([logits], label)) == some_are_easy


def test_logits_are_upsampled_in_float32_with_aligned_corners():
    logits = torch.arange(4.0).view(1, 1, 2, 2).bfloat16()
    up = upsample(logits, (3, 3))
    assert up.dtype == torch.float32
    assert up[0, 0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]


@pytest.mark.parametrize("eta", [0.5, 1, 2, 3])
@pytest.mark.parametrize("classes", [2, 19])
def test_a_uniform_prediction_has_entropy_1(classes, eta):
    logits = torch.full((2, classes, 4, 8), 7.0)
    assert robust_entropy(logits, eta).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("eta", "floor"), [(1, 1e-8), (2, 1e-16)])
def test_a_certain_prediction_has_entropy_0_and_a_finite_gradient(eta, floor):
    logits = 1000 * F.one_hot(torch.arange(16).view(1, 4, 4) % 5, 5).permute(0, 3, 1, 2).float()
    loss = robust_entropy(logits.requires_grad_(), eta)
    loss.backward()
    assert loss.item() == pytest.approx(floor, rel=1e-3)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("eta", [1.5, 2])
def test_entropy_is_penalised_pixel_by_pixel(eta):
    """Two pixels of probabilities (1/2, 1/2, 0, 0) and (1/4, 3/4, 0, 0) among four classes."""
    p = torch.tensor([[0.5, 0.5, 1e-30, 1e-30], [0.25, 0.75, 1e-30, 1e-30]])
    h = (0.5, (0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / math.log(4))
    expected = sum((x**2 + 1e-8) ** eta for x in h) / 2
    loss = robust_entropy(p.log().T.view(1, 4, 1, 2), eta)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_large_eta_spares_the_certain_pixels():
    sure, unsure = torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)
    ratios = [robust_entropy(sure, eta) / robust_entropy(unsure, eta) for eta in (1, 2, 3)]
    assert ratios == sorted(ratios, reverse=True)


def test_entropy_is_float32_under_autocast():
    (logits, *_), _ = heads_and_label()
    logits = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = robust_entropy(logits, 2)
    assert loss.dtype == torch.float32
    assert loss == robust_entropy(logits.float(), 2)


def plain_loss(heads, label, weight=1):
    """Everything at full size, in float64."""
    counted = (label != IGNORE).sum()
    return sum(
        F.cross_entropy(
            F.interpolate(h.double(), label.shape[-2:], mode="bilinear", align_corners=True),
            label.long(),
            ignore_index=IGNORE,
            reduction="none",
        ).mul(weight / counted)
        for h in heads
    ).sum()


def test_a_weight_multiplies_the_loss_of_its_pixel():
    heads, label = heads_and_label(requires_grad=True)
    weight = torch.rand(label.shape, generator=torch.Generator().manual_seed(2))
    weight[0] = 0
    expected, ours = (
        plain_loss(heads, label, weight),
        segmentation_loss(heads, label, weight=weight),
    )
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    slopes, wanted = (torch.autograd.grad(loss, heads) for loss in (ours, expected))
    for slope, right in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, right, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("ohem", [False, True])
def test_a_weight_of_1_everywhere_changes_nothing(ohem):
    heads, label = heads_and_label()
    weighted = segmentation_loss(heads, label, ohem=ohem, weight=torch.ones(label.shape))
    assert weighted == segmentation_loss(heads, label, ohem=ohem)


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_value_and_gradients_equal_the_plain_form_in_float64(rows, monkeypatch):
    heads, label = heads_and_label(requires_grad=True)
    monkeypatch.setattr(upsampling, "BAND_BYTES", rows * 19 * label.shape[-1] * 4)
    expected = plain_loss(heads, label)
    slopes = torch.autograd.grad(expected, heads)
    ours = segmentation_loss(heads, label)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    for slope, wanted in zip(torch.autograd.grad(3 * ours, heads), slopes, strict=True):
        torch.testing.assert_close(slope, 3 * wanted.float(), rtol=1e-4, atol=1e-7)


def test_autocast_does_not_reach_the_loss():
    heads, label = heads_and_label()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(segmentation_loss(heads, label), segmentation_loss(heads, label))
        inside = segmentation_loss(heads, label)
    assert torch.equal(inside, segmentation_loss(heads, label))
