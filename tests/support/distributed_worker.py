"""Some steps of every method on the same global batches, for test_distributed.py, which runs them
in one process and in two. Not a test itself.

    torchrun --nproc_per_node=2 -m tests.support.distributed_worker RESULT.pth
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasets.labels import IGNORE, NUM_CLASSES
from datasets.loading.pairs import TrainingData
from datasets.samples import Batch, Sample
from main import FlatSettings as Settings
from model.catalog import Design
from model.discriminator import KINDS
from model.model_stages import BiSeNet
from tests.support.methods import Taught
from trainings.engine.state import TrainState
from trainings.engine.step import train_step
from trainings.method import Method
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils import processes
from utils.shared_norm import synchronised

METHODS = {"simple": Supervised, "ada": ADA, "fda": FDA, "ssl_fda": SSLFDA}
TAUGHT, OTHER = "taught", "pp_liteseg"
STEPS, BATCH, SIZE = 3, 4, (64, 96)

LOSS_SCALE = 2.0**4
"""As hard for an adversarial gradient in float16 at this size as 2^12, where trainings start, is at
512x1024, as its mean is over 2^8 times fewer patches."""


def train(
    kind: str,
    passes: int = 1,
    *,
    ignored: bool = True,
    clip: float | None = None,
    network: str = "bisenet",
) -> dict[str, Any]:
    """Weights and the last step's scalars after some steps with batch norm in evaluation mode."""
    torch.manual_seed(0)
    decay = 0.0 if kind == TAUGHT else 0.5  # the teacher is an average itself
    settings = Settings(num_epochs=1, discriminator="light", clip_grad_norm=clip, ema_decay=decay)
    method = {**METHODS, TAUGHT: Taught}[kind](Design(network, base_width=8).build(), settings)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    state = TrainState(method, settings, steps_per_epoch=STEPS, scale_loss=False)
    processes.with_first_state(method)
    for step in range(STEPS):
        parts = own_parts(global_batch(step, ignored), passes)
        scalars = train_step(state, parts, torch.float32)
    return {**weights(method, state), "scalars": {n: s.item() for n, s in scalars.items()}}


class Recorded(TrainState):
    """A training at a loss scale whose update only keeps the network's gradient."""

    gradient: Tensor

    def backward(self, loss: Tensor) -> None:
        (LOSS_SCALE * loss).backward()

    def update(self) -> None:
        network = self.method.network
        self.gradient = torch.cat([p.grad.flatten() for p in network.parameters()]) / LOSS_SCALE


def adversarial_gradient(discriminator: str, passes: int, precision: torch.dtype) -> Tensor:
    """Return the gradient of a step of ADA for the network. No source pixel has a label, so
    that the adversarial term alone reaches the network."""
    torch.manual_seed(0)
    settings = Settings(num_epochs=1, discriminator=discriminator)
    method = ADA(BiSeNet(base=16), settings).eval()  # norms of two images are not those of four
    state = Recorded(method, settings, steps_per_epoch=STEPS, scale_loss=False)
    batch = global_batch(0, ignored=False)
    batch.source.label.fill_(IGNORE)
    train_step(state, own_parts(batch, passes), precision)
    return state.gradient


def resumed() -> dict[str, Any]:
    """A method with a teacher after some steps, without a stop and stopped in the middle."""
    whole = _teaching(range(STEPS), None)
    half = _teaching(range(1), None)
    return {"whole": whole["method"], "stopped": _teaching(range(1, STEPS), half)["method"]}


def _teaching(steps: range, saved: dict[str, Any] | None) -> dict[str, Any]:
    """The state after these steps, from a saved one where it is given; each process draws other
    numbers in each step."""
    method = with_teacher()
    state = TrainState(method, TEACHING, steps_per_epoch=STEPS, scale_loss=False)
    if saved:
        state.load_state_dict(saved)
    for step in steps:
        seed = 10 * step + processes.rank()
        (own,) = own_parts(global_batch(step, ignored=True), 1)
        batch = Batch(own.source, own.target, torch.Generator().manual_seed(seed))
        train_step(state, [batch], torch.float32)
    return state.state_dict()


TEACHING = Settings(num_epochs=1, confidence=0.1, mask_ratio=0.7)


def with_teacher() -> DACS:
    """A method whose teacher is confident at some pixels of `global_batch`."""
    torch.manual_seed(0)
    return synchronised(DACS(BiSeNet(base=8), TEACHING)).train()


def teach() -> dict[str, Any]:
    """Each process's teacher, and the share of confident pixels that each one weighs the first
    batch by."""
    method, settings = with_teacher(), TEACHING
    state = TrainState(method, settings, steps_per_epoch=STEPS, scale_loss=False)
    shares = []
    for step in range(STEPS):
        train_step(state, own_parts(global_batch(step, ignored=True), 1), torch.float32)
        shares.append(method.pseudo.weight)
    return {
        "q": torch.stack(processes.gathered(shares[0])),
        "teachers": processes.gathered(method.teacher.state_dict()),
    }


def normalise(*, compiled: bool = False, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Gradients, mean over the processes, and statistics of two batch norms after two batches whose
    means are far from 0."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype)]
    for parameter in itertools.chain(*(norm.parameters() for norm in norms)):
        nn.init.uniform_(parameter)
    first, second = (nn.Conv2d(*widths, 3, dtype=dtype) for widths in ((3, 8), (8, 4)))
    layers = nn.Sequential(first, norms[0], nn.ReLU(inplace=True), second, norms[1])
    layers = synchronised(layers).to(memory_format=torch.channels_last)
    if compiled:
        layers.compile(backend="aot_eager", fullgraph=True)
    for _ in range(2):
        images = torch.randn(BATCH, 3, 9, 11, dtype=torch.float64) + 20
        first_own = processes.rank() * (BATCH // processes.count())
        own = images[first_own:][: BATCH // processes.count()].to(dtype)
        (layers(own).sin() * torch.arange(1, 5)[:, None, None]).mean().backward()
    processes.average_gradients(layers)
    gradients = {f"gradient of {name}": p.grad for name, p in layers.named_parameters()}
    return {**gradients, **dict(layers.named_buffers())}


def averaged() -> Tensor:
    """The averaged gradient of two weights that only the first process, and none, has used."""
    layer = nn.Linear(1, 1)
    if processes.is_first():
        layer.weight.sum().backward()
    processes.average_gradients(layer)
    return torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])


def weights(method: Method, state: TrainState) -> dict[str, Any]:
    return {"method": method.state_dict(), "average": state.scored_average.module.state_dict()}


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
        found |= {f"{kind}, {OTHER}": train(kind, network=OTHER) for kind in METHODS}
        found["clipped in two passes"] = train("fda", 2, ignored=False, clip=0.1)
        for kind in KINDS:
            found[f"adversarial, {kind}"] = adversarial_gradient(kind, 2, torch.float16)
        found[TAUGHT] = train(TAUGHT)
        found["teaching"] = teach()
        found["resumed"] = resumed()
        found["norms"] = normalise()
        found["compiled norms"] = normalise(compiled=True)
        found["float32 norms"] = normalise(dtype=torch.float32)
        found["averaged"] = torch.stack(processes.gathered(averaged()))
        data = TrainingData(range(8), batch_size=8, seed=3, passes=2)
        own = [torch.rand(3, generator=one) for one in itertools.islice(data.generators(5), 4)]
        found["draws"] = processes.gathered(torch.stack(own))
        found["agreed"] = processes.largest(processes.rank(), 5 - processes.rank())
        if processes.is_first():
            torch.save(found, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
