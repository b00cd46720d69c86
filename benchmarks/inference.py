"""One image through the network: how it comes from training, and step by step as it is used.

python benchmarks/inference.py --size 512 1024
"""

import argparse
import copy
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import machine, report  # its neighbour
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.folding import folded
from model.model_stages import BiSeNet
from utils.utils import autocast, resolve_precision


def plain(network: BiSeNet, image: Tensor) -> None:
    for logits in network.heads(image):
        F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=True)


def main_head(network: BiSeNet, image: Tensor, precision: torch.dtype) -> None:
    with autocast(image.device, precision):
        network.main_logits(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    precision = resolve_precision(args.precision, torch.device(args.device))
    torch.manual_seed(0)
    network = BiSeNet().eval().to(args.device)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8, device=args.device)
    calls = {
        "plain: all heads enlarged, float32": partial(plain, network, image),
        "main head at 1/8": partial(main_head, network, image, torch.float32),
        "and channels last": partial(main_head, last, image, torch.float32),
        "and norms folded": partial(main_head, folded(last), image, torch.float32),
        f"and {precision}: ours": partial(main_head, folded(last), image, precision),
    }
    print(machine(args.device))
    with torch.inference_mode():
        report(f"batch 1 of {'x'.join(map(str, args.size))}", calls, args.rounds, args.device)


if __name__ == "__main__":
    main()
