"""One update: the gradient of a method's loss terms, group by group, and the step that follows; the
parts that are compiled for it."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from datasets.samples import Batch
from model.average import MovingAverage
from trainings.engine.state import TrainState
from trainings.method import Losses, Method
from utils import processes
from utils.utils import autocast, shapes_that_repeat


def compile_parts(method: Method) -> None:
    """Compile the parts of the method's networks in place, when they are first called: its own and
    those of every average in it, however deep.

    Losses, style transfer and their loops over bands stay as they are: they hold nothing to fuse
    that they have not fused by hand. On a GPU the kernels of a part are launched together, as a
    CUDA graph, so that the GPU does not wait for the host.
    """
    # Norms of several processes exchange sums inside a part: untried in a CUDA graph.
    alone = next(method.parameters()).is_cuda and processes.count() == 1
    mode = "reduce-overhead" if alone else None
    averages = [one for one in method.modules() if isinstance(one, MovingAverage)]
    own = [child for child in method.children() if not set(averages) & set(child.modules())]
    for network in (*own, *(average.module for average in averages)):
        for part in network.children():
            part.compile(mode=mode)


@shapes_that_repeat()
def train_step(
    state: TrainState, parts: Sequence[Batch], precision: torch.dtype
) -> dict[str, Tensor]:
    """Make one update. Return the terms, their sum and what the method observed, means over the
    parts and the processes, on the device, so that nothing of ours waits for it."""
    if parts[0].source.image.is_cuda:  # on a CPU it would load torch's compiler for nothing
        torch.compiler.cudagraph_mark_step_begin()  # earlier outputs of compiled parts are not read
    method = state.method
    means: list[dict[str, Tensor]] = []
    for part in parts:
        terms = add_gradient(
            method, part, precision, lambda loss: state.backward(loss / len(parts))
        )
        scalars = {"loss": reduce(torch.add, terms.values()), **terms, **method.observed}
        means.append({name: scalar / len(parts) for name, scalar in scalars.items()})
    processes.average_gradients(method)
    state.update()
    summed = {name: reduce(torch.add, [mean[name] for mean in means]) for name in means[0]}
    return processes.means(summed)


def add_gradient(
    method: Method,
    batch: Batch,
    precision: torch.dtype,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Losses:
    """Add a batch's gradient to those that are there, and return its terms without their graphs.

    `backward` takes the gradient of the sum of a group before the next group is computed, so that
    one graph at a time is in memory.
    """
    groups = method(batch)

    def next_terms() -> Losses | None:
        # Autocast keeps its casts of the weights, with their graphs, until it ends.
        with autocast(batch.source.image.device, precision):
            terms = next(groups, None)
        if terms is None:
            return None
        if terms:
            backward(reduce(torch.add, terms.values()))
        return {name: term.detach() for name, term in terms.items()}

    found = Losses()
    while (terms := next_terms()) is not None:
        found |= terms
    return found
