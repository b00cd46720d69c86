"""A step of every method on the same global batch, for test_gpu_correctness.py, which runs it in
one process and, with torchrun, in two that share one GPU. Not a test itself.

    torchrun --nproc_per_node=2 -m tests.support.gpu_worker cuda RESULT.pth
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datasets.loading.batches import to_device
from datasets.samples import Batch
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support import distributed_worker
from tests.support.distributed_worker import global_batch, own_parts
from trainings.engine.state import TrainState
from trainings.engine.step import train_step
from trainings.train_DACS import DACS
from utils import processes
from utils.shared_norm import synchronised
from utils.utils import float32_products

METHODS = {**distributed_worker.METHODS, "dacs": DACS, "mic": DACS}
RECIPE = {"num_epochs": 1, "warmup_steps": 0, "fda_beta": 0.05, "discriminator": "light"}
OWN_FLAGS = {"mic": {"mask_ratio": 0.7}}


def new_settings(kind: str, **changes: Any) -> Settings:
    """The flags of a method; its untrained teacher counts every pixel as confident."""
    return Settings(**RECIPE, **OWN_FLAGS.get(kind, {}), confidence=0.05, **changes)


def started(
    kind: str, device: torch.device, precision: torch.dtype, *, width: int = 8, **changes: Any
) -> tuple[TrainState, Callable[[list[Batch]], dict[str, torch.Tensor]]]:
    """A training of a method on a device, and what makes a step of it."""
    torch.manual_seed(0)
    settings = new_settings(kind, **changes)
    method = METHODS[kind](BiSeNet(base=width), settings)
    method = method.to(device, memory_format=torch.channels_last).train()
    method = synchronised(method)
    scale_loss = precision == torch.float16
    state = TrainState(method, settings, steps_per_epoch=1000, scale_loss=scale_loss)
    return state, lambda parts: train_step(state, parts, precision)


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on the device, copied as the loaders copy it."""
    pinned = device.type == "cuda"
    parts = (
        part._replace(image=part.image.pin_memory(), label=part.label.pin_memory())
        if pinned
        else part
        for part in batch
    )
    return Batch(*(to_device(part, device) for part in parts))


def train(kind: str, device: torch.device) -> dict[str, torch.Tensor]:
    """The weights and statistics after a step in float32; more steps amplify rounding without end,
    as deep batch norms see few values."""
    state, step = started(kind, device, torch.float32)
    step([moved(part, device) for part in own_parts(global_batch(0, True), 1)])
    return {name: value.cpu() for name, value in state.method.state_dict().items()}


def main(device: torch.device, result: Path) -> None:
    with processes.together("cpu"), float32_products("fp32"):  # gloo, wherever the tensors are
        # Two processes draw other numbers than one, so methods that draw are left out.
        found = {kind: train(kind, device) for kind in distributed_worker.METHODS}
        if processes.is_first():
            torch.save(found, result)


if __name__ == "__main__":
    main(torch.device(sys.argv[1]), Path(sys.argv[2]))
