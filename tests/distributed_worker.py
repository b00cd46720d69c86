"""What test_distributed.py runs in one process and, with torchrun, in two: some steps of every
method on the same global batches. Not a test itself.

    torchrun --nproc_per_node=2 -m tests.distributed_worker RESULT.pth
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.labels import IGNORE, NUM_CLASSES
from datasets.samples import Batch, Sample
from model.model_stages import BiSeNet
from trainings.loop import _train_step
from trainings.method import Method
from trainings.state import TrainState
from trainings.train_ADA import ADA
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils import processes
from utils.settings import Settings, with_derived_defaults

METHODS = {"simple": Supervised, "ada": ADA, "fda": FDA, "ssl_fda": SSLFDA}
STEPS, BATCH, SIZE = 3, 4, (64, 96)


def train(kind: str, passes: int = 1, *, ignored: bool = True, clip: float | None = None) -> dict:
    """Weights and the last step's scalars after some steps with batch norm in evaluation mode."""
    torch.manual_seed(0)
    settings = with_derived_defaults(
        Settings(num_epochs=1, discriminator="light", clip_grad_norm=clip, ema_decay=0.5)
    )
    method = METHODS[kind](BiSeNet(base=8), settings)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    state = TrainState(method, settings, steps_per_epoch=STEPS, scale_loss=False)
    model = processes.averaging(method)
    for step in range(STEPS):
        parts = own_parts(global_batch(step, ignored), passes)
        scalars = _train_step(model, state, parts, torch.float32)
    return {**weights(method, state), "scalars": {n: s.item() for n, s in scalars.items()}}


def weights(method: Method, state: TrainState) -> dict[str, Any]:
    return {"method": method.state_dict(), "average": state.average.module.state_dict()}


def global_batch(step: int, ignored: bool) -> Batch:
    """The same in every process; most ignored pixels lie in the first half of the images."""
    draw = torch.Generator().manual_seed(step)

    def sample() -> Sample:
        image = torch.randint(0, 256, (BATCH, 3, *SIZE), dtype=torch.uint8, generator=draw)
        label = torch.randint(0, NUM_CLASSES, (BATCH, *SIZE), dtype=torch.uint8, generator=draw)
        if ignored:
            label[: BATCH // 2, 8:] = IGNORE
        return Sample(image, label, [str(number) for number in range(BATCH)])

    return Batch(sample(), sample())


def own_parts(batch: Batch, passes: int) -> list[Batch]:
    own = BATCH // passes // processes.count()
    starts = processes.share(range(0, BATCH, own))
    return [Batch(*(part(sample, start, own) for sample in batch)) for start in starts]


def part(sample: Sample, start: int, count: int) -> Sample:
    return Sample(*(values[start : start + count] for values in sample))


def main(result: Path) -> None:
    with processes.together("cpu"):
        found = {kind: train(kind) for kind in METHODS}
        found["clipped in two passes"] = train("fda", 2, ignored=False, clip=0.1)
        found["agreed"] = processes.largest(processes.rank(), 5 - processes.rank())
        if processes.is_first():
            torch.save(found, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
