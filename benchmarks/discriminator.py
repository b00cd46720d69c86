"""Compare the plain and the light discriminator by parameters, and by forward and backward time.

python benchmarks/discriminator.py --batch 4 --size 512 1024
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from timing import machine, report  # its neighbour
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.discriminator import KINDS, Discriminator
from utils.utils import autocast

CLASSES = 19


def step(net: Discriminator, maps: Tensor, precision: torch.dtype) -> None:
    net.zero_grad()
    with autocast(maps.device, precision):
        net(maps.to(precision)).float().mean().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    args = parser.parse_args()
    torch.manual_seed(0)
    maps = torch.randn(args.batch, *args.size, CLASSES, device=args.device).softmax(-1)
    maps = maps.permute(0, 3, 1, 2)  # channels last, as `upsampled_softmax` returns them
    nets = {kind: Discriminator(CLASSES, kind).to(args.device) for kind in KINDS}
    print(machine(args.device))
    sizes = {kind: sum(p.numel() for p in net.parameters()) for kind, net in nets.items()}
    counts = ", ".join(f"{kind} {count:,}" for kind, count in sizes.items())
    shape = "x".join(map(str, maps.shape))
    print(f"parameters: {counts}")
    for precision in (torch.float32, torch.bfloat16):
        steps = {kind: partial(step, net, maps, precision) for kind, net in nets.items()}
        report(f"{shape}, {str(precision).removeprefix('torch.')}", steps, args.rounds, args.device)


if __name__ == "__main__":
    main()
