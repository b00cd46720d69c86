"""Time the fused cross-entropy and the gradient of STDC's pools on a CUDA GPU.

    python benchmarks/kernels.py

The three heads and the three pools are those of a step of 8 images of 512x1024 in bfloat16.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from timing import machine  # its neighbour
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.labels import NUM_CLASSES
from model.stdcnet import PoolWithOwnGradient
from utils.text import markdown

COUNT, SIZE = 8, (512, 1024)
HEADS = ((64, 128), (64, 128), (32, 64))
POOLS = ((128, 64, 128), (256, 32, 64), (512, 16, 32))
"""Channels, height and width of the pools' outputs; they pool twice as many lines."""


def maps(channels: int, height: int, width: int) -> Tensor:
    drawn = torch.randn(COUNT, channels, height, width, device="cuda", dtype=torch.bfloat16)
    return drawn.to(memory_format=torch.channels_last)


def pool_gradient(upstream: Tensor) -> Tensor:
    *_, height, width = upstream.shape
    return PoolWithOwnGradient.backward(SimpleNamespace(size=(2 * height, 2 * width)), upstream)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA GPU here")
    from triton.testing import do_bench  # only torch's CUDA wheels have Triton

    from utils.fused_cross_entropy import fused_losses

    operators = torch.ops.fused_cross_entropy
    torch.manual_seed(0)
    label = torch.randint(0, NUM_CLASSES, (COUNT, *SIZE), dtype=torch.uint8, device="cuda")
    weight = torch.rand(COUNT, *SIZE, device="cuda")
    heads = [maps(NUM_CLASSES, *size) for size in HEADS]
    upstream = [maps(*size) for size in POOLS]
    calls: dict[str, list[Callable]] = {
        "cross-entropy of the heads, with its gradient": [
            lambda logits=logits: operators.losses_and_gradient(logits, label, weight)
            for logits in heads
        ],
        "the loss of each pixel": [
            lambda logits=logits: fused_losses(logits, label) for logits in heads
        ],
        "gradient of the pools": [lambda one=one: pool_gradient(one) for one in upstream],
    }
    rows = [("kernels", "ms")]
    for name, parts in calls.items():
        milliseconds = sum(do_bench(call, return_mode="median") for call in parts)
        rows.append((name, f"{milliseconds:.2f}"))
    print(f"{machine('cuda')}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
