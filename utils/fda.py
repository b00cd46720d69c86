"""Fourier domain adaptation's transfer of style (Yang & Soatto, CVPR 2020).

    x_st = F^-1( M_b |F(x_t)| + (1 - M_b) |F(x_s)|,  arg F(x_s) )
         = x_s + F^-1( M_b (|F(x_t)| - |F(x_s)|) e^{i arg F(x_s)} )

M_b is one on the frequencies |u| <= b, |v| <= b, the only ones that are computed, and of those
only v >= 0: images are real, so that F(-u, -v) is the conjugate of F(u, v). Complex numbers are
pairs of real ones. F(u, v) and F(-u, v), u >= 0, are stacked, since they are sum and difference of
the same four products of waves; u = 0 is in both, at half its weight. The two products that go
over all pixels are true float32, of rows without their means, which concern v = 0 alone; what lies
between is small and float64. Where float32 leaves it open whether a wave is there, a CPU takes the
spectra in float64; on a GPU such a wave of a regular pattern has the phase of what was rounded.
"""

import contextlib
import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

ZERO, DOUBTFUL = 2**-20, 2**-16
"""A wave of that many grey levels is none; whether one of that many is, float32 cannot tell, whose
products over the pixels of regular patterns round as much."""

Pair = tuple[Tensor, Tensor]
"""Real and imaginary parts."""


def fourier_transfer(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """Return the source with the target's low-frequency amplitudes, channel by channel.

    Args:
        source: images [..., H, W] of 0..255, uint8 or floating.
        target: images of the same shape.
        beta: size of the swapped window, see `window`; 0 swaps the channels' means.

    Returns:
        float32 [..., H, W], not clamped to 0..255.
    """
    assert source.shape == target.shape, (source.shape, target.shape)
    height, width = source.shape[-2:]
    b = window(beta, height, width)
    rows = _waves(b, height, torch.float64, source.device)
    columns = _waves(b, width, torch.float32, source.device)
    result = torch.empty(source.shape, device=source.device).copy_(source)
    if source.ndim > 3 and source.device.type == "cpu":  # the floats of an image stay in the cache
        images = (x.flatten(0, -4) for x in (result, source, target))
        for one, own, other in zip(*images, strict=True):
            _change(one, own, other, rows, columns)
    else:
        _change(result, source, target, rows, columns)
    return result


def window(beta: float, height: int, width: int) -> int:
    """Return b = floor(beta * min(H, W)), beta in [0, 0.5): the highest frequency that is
    swapped."""
    assert 0 <= beta < 0.5, beta
    return math.floor(beta * min(height, width))


@lru_cache(maxsize=32)
def _waves(b: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return cos, then sin, of 2 pi k n / length for k = 0..b and every n, [2 (b + 1), length]."""
    k, n = (torch.arange(count, device=device) for count in (b + 1, length))
    angle = 2 * math.pi / length * (k[:, None] * n % length).double()
    return torch.cat([angle.cos(), angle.sin()]).to(dtype)


def _change(result: Tensor, source: Tensor, target: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Add to the source, which the result holds, the waves by which it is to change."""
    images, pixels = torch.stack([source, target]), source.shape[-2] * source.shape[-1]
    real, imaginary = _transform(images, rows, columns)
    amplitude, style = torch.hypot(real, imaginary)
    # Rare, but on a GPU it would be waited for at every step.
    if source.device.type == "cpu" and amplitude.min() <= DOUBTFUL * pixels:
        exact = _waves(len(columns) // 2 - 1, source.shape[-1], torch.float64, source.device)
        real, imaginary = _transform(images[:1], rows, exact)  # the source, whose phase is kept
        (amplitude,) = torch.hypot(real, imaginary)
    cosine, sine = _phase((real[0], imaginary[0]), amplitude, zero=ZERO * pixels)
    change = style - amplitude
    _add_inverse(result, (change * cosine, change * sine), rows, columns)


def _transform(images: Tensor, rows: Tensor, columns: Tensor) -> Pair:
    """Return the low frequencies of images, float64 [..., 2, b + 1, b + 1].

    F(+-u, v) = sum of x(y, x) e^{-2 pi i (+-uy / H + vx / W)}

    The width goes first: street scenes are wide, so that the second product is the small one.
    """
    pixels = images.to(columns.dtype, copy=True)
    sums = pixels.sum(-1)
    pixels -= sums[..., None] / pixels.shape[-1]
    with true_float32(pixels.device):
        across = pixels @ columns.mT
    across[..., 0] = sums
    cc, cs, sc, ss = _blocks(rows @ across.double())
    return torch.stack([cc - ss, cc + ss], -3), torch.stack([-sc - cs, sc - cs], -3)


def _blocks(products: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return cosine or sine in y, times cosine or sine in x: the quarters of the products."""
    (cc, cs), (sc, ss) = (part.chunk(2, dim=-1) for part in products.chunk(2, dim=-2))
    return cc, cs, sc, ss


def _phase(spectrum: Pair, amplitude: Tensor, *, zero: float) -> Pair:
    """Return cos and sin of arg F; the phase is 0 where F is."""
    is_zero = amplitude <= zero
    real, imaginary = spectrum
    divisor = amplitude.masked_fill(is_zero, 1)
    return real.masked_fill(is_zero, 1) / divisor, imaginary.masked_fill(is_zero, 0) / divisor


def _add_inverse(images: Tensor, spectrum: Pair, rows: Tensor, columns: Tensor) -> None:
    """Add to float32 images the real images of coefficients as `_transform` gives them."""
    height, width = images.shape[-2:]
    half = rows.new_ones(spectrum[0].shape[-1])
    # u = 0 is there twice, and v = 0 stands for no -v. A slice is filled; half[0] would be copied
    # from the host.
    half[:1] = 0.5
    weight = 2 / (height * width) * half[:, None] * half
    (plus, minus), (i_plus, i_minus) = ((weight * part).unbind(-3) for part in spectrum)
    cosines = torch.cat([plus + minus, -i_plus - i_minus], dim=-1)
    sines = torch.cat([i_minus - i_plus, minus - plus], dim=-1)
    across = torch.cat([cosines, sines], dim=-2).float()
    with true_float32(images.device):
        across = rows.mT.float() @ across
        images.view(-1, width).addmm_(across.view(-1, len(columns)), columns)


@contextlib.contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """Turn autocast off inside the block, and compute float32 products in no shorter type, such as
    TF32."""
    with torch.autocast(device.type, enabled=False), contextlib.ExitStack() as restored:
        if hasattr(torch.backends.mkldnn, "matmul"):
            for product in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
                restored.callback(setattr, product, "fp32_precision", product.fp32_precision)
                product.fp32_precision = "ieee"
        else:  # before torch 2.9 one setting rules all
            before = torch.get_float32_matmul_precision()
            restored.callback(torch.set_float32_matmul_precision, before)
            torch.set_float32_matmul_precision("highest")
        yield
