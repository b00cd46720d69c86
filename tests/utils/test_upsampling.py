import pytest
import torch

from tests.support.helpers import enlarge_by
from utils import upsampling
from utils.upsampling import bands, upsample, upsampled_max, upsampled_softmax, widen

SIZES = [
    ((4, 8), (32, 64)),
    ((9, 5), (65, 33)),
    ((1, 3), (7, 24)),
    ((8, 8), (8, 8)),
    ((5, 7), (3, 9)),
]


def logits(size, seed=0):
    return torch.randn(2, 19, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows_a_band", [1, 3, 1000])
@pytest.mark.parametrize("small, large", SIZES)
def test_bands_together_are_the_whole(small, large, rows_a_band, monkeypatch):
    monkeypatch.setattr(upsampling, "BAND_BYTES", rows_a_band * 19 * large[1] * 4)
    wide = widen(logits(small), large[1])
    whole = torch.empty(2, 19, *large)
    covered = []
    for inputs, outputs, weights in bands(wide, large[0]):
        whole[:, :, outputs] = weights @ wide[:, :, inputs]
        covered += range(large[0])[outputs]
    assert covered == list(range(large[0]))
    torch.testing.assert_close(whole, upsample(logits(small), large), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows_a_band", [1, 3, 1000, None])
@pytest.mark.parametrize("small, large", SIZES)
def test_maximum_and_argmax_are_those_of_the_enlarged_scores(
    small, large, rows_a_band, monkeypatch
):
    enlarge_by(rows_a_band, large[1], monkeypatch)
    for seed, scores in enumerate(logits(small)):
        largest, ours = upsampled_max(scores, large)
        assert ours.shape == large and ours.dtype == torch.uint8
        up = upsample(scores[None], large)[0]
        best = up.max(0).values
        taken = up.gather(0, ours[None].long())[0]
        assert (best - taken).max() < 1e-5, seed
        torch.testing.assert_close(largest, best, rtol=0, atol=1e-5)
        assert (ours != up.argmax(0)).float().mean() < 1e-3


@pytest.mark.parametrize("rows_a_band", [1, None])
def test_the_first_of_equal_classes_is_taken(rows_a_band, monkeypatch):
    enlarge_by(rows_a_band, 8, monkeypatch)
    scores = torch.zeros(19, 4, 4)
    assert (upsampled_max(scores, (8, 8))[1] == 0).all()
    scores[[3, 7]] = 1
    assert (upsampled_max(scores, (8, 8))[1] == 3).all()


def test_reduced_precision_scores_are_enlarged_in_float32():
    scores = logits((4, 8))[0].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours = upsampled_max(scores, (32, 64))
    assert all(map(torch.equal, ours, upsampled_max(scores.float(), (32, 64))))


@pytest.mark.parametrize("rows_a_band", [1, 3, 1000, None])
@pytest.mark.parametrize("small, large", SIZES)
def test_softmax_and_its_gradient_equal_the_plain_form_in_float64(
    small, large, rows_a_band, monkeypatch
):
    enlarge_by(rows_a_band, large[1], monkeypatch)
    x = (5 * logits(small)).requires_grad_()
    upstream = torch.randn(2, 19, *large, generator=torch.Generator().manual_seed(1))
    exact = x.detach().double().requires_grad_()
    up = torch.nn.functional.interpolate(exact, large, mode="bilinear", align_corners=True)
    expected = up.softmax(1)
    expected.backward(upstream.double())
    ours = upsampled_softmax(x, large)
    ours.backward(upstream)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(x.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows_a_band", [1, None])
def test_softmax_has_the_type_and_the_layout_of_the_convolution_that_takes_it(
    rows_a_band, monkeypatch
):
    enlarge_by(rows_a_band, 64, monkeypatch)
    x = logits((4, 8)).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours = upsampled_softmax(x, (32, 64))
    assert ours.dtype == torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, upsampled_softmax(x.float(), (32, 64)).bfloat16())
    ours.backward(torch.ones_like(ours))
    assert x.grad.dtype == torch.bfloat16 and x.grad.abs().max() < 1e-5  # sums to 1 everywhere
