"""Time a training step of each method, forward and backward, in a plain form and in ours.

    python benchmarks/step.py --batch 4 --size 512 1024

The plain form is how the methods are usually written: float32, NCHW, every head enlarged to full
size before a library's cross-entropy; FDA with whole spectra; ADA with three evaluations of the
discriminator and four backward passes; DACS class by class, with torchvision's jitter and blur;
OHEM, which is supervised training with `--ohem`, by sorting the losses of all pixels.
Both forms make the same update, but for rounding and random numbers. The floor is the time that no
loss can undercut: our networks' forward and backward passes alone, on images and maps that are
ready.
"""

import argparse
import dataclasses
import math
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from fda import torch_rfft
from timing import machine, report  # its neighbours
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.transforms.v2 import ColorJitter, GaussianBlur

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.labels import IGNORE, NUM_CLASSES
from datasets.samples import Batch, Sample
from main import FlatSettings as Settings
from model.catalog import Design
from model.network import Network
from trainings.engine.step import add_gradient
from trainings.method import Method
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils.losses import robust_entropy
from utils.utils import autocast, precision_name, resolve_precision

SETTINGS = Settings(fda_beta=0.05)
JITTER = ColorJitter(0.2, 0.2, 0.2, 0.2)
METHODS = {
    **{"supervised": Supervised, "fda": FDA, "ada": ADA, "ssl_fda": SSLFDA},
    **{"dacs": DACS, "mic": DACS, "ohem": Supervised},
}
OWN_FLAGS = {"mic": {"mask_ratio": 0.7}, "ohem": {"ohem": True}}
"""Flags that a method of the table is made of."""


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=True)


