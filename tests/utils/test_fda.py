import math

import numpy as np
import pytest
import torch

from utils.fda import fourier_transfer, true_float32, window

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]
SIZES = [(16, 16), (24, 40), (40, 24), (17, 23), (33, 20), (20, 33), (7, 64), (2, 3)]
LEVELS = 1e-3
"""Largest error that is allowed, in grey levels."""


def pictures(size, batch=(), seed=0):
    """Two uint8 images, smooth like photographs, the second one darker."""
    rng = np.random.default_rng(seed)
    walks = rng.normal(size=(2, *batch, 3, *size)).cumsum(-1).cumsum(-2)
    low, high = (limit(walks, axis=(-2, -1), keepdims=True) for limit in (np.min, np.max))
    source, target = 255 * (walks - low) / (high - low + 1e-9)
    return tuple(torch.from_numpy(x.astype(np.uint8)) for x in (source, 0.6 * target))


def fft(images):
    """Spectrum with frequency 0 in the middle, complex128."""
    spectrum = np.fft.fft2(np.asarray(images, dtype=np.float64))
    return np.fft.fftshift(spectrum, axes=(-2, -1))


def inside(beta, height, width):
    """The swapped frequencies |u| <= b, |v| <= b of a shifted spectrum, bool [H, W]."""
    b = math.floor(beta * min(height, width))
    u, v = (np.abs(np.arange(side) - side // 2) for side in (height, width))
    return (u[:, None] <= b) & (v <= b)


def by_full_fft(source, target, beta):
    """The paper's formula written down plainly, float64."""
    spectrum = fft(source)
    amplitude = np.where(inside(beta, *source.shape[-2:]), np.abs(fft(target)), np.abs(spectrum))
    mixed = amplitude * np.exp(1j * np.angle(spectrum))
    return np.fft.ifft2(np.fft.ifftshift(mixed, axes=(-2, -1)))


def error(result, source, target, beta):
    return np.abs(result.cpu().double().numpy() - by_full_fft(source, target, beta)).max()


@pytest.mark.parametrize("beta", [0, 0.01, 0.09, 0.2, 0.4999])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_papers_formula_at_any_size(size, beta):
    source, target = pictures(size)
    assert error(fourier_transfer(source, target, beta), source, target, beta) < LEVELS


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("beta", [0.01, 0.05, 0.09])
@pytest.mark.parametrize("size", [(512, 1024), pytest.param((1024, 2048), marks=pytest.mark.slow)])
def test_it_is_the_papers_formula_at_full_size(size, beta, device):
    """Some waves of such images are as faint as 1e-5 grey levels, and still have their phases."""
    source, target = pictures(size)
    result = fourier_transfer(source.to(device), target.to(device), beta)
    assert result.device.type == device
    assert error(result, source, target, beta) < LEVELS


@pytest.mark.parametrize("beta", [0, 0.05, 0.4])
def test_an_image_with_itself_is_itself(beta):
    source, _ = pictures((24, 40))
    assert torch.equal(fourier_transfer(source, source, beta), source.float())


def test_beta_0_moves_only_the_channels_means():
    source, target = pictures((24, 40))
    moved = fourier_transfer(source, target, 0) - source.float()
    means = (target.double() - source.double()).mean((-2, -1), keepdim=True)
    torch.testing.assert_close(moved.double(), means.expand_as(moved), atol=LEVELS, rtol=0)


@pytest.mark.parametrize("size", [(24, 40), (33, 21)])
def test_low_amplitudes_are_the_targets_and_all_else_the_sources(size):
    source, target = pictures(size)
    result, source, target = map(fft, (fourier_transfer(source, target, 0.2), source, target))
    low = inside(0.2, *size)
    near = {"rtol": 1e-4, "atol": 1e-2}
    np.testing.assert_allclose(abs(result[:, low]), abs(target[:, low]), **near)
    np.testing.assert_allclose(result[:, ~low], source[:, ~low], **near)
    turned = np.angle(result[:, low] / source[:, low])
    np.testing.assert_allclose(turned, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("beta", "height", "width", "b"),
    [(0, 512, 1024, 0), (0.01, 512, 1024, 5), (0.05, 512, 1024, 25), (0.09, 1024, 512, 46)],
)
def test_the_window_is_a_share_of_the_shorter_side(beta, height, width, b):
    assert window(beta, height, width) == b


@pytest.mark.parametrize("beta", [-0.01, 0.5, float("nan")])
def test_the_window_is_below_half_of_the_spectrum(beta):
    with pytest.raises(AssertionError):
        window(beta, 512, 1024)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(AssertionError):
        fourier_transfer(torch.zeros(3, 8, 8), torch.zeros(3, 8, 9), 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bytes_and_floats_are_the_same_picture(dtype):
    source, target = pictures((24, 40))
    result = fourier_transfer(source, target, 0.1)
    assert result.dtype == torch.float32
    assert torch.equal(fourier_transfer(source.to(dtype), target.to(dtype), 0.1), result)


def test_a_batch_is_its_images_one_by_one():
    source, target = pictures((24, 40), batch=(2, 3))
    batched = fourier_transfer(source, target, 0.1)
    for i, j in np.ndindex(2, 3):
        assert torch.equal(batched[i, j], fourier_transfer(source[i, j], target[i, j], 0.1))


def test_it_is_not_clamped():
    source, target = pictures((64, 64))
    result = fourier_transfer(255 - source // 8, target // 8, 0.05)
    assert result.min() < 0


@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("size", [(24, 40), (33, 21), (509, 1021)])
def test_a_constant_source_has_phase_0(size, level):
    """All cosines then peak in the first corner and the image is even, of full amplitude."""
    _, target = pictures(size)
    source = torch.full_like(target, level)
    result = fourier_transfer(source, target, 0.05).double().numpy()
    even = np.roll(np.flip(result, (-2, -1)), 1, (-2, -1))
    np.testing.assert_allclose(result, even, atol=LEVELS)
    peak = abs(fft(target))[:, inside(0.05, *size)].sum(-1) / math.prod(size)
    np.testing.assert_allclose(result[:, 0, 0], peak, atol=LEVELS)


SPARSE = {
    "ramp down": torch.arange(200).view(200, 1).expand(200, 331),
    "ramp right": (torch.arange(331) // 2).expand(200, 331),
    "stripes right": (torch.arange(1280) // 16 % 2 * 255).expand(720, 1280),
    "squares": (torch.arange(512).view(512, 1) // 16 + torch.arange(1024) // 16) % 2 * 255,
    "stripes down": (torch.arange(720) // 3 % 2 * 255).view(720, 1).expand(720, 1280),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SPARSE)
def test_where_the_source_has_no_wave_the_phase_is_0(name, device):
    """The target's amplitude is then a real, positive coefficient."""
    if device == "cuda" and name in ("stripes right", "squares"):
        pytest.skip("a GPU is not waited for to take float64 where float32 cannot tell")
    source = SPARSE[name].to(torch.uint8).expand(3, -1, -1)
    size = source.shape[-2:]
    _, target = pictures(size)
    result = fourier_transfer(source.to(device), target.to(device), 0.09).cpu()
    none = inside(0.09, *size) & (abs(fft(source))[0] < 1e-3)
    assert none.any()
    scale = math.prod(size)
    expected = abs(fft(target))[:, none] / scale
    np.testing.assert_allclose(fft(result)[:, none] / scale, expected, atol=LEVELS / 10)


@pytest.fixture(params=["for all", "per backend"])
def reduced_precision(request):
    """Float32 products may round to TF32 on a GPU and to bfloat16 on a CPU."""
    if request.param == "for all":
        torch.set_float32_matmul_precision("medium")
        yield
        torch.set_float32_matmul_precision("highest")
    elif hasattr(torch.backends.mkldnn, "matmul"):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        yield
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    else:
        pytest.skip("this torch has no settings per backend")


def test_the_precision_of_products_comes_back_whatever_happens(reduced_precision):
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    before = matrix @ matrix
    with pytest.raises(KeyboardInterrupt), true_float32(torch.device("cpu")):
        exact = matrix @ matrix
        raise KeyboardInterrupt
    assert torch.equal(matrix @ matrix, before)
    torch.testing.assert_close(exact, (matrix.double() @ matrix.double()).float())


def precisions():
    """Return the precisions of float32 products on GPUs and CPUs; one for all before torch 2.9."""
    if not hasattr(torch.backends.mkldnn, "matmul"):
        return [torch.get_float32_matmul_precision()]
    return [b.matmul.fp32_precision for b in (torch.backends.cuda, torch.backends.mkldnn)]


def test_products_are_of_true_float32_on_every_device(reduced_precision):
    """Also where this machine has none that would round."""
    before = precisions()
    with true_float32(torch.device("cpu")):
        assert set(precisions()) <= {"ieee", "highest"}
    assert precisions() == before


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_it_is_exact_in_the_middle_of_reduced_precision(reduced_precision, dtype, device):
    source, target = (x.to(device, dtype) for x in pictures((128, 256)))
    with torch.autocast(device, torch.bfloat16):
        assert (source.float() @ source.float().mT).dtype == torch.bfloat16
        result = fourier_transfer(source, target, 0.09)
    assert result.dtype == torch.float32
    assert error(result, source.cpu(), target.cpu(), 0.09) < LEVELS
