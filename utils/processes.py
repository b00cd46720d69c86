"""Several processes as one training: what `torchrun` started, who writes, what is summed.

Without torchrun, or with one process, all of it is that of a single process and costs nothing.
"""

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from utils.errors import UsageError

Item = TypeVar("Item")
Module = TypeVar("Module", bound=nn.Module)

PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for one another: one machine may be building a cache of a data set. A
process that has died is noticed by torchrun, not by this."""

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}

CGROUP = Path("/sys/fs/cgroup")
CPU_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files below `CGROUP` (version 2, version 1) that together hold two numbers: the microseconds of
CPU time that a container gets in each period, and the period."""

_FAILED = "failed"
_store: dist.Store | None = None
"""Messages of the processes to one another beside the collectives; None for a single process."""


@contextlib.contextmanager
def together(device: str) -> Iterator[None]:
    """Join the processes that torchrun started into one group inside the block; `device` is
    `--device`.

    Only the first one prints. Raise UsageError where a machine has fewer GPUs than processes.
    """
    global _store
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    _store, rank, world_size = next(rendezvous("env://"))
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        _take_gpu(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        BACKENDS[kind], store=_store, rank=rank, world_size=world_size, timeout=PATIENCE
    )
    try:
        with (
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing if rank else sys.stdout),
        ):
            yield
    except BaseException:
        _store.compare_set(_FAILED, "", str(rank))  # the first to fail is the cause
        raise
    dist.barrier()
    dist.destroy_process_group()


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return the CPU cores that each process of this machine may use: the affinity's, or fewer
    where the container has a smaller quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for files in CPU_QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            words = " ".join((cgroup / file).read_text() for file in files)
            quota, period = map(int, words.split())
            if quota > 0:  # version 1 writes -1 for no quota
                cores = min(cores, quota // period)
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def share_machine(number: int, count: int, device: str) -> None:
    """Take this process's part of the cores, which `count` processes share, and one of the GPUs
    unless `device`, which is `--device`, is cpu. `number` is that of the process, from 0 on."""
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    os.environ["LOCAL_WORLD_SIZE"] = str(count)  # as torchrun says it, for `usable_cores`
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def started_rank() -> int:
    """Return the number that torchrun gave to this process, whether the processes are a group or
    not."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def _take_gpu(local_rank: int) -> None:
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"torchrun --nproc_per_node: more processes than the {torch.cuda.device_count()} GPUs "
            "that torch sees on this machine; start as many as there are, or use --device cpu"
        )
    torch.cuda.set_device(local_rank)


def count() -> int:
    """Return the number of processes of the training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Return whether this process writes and draws for all."""
    return rank() == 0


def first_to_say(text: str) -> bool:
    """Return whether no other process has said the same: what ends all of them is printed once."""
    return _store is None or _store.add(text, 1) == 1


def another_failed() -> bool:
    """Return whether a collective has ended because another process has, with a message of its
    own."""
    return _store is not None and _store.check([_FAILED]) and _store.get(_FAILED) != b"%d" % rank()


def wait_for_all() -> None:
    """Return once every process is here: what the first has written can be read then."""
    if count() > 1:
        dist.barrier()


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of items: every one of them belongs to one process."""
    return items[rank() :: count()]


def total(x: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, on its device."""
    if count() > 1:
        dist.all_reduce(x)
    return x


def means(scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of every scalar over the processes, by name; nothing waits for the device."""
    if count() == 1:
        return dict(scalars)
    summed = total(torch.stack([scalar.float() for scalar in scalars.values()]))
    return dict(zip(scalars, (summed / count()).unbind(), strict=True))


def largest(*values: int) -> list[int]:
    """Return the largest of each value over the processes: what one of them wants all do."""
    if count() == 1:
        return list(values)
    agreed = torch.tensor(values)
    dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
    return agreed.tolist()


def gathered(item: Any) -> list[Any]:
    """Return every process's item, in the order of the processes."""
    if count() == 1:
        return [item]
    items = [None] * count()
    dist.all_gather_object(items, item)
    return items


@contextlib.contextmanager
def first_ahead() -> Iterator[None]:
    """Let the first process run the block alone; the others follow and find what it has made."""
    if not is_first():
        wait_for_all()
    yield
    if is_first():
        wait_for_all()


def with_first_state(module: Module) -> Module:
    """Return the module with the first process's weights and buffers in all: rounding may differ
    between devices."""
    if count() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)
    return module


def average_gradients(module: nn.Module) -> None:
    """Replace the gradients of all weights that train by their means over the processes. A weight
    without a gradient in one of them counts there as one with a gradient of 0."""
    if count() == 1:
        return
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        if weight.grad is None:  # every process has to send as much as the others
            weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    means = total(torch.cat([gradient.flatten() for gradient in gradients]) / count())
    parts = means.split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view(gradient.shape))
