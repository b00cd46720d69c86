"""Time the class map of one image, by the network of training and by each step towards ours.

python benchmarks/inference.py --size 512 1024
"""

import argparse
import copy
import sys
from functools import partial
from pathlib import Path

import torch
from step import enlarged  # its neighbour
from timing import machine, report
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.catalog import Design
from model.deployment.folding import folded
from model.network import Network
from utils.upsampling import upsampled_max
from utils.utils import autocast, resolve_precision


def plain(network: Network, image: Tensor) -> Tensor:
    """Run the network as it comes from training: all heads are computed, the main one is used."""
    return enlarged(network.heads(image)[0], image.shape[-2:]).argmax(1)


def main_head(network: Network, image: Tensor) -> Tensor:
    return enlarged(network.main_logits(image), image.shape[-2:]).argmax(1)


def in_bands(network: Network, image: Tensor, precision: torch.dtype) -> Tensor:
    with autocast(image.device, precision):
        logits = network.main_logits(image)
    return upsampled_max(logits[0], image.shape[-2:])[1]


def alone(network: Network, image: Tensor, precision: torch.dtype) -> Tensor:
    with autocast(image.device, precision):
        return network.main_logits(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    args = parser.parse_args()
    precision = resolve_precision(args.precision, torch.device(args.device))
    torch.manual_seed(0)
    network = Design().build().eval().to(args.device)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8, device=args.device)
    calls = {
        "plain: all heads, float32": partial(plain, network, image),
        "main head": partial(main_head, network, image),
        "and channels last": partial(main_head, last, image),
        "and norms folded": partial(main_head, folded(last), image),
        "and the largest in bands": partial(in_bands, folded(last), image, torch.float32),
        f"and {precision}: ours": partial(in_bands, folded(last), image, precision),
        "floor: that network alone": partial(alone, folded(last), image, precision),
    }
    print(machine(args.device))
    with torch.inference_mode():
        report(f"batch 1 of {'x'.join(map(str, args.size))}", calls, args.rounds, args.device)


if __name__ == "__main__":
    main()
