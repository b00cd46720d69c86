import math

import pytest
import torch
import torch.nn.functional as F

from datasets.labels import IGNORE
from utils.losses import segmentation_loss, upsample


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


@pytest.mark.parametrize("confidence", [1.0, 8.0])
def test_ohem_keeps_the_hard_pixels(confidence):
    _, label = heads_and_label()
    label[:, :5] = 3
    generator = torch.Generator().manual_seed(1)
    truth = F.one_hot(label.long(), 19).permute(0, 3, 1, 2).float()
    logits = confidence * truth + torch.randn(2, 19, 32, 64, generator=generator)
    ours = segmentation_loss([logits], label, ohem=True)
    assert ours.item() == pytest.approx(ohem_by_sorting(logits, label).item(), rel=1e-4)
    assert ours > segmentation_loss([logits], label)


def test_logits_are_upsampled_in_float32_with_aligned_corners():
    logits = torch.arange(4.0).view(1, 1, 2, 2).bfloat16()
    up = upsample(logits, (3, 3))
    assert up.dtype == torch.float32
    assert up[0, 0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]
