"""Time validation and pseudo-labels of one image, with the network and without it.

    python benchmarks/validation.py --size 512 1024 --label_size 1024 2048

The plain form is how it is usually written: the network as it trains, all heads in float32, the
main head's logits enlarged to the label, argmax, and a masked histogram in numpy; an ensemble of
three enlarges every network's logits.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from step import enlarged
from timing import machine, report  # its neighbour
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.labels import IGNORE, NUM_CLASSES
from model.catalog import Design
from model.deployment.folding import folded
from model.network import Network
from trainings.scoring.pseudo_label_making import predict
from utils.metrics import ConfusionMatrix
from utils.upsampling import upsampled_max
from utils.utils import autocast, resolve_precision


def plain_counts(prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    valid = label != IGNORE
    codes = NUM_CLASSES * label[valid].astype(int) + prediction[valid]
    return np.bincount(codes, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def plain_validation(network: Network, image: Tensor, label: Tensor) -> None:
    main = enlarged(network.heads(image)[0], label.shape)
    plain_counts(main.argmax(1)[0].cpu().numpy(), label.cpu().numpy())


def our_validation(network: Network, image: Tensor, label: Tensor, precision: torch.dtype) -> None:
    with autocast(image.device, precision):
        logits = network.main_logits(image)
    _, prediction = upsampled_max(logits[0], label.shape)
    ConfusionMatrix().update(prediction, label)


def plain_pseudo_label(networks: list[Network], image: Tensor) -> None:
    size = image.shape[-2:]
    maps = [enlarged(network.heads(image)[0], size).softmax(1) for network in networks]
    torch.stack(maps).mean(0).max(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--label_size", type=int, nargs=2, default=(1024, 2048))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    args = parser.parse_args()
    precision = resolve_precision(args.precision, torch.device(args.device))
    torch.manual_seed(0)
    plain = [Design().build().eval().to(args.device) for _ in range(3)]
    ours = [folded(network).to(memory_format=torch.channels_last) for network in plain]
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8, device=args.device)
    label, prediction = torch.randint(
        0, NUM_CLASSES, (2, *args.label_size), dtype=torch.uint8, device=args.device
    )
    logits = plain[0].main_logits(image).detach()
    shape, large = ("x".join(map(str, size)) for size in (args.size, args.label_size))

    compare = partial(report, rounds=args.rounds, device=args.device)
    print(f"{machine(args.device)}; ours in {precision}")
    with torch.inference_mode():
        compare(
            f"validation of one {shape} image with a {large} label",
            {
                "plain": partial(plain_validation, plain[0], image, label),
                "ours": partial(our_validation, ours[0], image, label, precision),
                "floor: ours, the network alone": partial(network_alone, ours, image, precision),
            },
        )
        compare(
            f"enlarging logits to {large} and taking the largest",
            {
                "plain": lambda: enlarged(logits, tuple(args.label_size)).argmax(1),
                "ours": lambda: upsampled_max(logits[0], tuple(args.label_size)),
            },
        )
        compare(
            f"counts of a {large} prediction",
            {
                "plain, numpy": lambda: plain_counts(prediction.cpu().numpy(), label.cpu().numpy()),
                "ours": lambda: ConfusionMatrix().update(prediction, label),
                "floor: comparing them": lambda: (prediction == label).sum(),
            },
        )
        compare(
            f"pseudo-label of one {shape} image by three networks",
            {
                "plain": partial(plain_pseudo_label, plain, image),
                "ours": partial(predict, ours, image, precision),
                "floor: ours, the networks alone": lambda: [
                    network_alone([network], image, precision) for network in ours
                ],
            },
        )


def network_alone(networks: list[Network], image: Tensor, precision: torch.dtype) -> None:
    with autocast(image.device, precision):
        networks[0].main_logits(image)


if __name__ == "__main__":
    main()
