"""Fourier domain adaptation's transfer of style (Yang & Soatto, CVPR 2020).

    x_st = F^-1( M_b |F(x_t)| + (1 - M_b) |F(x_s)|,  arg F(x_s) )
         = x_s + F^-1( M_b (|F(x_t)| - |F(x_s)|) e^{i arg F(x_s)} )

M_b is one on the frequencies |u| <= b, |v| <= b, the only ones that are computed, and of those
only v >= 0: images are real, so that F(-u, -v) is the conjugate of F(u, v). Complex numbers are
pairs of real ones. All is float64: autocast, TF32 and bf16 products leave that type alone, and a
coefficient that is zero stands clear of rounding.
"""

import math

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Real and imaginary parts, or cosines and sines."""


def fourier_transfer(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """The source with the target's low-frequency amplitudes, channel by channel.

    Args:
        source: images [..., H, W] of 0..255, uint8 or floating.
        target: images of the same shape.
        beta: size of the swapped window, see `window`; 0 swaps the channels' means.

    Returns:
        float32 [..., H, W], not clamped to 0..255.
    """
    assert source.shape == target.shape, (source.shape, target.shape)
    if source.ndim > 3:  # float64 copies of a whole batch would take twice the time on a CPU
        pairs = zip(source, target, strict=True)
        return torch.stack([fourier_transfer(s, t, beta) for s, t in pairs])
    height, width = source.shape[-2:]
    b = window(beta, height, width)
    rows = _waves(-b, b, height, source.device)
    columns = _waves(0, b, width, source.device)

    spectrum = _transform(source, rows, columns)
    amplitude = torch.hypot(*spectrum)
    change = torch.hypot(*_transform(target, rows, columns)) - amplitude
    cosine, sine = _phase(spectrum, amplitude, terms=height + width)
    difference = _inverse((change * cosine, change * sine), rows, columns)
    return source.float() + difference.float()


def window(beta: float, height: int, width: int) -> int:
    """b = floor(beta * min(H, W)), beta in [0, 0.5): the highest frequency that is swapped."""
    assert 0 <= beta < 0.5, beta
    return math.floor(beta * min(height, width))


def _waves(lowest: int, highest: int, length: int, device: torch.device) -> Pair:
    """cos and sin of 2 pi k n / length, each [k from lowest to highest, n < length]."""
    k = torch.arange(lowest, highest + 1, device=device)
    turns = k[:, None] * torch.arange(length, device=device) % length
    angle = 2 * math.pi / length * turns.double()
    return angle.cos(), angle.sin()


def _transform(images: Tensor, rows: Pair, columns: Pair) -> Pair:
    """F(u, v) = sum of x(y, x) e^{-2 pi i (uy / H + vx / W)}, [..., 2b + 1, b + 1].

    The width goes first: street scenes are wide, so that the second product is the small one.
    """
    cosine, sine = rows
    even, odd = (images.double() @ torch.cat(columns).mT).chunk(2, dim=-1)
    return cosine @ even - sine @ odd, -(sine @ even + cosine @ odd)


def _phase(spectrum: Pair, amplitude: Tensor, *, terms: int) -> Pair:
    """cos and sin of arg F; the phase is 0 where F is zero within the rounding of its sums."""
    # The largest amplitude is the mean's, the sum of all pixels, which bounds what is rounded.
    rounding = torch.finfo(amplitude.dtype).eps * terms * amplitude.amax((-2, -1), keepdim=True)
    zero = amplitude <= rounding
    real, imaginary = spectrum
    divisor = amplitude.masked_fill(zero, 1)
    return real.masked_fill(zero, 1) / divisor, imaginary.masked_fill(zero, 0) / divisor


def _inverse(spectrum: Pair, rows: Pair, columns: Pair) -> Tensor:
    """The real images [..., H, W] of coefficients on |u| <= b, 0 <= v <= b."""
    real, imaginary = spectrum
    cosine, sine = rows[0].mT, rows[1].mT
    even, odd = cosine @ real - sine @ imaginary, -(sine @ real + cosine @ imaginary)
    height, width = rows[0].shape[-1], columns[0].shape[-1]
    weight = torch.full_like(columns[0][:, 0], 2 / (height * width))
    weight[0] /= 2  # every v > 0 stands for -v as well
    return torch.cat([even * weight, odd * weight], dim=-1) @ torch.cat(columns)
