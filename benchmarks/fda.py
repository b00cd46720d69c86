"""Compare FDA's transfer by full spectra, by the library's real FFT, and by our own code.

    python benchmarks/fda.py --batch 4 --size 512 1024

The floor only reads two images and writes one. Errors are differences from float64.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import machine, report  # its neighbour
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.fda import fourier_transfer, window


def full_fft(source: np.ndarray, target: np.ndarray, beta: float) -> np.ndarray:
    """Apply the formula with full, shifted spectra, as the official code computes it."""
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


def floor(source: Tensor, target: Tensor, _beta: float) -> Tensor:
    return torch.add(source, target, out=torch.empty(source.shape, device=source.device))


WAYS = {
    "plain, numpy fft2": numpy_fft,
    "torch rfft2": torch_rfft,
    "ours": fourier_transfer,
    "floor": floor,
}


def pictures(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return source and target, uint8, with the falling spectrum of photographs."""
    walks = np.random.default_rng(0).normal(size=(2, *shape)).cumsum(-1).cumsum(-2)
    walks -= walks.min((-2, -1), keepdims=True)
    source, target = (255 * walks / walks.max((-2, -1), keepdims=True)).astype(np.uint8)
    return torch.from_numpy(source), torch.from_numpy(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--betas", type=float, nargs="+", default=(0.01, 0.05, 0.09))
    parser.add_argument("--rounds", type=int, default=11)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    args = parser.parse_args()
    images = pictures((args.batch, 3, *args.size))
    exact, images = [x.double().numpy() for x in images], [x.to(args.device) for x in images]

    print(machine(args.device))
    shape = "x".join(map(str, images[0].shape))
    for beta in args.betas:
        calls = {name: partial(way, *images, beta) for name, way in WAYS.items()}
        truth = full_fft(*exact, beta)
        errors = {
            name: f"{np.abs(call().cpu().numpy() - truth).max():.0e}"
            for name, call in calls.items()
            if name != "floor"
        }
        title = f"beta {beta}, uint8 {shape}; largest error in grey levels: {errors}"
        report(title, calls, args.rounds, args.device)


if __name__ == "__main__":
    main()
