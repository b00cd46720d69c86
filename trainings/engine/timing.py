"""Measure on this machine a training step of a method on random images, in seconds."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from datasets.samples import Batch, Sample
from model.network import WHITE
from trainings.engine.state import TrainState
from trainings.engine.step import train_step
from trainings.experiment import Experiment, network_to_train
from trainings.options import Settings
from utils import processes
from utils.utils import resolve_precision

STEPS = 10**5
"""Steps of the training that a measured step is of; only its learning rate follows from them."""


def timed(
    call: Callable[[], Any],
    device: torch.device,
    *,
    at_least: int,
    at_most: int,
    budget: float,
    warm_up: int = 0,
) -> list[float]:
    """Return the seconds of each run after the warm-up: at least so many runs, and more as long as
    the seconds of the budget last; the device has done all before a run and after it.

    Each of several processes makes exactly `at_least` calls: they wait for one another in the
    losses, and their clocks differ.
    """
    wait = torch.get_device_module(device).synchronize
    if processes.count() > 1:
        at_most = at_least
    for _ in range(warm_up):
        call()
    seconds: list[float] = []
    while len(seconds) < at_least or (sum(seconds) < budget and len(seconds) < at_most):
        wait()
        start = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def training_step(
    experiment: Experiment, settings: Settings, device: torch.device, *, passes: int = 1
) -> Callable[[], Any]:
    """Return a function that makes one update of the experiment's method. Each pass takes this
    process's share of `--batch_size` random images."""
    precision = resolve_precision(settings.precision, device)
    method = experiment.make_method(network_to_train(settings), settings)
    method = method.to(device).to(memory_format=torch.channels_last).train()
    length = dict.fromkeys(("num_steps", "validation_steps", "checkpoint_steps"), STEPS)
    state = TrainState(
        method,
        settings.changed(warmup_steps=None, **length),
        steps_per_epoch=STEPS,
        scale_loss=precision == torch.float16,
    )
    images = settings.batch_size // processes.count()
    target = random_sample(images, settings, device) if experiment.target else None
    batch = Batch(random_sample(images, settings, device), target)
    return partial(train_step, state, [batch] * passes, precision)


def random_sample(images: int, settings: Settings, device: torch.device) -> Sample:
    """Return so many random images of `--image_size` and their labels, on the device."""
    size, count = settings.image_size, len(settings.class_table)
    image = torch.randint(0, WHITE + 1, (images, 3, *size), dtype=torch.uint8, device=device)
    label = torch.randint(0, count, (images, *size), dtype=torch.uint8, device=device)
    return Sample(image, label, [])
