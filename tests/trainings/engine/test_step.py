"""The gradient of each group of terms, and what it costs."""

from collections.abc import Iterator

import pytest
import torch

from datasets.samples import Batch
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.distributed_worker import global_batch
from trainings.engine.step import add_gradient
from trainings.method import Losses, Method
from trainings.train_DACS import DACS
from trainings.train_simple import Supervised

BATCH = global_batch(0, ignored=True)


class Summed(Method):
    """L = w + 2 w + 3 w, with w the first weight of the network."""

    def forward(self, batch: Batch) -> Iterator[Losses]:
        weight = next(self.network.parameters()).flatten()[0]
        yield {"one": weight, "two": 2 * weight}
        yield {}
        self.so_far = next(self.network.parameters()).grad.flatten()[0].item()
        yield {"three": 3 * weight}


def test_what_is_yielded_goes_backward_before_the_next_is_computed():
    method = Summed(BiSeNet(base=8), Settings())
    terms = add_gradient(method, BATCH, torch.float32)
    weight = next(method.network.parameters())
    assert method.so_far == 1 + 2 and weight.grad.flatten()[0] == 1 + 2 + 3
    first = weight.flatten()[0].item()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"one": first, "two": 2 * first, "three": 3 * first}
    )
    assert not any(term.requires_grad for term in terms.values())


def most_kept(method: Method) -> int:
    """The largest number of bytes that the graphs of a step keep at one time, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in method.parameters()}
    held: dict[int, list[int]] = {}
    most = 0

    class Kept:
        """Counts a storage as long as a graph holds this."""

        def __init__(self, tensor: torch.Tensor):
            nonlocal most
            self.tensor, storage = tensor, tensor.untyped_storage()
            self.key = storage.data_ptr()
            if self.key not in weights:
                held.setdefault(self.key, []).append(storage.nbytes())
                most = max(most, sum(sizes[0] for sizes in held.values()))

        def __del__(self):
            if self.key in held:
                held[self.key].pop()
                if not held[self.key]:
                    del held[self.key]

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        add_gradient(method, BATCH, torch.float32)
    return most


def test_the_three_passes_of_mic_keep_the_graph_of_one():
    several, one = (
        most_kept(method(BiSeNet(base=8), Settings(mask_ratio=0.7)).train())
        for method in (DACS, Supervised)
    )
    assert one <= several < 1.2 * one
