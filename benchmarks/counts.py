"""Count the kernels and the bytes of a training step on a GPU, without a GPU.

    python benchmarks/counts.py

The script runs whole steps of the loop, optimisers included, on fake CUDA tensors, which have a
shape but no values, and counts the operators that reach torch's dispatcher, including those of the
backward pass and the casts of autocast. It needs a CUDA build of torch, but no GPU. The losses and
the softmax before the discriminator have three forms: `bands` is a CPU's, `library` uses torch's
own kernels at full size, `fused` is `library` with the cross-entropy of
utils/fused_cross_entropy.py.

An operator that only makes a view or takes memory counts nothing. Each other one counts
- kernels: 1, or the number that `KERNELS` gives for operators that launch several;
- bytes: its inputs, read once, and its outputs, written once; a tensor changed in place is both;
- FLOPs, for convolutions and matrix products, at the card's rate for 16 or 32 bits.
A roofline is the sum over the operators of the larger of bytes / bandwidth and FLOPs / rate. The
peak memory is that of the tensors that are alive at the same time before the backward pass, which
frees them one by one; parameters, momenta and the batch are part of it.
"""

import argparse
import contextlib
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from fake_cuda import backward, fake_cuda  # its neighbours
from step import METHODS, OWN_FLAGS, sample
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.samples import Batch
from main import FlatSettings as Settings
from model.catalog import Design
from trainings.engine.state import TrainState
from trainings.engine.step import train_step
from utils import losses, upsampling
from utils.text import markdown

FORMS = ("bands", "library", "fused")

FUSING, TOO_OLD = (8, 0), (6, 0)
"""Compute capabilities of a GPU with the fused form, and of one that Triton does not serve."""

BAND_BYTES = 2**26
"""Size of a band in the form that GPUs had before."""

LAUNCH = 5e-6
"""Seconds that the host needs to launch a kernel."""


class Card(NamedTuple):
    """Bytes/s and FLOP/s that well-made kernels reach."""

    bandwidth: float
    half: float
    single: float


CARDS = {
    "T4": Card(250e9, 25e12, 6e12),
    "A100": Card(1250e9, 150e12, 15e12),
    "H100": Card(2600e9, 400e12, 45e12),
}

FREE = {
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach"),
    *("view", "_unsafe_view", "_reshape_alias", "lift_fresh", "resize_"),
}
"""Operators that launch nothing, beside those whose results are views."""

FUSED_OPTIMISERS = ("_fused_sgd_", "_fused_adam_")

TENSORS_A_LAUNCH = 36
"""Tensors that one kernel of a fused optimiser takes at most."""


def _of_convolution(_inputs: list[Tensor], _outputs: list[Tensor], arguments: tuple) -> int:
    return 2 if isinstance(arguments[2], Tensor) else 1  # the bias is added by a kernel of its own


def _of_convolution_backward(_inputs: list, outputs: list, _arguments: tuple) -> int:
    return len([output for output in outputs if output is not None])


