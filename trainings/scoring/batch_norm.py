"""Batch-norm statistics of the target (AdaBN: Li et al., "Revisiting Batch Normalization for
Practical Domain Adaptation", 2016): a network meets the target's images, and no weight changes.

mean, var of each norm <- averages, over batches of the target's training images, of the batch's own
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from datasets.loading.batches import batches_of
from datasets.loading.sets import ENOUGH_FOR_STATISTICS
from datasets.samples import SampleDataset
from model.network import Network
from trainings.options import Settings
from utils import processes
from utils.errors import UserError
from utils.shared_norm import separated
from utils.utils import autocast, progress, resolve_precision

BATCH_SIZE = 8
"""Largest batch. It is not `--batch_size`: a score must not depend on the size of the memory."""

TRAINING, TARGET = "training", "target"


@torch.no_grad()
def reestimate_statistics(
    networks: Sequence[Network], samples: SampleDataset, settings: Settings, device: torch.device
) -> None:
    """Replace the running statistics of networks, in place, by those of the samples.

    Every sample is in one batch, and every batch, of nearly equally many, counts the same. They are
    drawn from all samples, always in the same way: neighbours of one drive are alike, and so is a
    batch of them, whose variance is too small. Raise UserError for fewer than two images. The
    networks are in evaluation mode afterwards.
    """
    check_enough(samples)
    if len(samples) < ENOUGH_FOR_STATISTICS:
        print(
            f"warning: batch-norm statistics of {len(samples)} images are noisy: "
            f"{ENOUGH_FOR_STATISTICS} different ones or more are better",
            flush=True,
        )
    precision = resolve_precision(settings.precision, device)
    batches = batches_of(
        samples, mixed_batches(len(samples)), num_workers=settings.workers, device=device
    )
    with (
        _averaging(networks),
        progress(None, "batch-norm statistics", total=len(samples), unit="image") as bar,
    ):
        for images in batches:
            with autocast(device, precision):
                for network in networks:
                    network.heads_and_detail(images)  # every head has norms
            bar.update(len(images))
    for network in networks:  # rounding may differ from one process's device to another's
        processes.with_first_state(network)


def shuffled(count: int) -> list[int]:
    """Return the numbers below the count in a random order that is always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()


def mixed_batches(count: int) -> list[list[int]]:
    """Return the numbers below the count, shuffled, in as few batches as BATCH_SIZE allows.

    Sizes of batches differ by one at most: no batch has a single number unless the count is 1.
    """
    batches = np.array_split(shuffled(count), math.ceil(count / BATCH_SIZE))
    return [batch.tolist() for batch in batches]


def check_enough(samples: SampleDataset) -> None:
    """Raise UserError where there are too few images to take statistics of."""
    if len(samples) < 2:
        raise UserError(
            "batch-norm statistics of a domain need two of its training images or more, there is "
            f"{len(samples)}: add images, or use --bn_statistics training"
        )


@contextlib.contextmanager
def _averaging(networks: Sequence[Network]) -> Iterator[None]:
    """Let every norm average the statistics of the batches it meets inside the block, from nothing
    on."""
    norms = [m for network in networks for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms, "a folded network has no norms"
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the cumulative average
    for network in networks:
        network.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for network in networks:
            network.eval()


def with_statistics_of(
    network: Network, samples: SampleDataset, settings: Settings, device: torch.device
) -> Network:
    """Return a copy of the network, in evaluation mode, with the samples' statistics."""
    adapted = separated(network)
    reestimate_statistics([adapted], samples, settings, device)
    return adapted
