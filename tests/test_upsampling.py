import pytest
import torch

from utils import upsampling
from utils.upsampling import bands, upsample, upsampled_argmax, widen

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
    monkeypatch.setitem(upsampling.BAND_BYTES, "cpu", rows_a_band * 19 * large[1] * 4)
    wide = widen(logits(small), large[1])
    whole = torch.empty(2, 19, *large)
    covered = []
    for inputs, outputs, weights in bands(wide, large[0]):
        whole[:, :, outputs] = weights @ wide[:, :, inputs]
        covered += range(large[0])[outputs]
    assert covered == list(range(large[0]))
    torch.testing.assert_close(whole, upsample(logits(small), large), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("small, large", SIZES)
def test_argmax_is_that_of_the_enlarged_scores(small, large):
    for seed, scores in enumerate(logits(small)):
        ours = upsampled_argmax(scores, large)
        assert ours.shape == large and ours.dtype == torch.uint8
        up = upsample(scores[None], large)[0]
        best = up.max(0).values
        taken = up.gather(0, ours[None].long())[0]
        assert (best - taken).max() < 1e-5, seed
        assert (ours != up.argmax(0)).float().mean() < 1e-3


def test_the_first_of_equal_classes_is_taken():
    scores = torch.zeros(19, 4, 4)
    assert (upsampled_argmax(scores, (8, 8)) == 0).all()
    scores[[3, 7]] = 1
    assert (upsampled_argmax(scores, (8, 8)) == 3).all()


def test_reduced_precision_scores_are_enlarged_in_float32():
    scores = logits((4, 8))[0].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours = upsampled_argmax(scores, (32, 64))
    assert torch.equal(ours, upsampled_argmax(scores.float(), (32, 64)))