def plain_segmentation(network: Network, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    heads = [enlarged(logits, images.shape[-2:]) for logits in network.heads(images)]
    return sum(F.cross_entropy(h, label.long(), ignore_index=IGNORE) for h in heads), heads[0]


def plain_supervised(method: Supervised, batch: Batch) -> None:
    plain_segmentation(method.network, batch.source.image, batch.source.label)[0].backward()


def plain_ohem(method: Supervised, batch: Batch) -> None:
    image, label = batch.source.image, batch.source.label.long()
    sum(map(partial(of_hard_pixels, label), method.network.heads(image))).backward()


def of_hard_pixels(label: Tensor, logits: Tensor) -> Tensor:
    up = enlarged(logits, label.shape[-2:])
    losses = F.cross_entropy(up, label, ignore_index=IGNORE, reduction="none").flatten()
    losses, _ = losses.sort(descending=True)
    at_least, threshold = losses.numel() // 16, -math.log(0.7)
    hard = losses[at_least] > threshold
    return (losses[losses > threshold] if hard else losses[:at_least]).mean()


def plain_fda(method: FDA, batch: Batch) -> None:
    source, target = batch
    stylised = torch_rfft(source.image, target.image, method.options.fda_beta)
    loss, _ = plain_segmentation(method.network, stylised, source.label)
    entropy = robust_entropy(method.network.heads(target.image)[0], method.options.ent_eta)
    (loss + method.options.ent_weight * entropy).backward()


def plain_ssl_fda(method: SSLFDA, batch: Batch) -> None:
    source, target = batch
    stylised = torch_rfft(source.image, target.image, method.options.fda_beta)
    loss, _ = plain_segmentation(method.network, stylised, source.label)
    loss_target, main = plain_segmentation(method.network, target.image, target.label)
    entropy = robust_entropy(main, method.options.ent_eta)
    (loss + loss_target + method.options.ent_weight * entropy).backward()


def plain_ada(method: ADA, batch: Batch) -> None:
    source, target = batch
    bce, judge = F.binary_cross_entropy_with_logits, method.discriminator
    judge.requires_grad_(False)
    loss, main = plain_segmentation(method.network, source.image, source.label)
    loss.backward()
    p_target = enlarged(method.network.heads(target.image)[0], target.image.shape[-2:]).softmax(1)
    fooled = judge(p_target)
    (method.options.adv_weight * bce(fooled, torch.zeros_like(fooled))).backward()
    judge.requires_grad_(True)
    for maps, label in ((main.detach().softmax(1), 0.0), (p_target.detach(), 1.0)):
        output = judge(maps)
        (0.5 * bce(output, torch.full_like(output, label))).backward()


def plain_dacs(method: DACS, batch: Batch) -> None:
    source, target = batch
    size, options = target.image.shape[-2:], method.options
    with torch.no_grad():
        p, label = enlarged(method.teacher.module.heads(target.image)[0], size).softmax(1).max(1)
    q = (p >= options.confidence).float().mean().item()
    image, mixed, weight = target.image.float(), label.clone(), torch.full_like(p, q)
    for number, truth in enumerate(source.label.long()):
        classes = truth.unique()
        classes = classes[classes != IGNORE]
        chosen = classes[torch.randperm(len(classes))[: (len(classes) + 1) // 2]]
        for c in chosen:
            there = truth == c
            image[number][:, there] = source.image[number][:, there].float()
            mixed[number][there], weight[number][there] = c, 1.0
    image = 255 * GaussianBlur(9, (0.15, 1.15))(JITTER(image / 255))
    loss, _ = plain_segmentation(method.network, source.image, source.label)
    heads = [enlarged(logits, size) for logits in method.network.heads(image)]
    loss = loss + sum((weight * F.cross_entropy(h, mixed, reduction="none")).mean() for h in heads)
    if options.mask_ratio:
        shape = (len(image), 1, size[0] // options.mask_block, size[1] // options.mask_block)
        kept = (torch.rand(shape, device=image.device) >= options.mask_ratio).float()
        masked = 255 * JITTER(target.image.float() / 255) * F.interpolate(kept, size)
        loss = loss + q * plain_segmentation(method.network, masked, label)[0]
    loss.backward()


PLAIN = {
    "supervised": plain_supervised,
    "fda": plain_fda,
    "ada": plain_ada,
    "ssl_fda": plain_ssl_fda,
    "dacs": plain_dacs,
    "mic": plain_dacs,
    "ohem": plain_ohem,
}


def ours(method: Method, batch: Batch, precision: torch.dtype) -> None:
    add_gradient(method, batch, precision)


def floor(method: Method, batch: Batch, precision: torch.dtype) -> None:
    source, target = batch
    outputs = []
    with autocast(source.image.device, precision):
        outputs += method.network.heads(source.image)
        if isinstance(method, DACS):
            outputs += method.network.heads(target.image)
            outputs += method.network.heads(target.image) if method.options.mask_ratio else ()
            outputs.append(method.teacher.module.main_logits(target.image))
        elif isinstance(method, SSLFDA):
            outputs += method.network.heads(target.image)
        elif not isinstance(method, Supervised):
            outputs.append(method.network.main_logits(target.image))
        if isinstance(method, ADA):
            outputs += discriminated(method.discriminator, source.image, precision)
    sum(output.float().mean() for output in outputs).backward()


def discriminated(judge: nn.Module, images: Tensor, precision: torch.dtype) -> list[Tensor]:
    """Compute what ADA asks of the discriminator, on constant maps."""
    shape = (len(images), NUM_CLASSES, *images.shape[-2:])
    maps = torch.full(shape, 1 / NUM_CLASSES, dtype=precision, device=images.device)
    maps = maps.to(memory_format=torch.channels_last)
    fixed = {name: p.detach() for name, p in judge.named_parameters()}
    fooled = functional_call(judge, fixed, (maps.clone().requires_grad_(),))
    return [fooled, judge(maps), judge(maps)]


def step(run, module: nn.Module, *arguments) -> None:
    module.zero_grad()
    run(module, *arguments)


def made(kind: str, device: str, memory_format: torch.memory_format) -> Method:
    torch.manual_seed(0)
    settings = dataclasses.replace(SETTINGS, **OWN_FLAGS.get(kind, {}))
    return METHODS[kind](Design().build(), settings).to(device, memory_format=memory_format).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:3], choices=METHODS)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    args = parser.parse_args()
    precision = resolve_precision(args.precision, torch.device(args.device))
    batch = Batch(*(sample(args.batch, tuple(args.size), args.device) for _ in range(2)))
    print(machine(args.device))
    for kind in args.methods:
        plain = made(kind, args.device, torch.contiguous_format)
        fast = made(kind, args.device, torch.channels_last)
        calls = {"plain, float32": partial(step, PLAIN[kind], plain, batch)}
        for dtype in dict.fromkeys((torch.float32, precision)):
            name = precision_name(dtype)
            calls[f"ours, {name}"] = partial(step, ours, fast, batch, dtype)
        calls[f"floor, {name}"] = partial(step, floor, fast, batch, precision)
        shape = "x".join(map(str, args.size))
        report(f"{kind}, batch {args.batch} of {shape}", calls, args.rounds, args.device)


def sample(batch: int, size: tuple[int, int], device: str) -> Sample:
    return Sample(
        torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, device=device),
        torch.randint(0, NUM_CLASSES, (batch, *size), dtype=torch.uint8, device=device),
        [],
    )


if __name__ == "__main__":
    main()
