"""Imitate a CUDA GPU by tensors with a device, a type and a shape, but no values.

An operation that waits for a value is an error. It needs a CUDA build of torch.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils import fda, losses

DRAWN = 0.4
"""Stands for every number that a method draws on the CPU and uses on the host."""


class _Fakes(FakeTensorMode):
    def __deepcopy__(self, memo: dict) -> "_Fakes":
        return self  # copies of fake tensors meet the originals


@contextlib.contextmanager
def fake_cuda(capability: tuple[int, int] = (8, 0)) -> Iterator[torch.device]:
    """Make tensors inside the block on a GPU of that compute capability; `Tensor.backward` works.

    Raise RuntimeError or AssertionError where this torch has no fake tensors of CUDA.
    """
    library = torch.library.Library("aten", "IMPL", "Meta")
    with contextlib.ExitStack() as stack:
        stack.callback(library._destroy)
        library.impl("_fused_sgd_", lambda *_, **__: None)  # which torch has forgotten
        for cached in (fda._waves, losses._usable_fused):  # by device: no fake may meet a real one
            cached.cache_clear()
            stack.callback(cached.cache_clear)
        amp = torch.cuda.amp.common
        for owner, name, replacement in (
            (amp, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda: True),
            (torch.cuda, "get_device_capability", lambda *_: capability),
            (Tensor, "backward", backward),
            (FakeTensor, "tolist", known_to_the_host),
            (Tensor, "pin_memory", pinned),
        ):
            stack.enter_context(patch.object(owner, name, replacement))
        stack.enter_context(_Fakes())
        device = stack.enter_context(torch.device("cuda"))
        torch.empty(1).uniform_()
        yield device


def known_to_the_host(x: Tensor) -> list[float]:
    """Stand in for `x.tolist()` of a vector of numbers in 0 to 1, which is on the CPU: on a GPU the
    host would wait for it."""
    assert x.device.type == "cpu", f"the host waits for a tensor on {x.device}"
    return [DRAWN] * len(x)


def pinned(x: Tensor) -> Tensor:
    """Stand in for `x.pin_memory()`, which fake tensors lack."""
    x.in_pinned_memory = True
    return x


def backward(loss: Tensor) -> None:
    """Call `loss.backward()` node by node, because autograd's engine asks the GPU for its
    streams."""
    waiting = Counter(
        following for node in _graph(loss.grad_fn) for following, _ in node.next_functions
    )
    gradients = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop(max(range(len(ready)), key=lambda at: ready[at]._sequence_nr()))
        arrived, kinds = gradients.pop(node, {}), node._input_metadata
        slopes = [_as(arrived.get(place), kind.dtype) for place, kind in enumerate(kinds)]
        if hasattr(node, "variable"):  # a leaf
            old, (new,) = node.variable.grad, slopes
            node.variable.grad = new if old is None or new is None else old + new
            continue
        results = (node.apply if isinstance(node, BackwardCFunction) else node)(*slopes)
        results = results if isinstance(results, tuple) else (results,)
        # Results beyond them are None, of arguments that are no tensors.
        for (following, place), slope in zip(node.next_functions, results, strict=False):
            if following is None:
                continue
            if slope is not None:
                sums = gradients.setdefault(following, {})
                sums[place] = sums[place] + slope if place in sums else slope
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


def _as(slope: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a gradient in the type of its tensor, as the engine passes it on."""
    return slope if slope is None else slope.to(dtype)


def _graph(root: Node) -> list[Node]:
    """Return every node of the backward pass once."""
    found, left = {root}, [root]
    while left:
        new = {following for following, _ in left.pop().next_functions if following} - found
        found |= new
        left += new
    return list(found)