def _of_lists(_inputs: list[Tensor], _outputs: list[Tensor], arguments: tuple) -> int:
    return -(-len(arguments[0]) // TENSORS_A_LAUNCH)


KERNELS: dict[str, Callable[[list, list, tuple], int]] = {
    "convolution": _of_convolution,
    "convolution_backward": _of_convolution_backward,
    **dict.fromkeys(FUSED_OPTIMISERS, _of_lists),
    "native_batch_norm": lambda *_: 3,  # statistics, running ones, normalisation
    "native_batch_norm_backward": lambda *_: 2,
    "upsample_bilinear2d_backward": lambda *_: 2,  # the gradient is filled with zeros first
    "topk": lambda *_: 8,
    "_index_put_impl_": lambda *_: 4,
}


class Count(TorchDispatchMode):
    """Counts what runs inside it.

    Attributes:
        operators, kernels, bytes: by the operator's name.
        work: of each operator its bytes, FLOPs, and whether these are of 16 bits.
        peak: bytes of the tensors that were alive at a time before the backward pass, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.kernels, self.bytes = Counter(), Counter(), Counter()
        self.work: list[tuple[int, int, bool]] = []
        self.alive, self.peak, self._known = 0, 0, weakref.WeakSet()
        self._forward = True

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = operator.overloadpacket.__name__
        result = operator(*args, **kwargs)
        outputs = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        self.hold(outputs)
        if name in FREE or operator.is_view or operator.namespace == "prim":
            return result
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if not any(one.device.type == "cuda" for one in [*inputs, *outputs]):
            return result
        changed = _changed(operator, args, kwargs)
        read = inputs if name not in ("zero_", "fill_") else []
        moved = sum(map(_bytes, [*read, *changed]))
        moved += sum(_bytes(one) for one in outputs if not any(one is c for c in changed))
        kernels = KERNELS.get(name, lambda *_: 1)(inputs, outputs, args)
        self.operators[name] += 1
        self.kernels[name] += kernels
        self.bytes[name] += moved
        flops = flop_registry.get(operator.overloadpacket)
        half = any(one.element_size() == 2 for one in inputs)
        self.work.append((moved, flops(*args, **kwargs, out_val=result) if flops else 0, half))
        return result

    def hold(self, tensors: list[Tensor]) -> None:
        """Count the memory of the tensors as taken until it is given back."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._give_back, storage.nbytes())
        if self._forward:
            self.peak = max(self.peak, self.alive)

    def _give_back(self, size: int) -> None:
        self.alive -= size

    def backward(self, loss: Tensor) -> None:
        """Call `loss.backward()`; nothing after it counts towards the peak."""
        self._forward = False
        backward(loss)

    def seconds(self, card: Card) -> float:
        """Return the roofline of the operators that were counted."""
        return sum(
            max(moved / card.bandwidth, flops / (card.half if half else card.single))
            for moved, flops, half in self.work
        )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _changed(operator, args: tuple, kwargs: dict) -> list[Tensor]:
    """Return the arguments that an operator writes to."""
    names = operator._schema.arguments
    values = [*args, *(kwargs.get(argument.name) for argument in names[len(args) :])]
    written = [
        value
        for argument, value in zip(names, values, strict=True)
        if argument.alias_info and argument.alias_info.is_write
    ]
    return [one for one in tree_leaves(written) if isinstance(one, Tensor)]


@contextlib.contextmanager
def form_of_losses(form: str) -> Iterator[None]:
    """Use a fake GPU inside the block that takes this one of `FORMS`."""
    bands = form == "bands"
    with (
        fake_cuda(FUSING if form == "fused" else TOO_OLD),
        patch.object(upsampling, "in_bands", lambda _: bands),
        patch.object(losses, "in_bands", lambda _: bands),
        patch.object(upsampling, "BAND_BYTES", BAND_BYTES),
    ):
        yield


def counted(kind: str, form: str, batch_size: int, size: tuple[int, int], width: int) -> Count:
    """Count the second step of a method in bfloat16: the first one fills caches."""
    settings = Settings(fda_beta=0.05, **OWN_FLAGS.get(kind, {}))
    with form_of_losses(form):
        method = METHODS[kind](Design(base_width=width).build(), settings)
        _set_channels_last(method)
        batch = Batch(*(sample(batch_size, size, "cuda") for _ in range(2)))
        state = TrainState(method, settings, steps_per_epoch=9, scale_loss=False)
        _counted_step(state, batch)
        return _counted_step(state, batch)


def _counted_step(state: TrainState, batch: Batch) -> Count:
    count = Count()
    momenta = [list(o.state.values()) for o in state.optimizers.values()]
    here = [*state.method.parameters(), *state.method.buffers(), batch, momenta]
    with count, patch.object(Tensor, "backward", lambda loss: count.backward(loss)):
        count.hold([one for one in tree_leaves(here) if isinstance(one, Tensor)])
        train_step(state, [batch], torch.bfloat16)
    return count


def _set_channels_last(module: nn.Module) -> None:
    """Do what `module.to(memory_format=torch.channels_last)` does, which fake parameters do not
    allow."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.ndim == 4:
                changed = parameter.detach().to(memory_format=torch.channels_last)
                setattr(part, name, nn.Parameter(changed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=64, help="base width of the network")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--operators", type=int, default=0, help="most frequent ones to list")
    args = parser.parse_args()
    head = ("method", "losses", "operators", "kernels", "launches, ms", "GB")
    rows = [(*head, f"{' / '.join(CARDS)}, ms", "peak, GB")]
    for kind in args.methods:
        for form in args.forms:
            count = counted(kind, form, args.batch, tuple(args.size), args.width)
            kernels = count.kernels.total()
            rooflines = " / ".join(f"{1e3 * count.seconds(card):.0f}" for card in CARDS.values())
            numbers = (f"{1e3 * LAUNCH * kernels:.1f}", f"{count.bytes.total() / 1e9:.1f}")
            names = (kind, form, str(count.operators.total()), str(kernels))
            rows.append((*names, *numbers, rooflines, f"{count.peak / 1e9:.1f}"))
            for name, number in count.kernels.most_common(args.operators):
                print(f"{kind}, {form}: {name} {number}, {count.bytes[name] / 1e9:.2f} GB")
    print(markdown(rows, numbers=range(2, 8)))


if __name__ == "__main__":
    main()
