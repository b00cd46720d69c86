"""FDA's transfer in three ways, taking turns: python benchmarks/fda.py --batch 4"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import machine, medians  # its neighbour
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.fda import fourier_transfer, window

BETAS = (0.01, 0.05, 0.09)


def full_fft(source: np.ndarray, target: np.ndarray, beta: float) -> np.ndarray:
    """The formula with full, shifted spectra, as the official code computes it."""
    height, width = source.shape[-2:]
    b = window(beta, height, width)
    spectrum, style = np.fft.fft2(source), np.fft.fft2(target)
    amplitude, style = (np.fft.fftshift(np.abs(f), axes=(-2, -1)) for f in (spectrum, style))
    rows, columns = (slice(n // 2 - b, n // 2 + b + 1) for n in (height, width))
    amplitude[..., rows, columns] = style[..., rows, columns]
    amplitude = np.fft.ifftshift(amplitude, axes=(-2, -1))
    return np.fft.ifft2(amplitude * np.exp(1j * np.angle(spectrum))).real


def numpy_fft(source: Tensor, target: Tensor, beta: float) -> Tensor:
    images = (x.cpu().float().numpy() for x in (source, target))
    return torch.from_numpy(full_fft(*images, beta)).float().to(source.device)


def torch_rfft(source: Tensor, target: Tensor, beta: float) -> Tensor:
    height, width = source.shape[-2:]
    b = window(beta, height, width)
    spectrum, style = (torch.fft.rfft2(x.float()) for x in (source, target))
    amplitude, style = spectrum.abs(), style.abs()
    for rows in (slice(b + 1), slice(height - b, None)):
        amplitude[..., rows, : b + 1] = style[..., rows, : b + 1]
    return torch.fft.irfft2(torch.polar(amplitude, spectrum.angle()), (height, width))


WAYS = {"numpy fft2": numpy_fft, "torch rfft2": torch_rfft, "ours": fourier_transfer}


def pictures(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Source and target, uint8, with the falling spectrum of photographs."""
    walks = np.random.default_rng(0).normal(size=(2, *shape)).cumsum(-1).cumsum(-2)
    walks -= walks.min((-2, -1), keepdims=True)
    source, target = (255 * walks / walks.max((-2, -1), keepdims=True)).astype(np.uint8)
    return torch.from_numpy(source), torch.from_numpy(target)


def main() -> None:
    parser = argparse.ArgumentParser(description="three ways to FDA's transfer")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    images = pictures((args.batch, 3, *args.size))
    exact, images = [x.double().numpy() for x in images], [x.to(args.device) for x in images]

    print(f"{machine(args.device)}; uint8 {'x'.join(map(str, images[0].shape))}")
    for beta in BETAS:
        calls = {name: partial(way, *images, beta) for name, way in WAYS.items()}
        truth, seconds = full_fft(*exact, beta), medians(calls, args.rounds, args.device)
        for name, call in calls.items():
            print(
                f"beta {beta:.2f}  {name:11}  {1e3 * seconds[name]:8.2f} ms, "
                f"{seconds[name] / seconds['ours']:6.2f} x ours; "
                f"largest error {np.abs(call().cpu().numpy() - truth).max():.1e}"
            )


if __name__ == "__main__":
    main()
