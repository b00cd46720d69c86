"""The fused CUDA kernels compute the plain loss, in Triton's interpreter on the CPU.

Not collected by itself: `test_fused_cross_entropy.py` runs it in a process of its own, since the
interpreter must be chosen (TRITON_INTERPRET=1) before anything imports Triton.
"""

import os

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from datasets.labels import IGNORE
from utils import fused_cross_entropy as fused
from utils.losses import banded_cross_entropy, library_cross_entropy


@triton.jit
def _counting_kernel(result, last):
    total = 0
    for number in range(0, tl.maximum(last, 0)):
        total += number
    tl.store(result, total)


if os.environ.get("TRITON_INTERPRET") == "1":
    try:
        _counting_kernel[(1,)](torch.zeros(1, dtype=torch.int32), 3)
    except InterpreterError:  # as Triton 3.6 beside NumPy 2.4
        pytest.skip("this Triton cannot interpret loops", allow_module_level=True)

FORMS = {
    "bands": banded_cross_entropy,
    "library": library_cross_entropy,
    "fused": fused.fused_cross_entropy,
}

SIZES = [
    ((4, 8), (32, 64)),
    ((3, 5), (17, 33)),
    ((5, 9), (20, 83)),
    ((1, 3), (7, 24)),
    ((4, 1), (9, 11)),
    ((6, 7), (6, 7)),
    ((5, 7), (3, 4)),
    ((3, 3), (1, 1)),
    ((1, 1), (1, 1)),
]


def example(small, large, *, classes=5, count=1, dtype=torch.float32):
    """Logits, labels of which some are ignored, and weights, which are 0 there."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(count, classes, *small, generator=generator)).to(dtype)
    label = torch.randint(0, classes, (count, *large), generator=generator, dtype=torch.uint8)
    weight = torch.rand(count, *large, generator=generator)
    ignored = torch.rand(count, *large, generator=generator) < 0.2
    label[ignored], weight[ignored] = IGNORE, 0
    return logits.requires_grad_(), label, weight


def plain_losses(logits, label):
    """Everything at full size, in float64; 0 where it is ignored."""
    up = F.interpolate(logits.double(), label.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(up, label.long(), ignore_index=IGNORE, reduction="none")


def plain(logits, label, weight):
    return (plain_losses(logits, label) * weight).sum()


def check(logits, label, weight, form="fused", rtol=1e-5):
    expected, ours = plain(logits, label, weight), FORMS[form](logits, label, weight)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    (wanted,) = torch.autograd.grad(3 * expected, logits)
    (slope,) = torch.autograd.grad(3 * ours, logits)
    assert slope.dtype == logits.dtype
    torch.testing.assert_close(slope, wanted, rtol=rtol, atol=2e-5)


@pytest.mark.parametrize("form", ["bands", "library", "fused"])
@pytest.mark.parametrize("small, large", SIZES)
def test_every_form_equals_the_plain_one_in_float64(small, large, form):
    logits, label, weight = example(small, large)
    check(logits, label.masked_fill(label == IGNORE, 0), weight, form)


@pytest.mark.parametrize("small, large", SIZES)
def test_the_loss_of_each_pixel_equals_the_plain_one_in_float64(small, large):
    logits, label, _ = example(small, large, count=2)
    label = label.masked_fill(label == IGNORE, 0)
    for given in (logits, logits.to(memory_format=torch.channels_last)):
        losses = fused.fused_losses(given, label)
        assert losses.dtype == torch.float32
        expected = plain_losses(logits, label)
        torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)


def test_labels_that_are_ignored_may_be_anything():
    check(*example((3, 4), (9, 14)))


@pytest.mark.parametrize("classes", [2, 3, 19, 32])
def test_any_number_of_classes(classes):
    check(*example((3, 4), (9, 14), classes=classes, count=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_autocast_are_taken_in_float32(dtype):
    check(*example((3, 4), (9, 14), dtype=dtype), rtol=1e-2)


def test_any_layout_and_type_of_label():
    logits, label, weight = example((3, 4), (9, 14))
    last = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    check(last, label.mT.contiguous().mT.long(), weight.mT.contiguous().mT)


def test_certain_predictions_and_large_logits():
    logits, label, weight = example((3, 4), (9, 14))
    check((1e4 * logits.detach()).requires_grad_(), label, weight / weight.sum())


def test_where_nothing_counts_loss_and_gradient_are_0():
    logits, label, weight = example((3, 4), (9, 14))
    loss = fused.fused_cross_entropy(logits, torch.full_like(label, IGNORE), 0 * weight)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_logit_that_is_not_finite_shows_in_the_loss():
    for bad in (float("nan"), float("inf")):
        logits, label, weight = example((3, 4), (9, 14))
        logits.data[0, 3, 1, 2] = bad
        assert not fused.fused_cross_entropy(logits, label, weight).isfinite()


def test_the_same_bits_each_time():
    results = []
    for logits, label, weight in (example((3, 5), (7, 83)), example((3, 5), (7, 83))):
        loss = fused.fused_cross_entropy(logits, label, weight)
        results.append((loss, *torch.autograd.grad(loss, logits)))
    assert all(map(torch.equal, *results))


def test_fake_tensors_get_the_shapes_and_types_of_real_ones():
    logits, label, weight = (x.detach() for x in example((3, 5), (7, 83)))
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(fused._losses_and_gradient, (logits, label, weight), test_utils=tests)
    wide = torch.randn(2, 2, 5, 3, 83)
    torch.library.opcheck(fused._losses, (logits, label), test_utils=tests)
    torch.library.opcheck(fused._narrowed, (wide, 5), test_utils=tests)
