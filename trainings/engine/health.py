"""Find faults of a training that raise no error: bad numbers, and waits for data."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from datasets.samples import Batch
from trainings.engine.state import TrainState
from trainings.options import Settings
from utils import processes
from utils.errors import UserError
from utils.text import in_percent
from utils.utils import precision_name

NEVER = 2**62
"""The step of what has not happened."""

FLOAT32 = precision_name(torch.float32)

TIMED_STEPS = 50
"""Steps over which waits for data are counted."""

TOLERATED_WAIT = 0.1
"""Share of the training's time that may go into waiting for data."""

SMALLEST_SCALE = 1.0
"""Smallest scale of the loss under float16; if it would fall below, the loss itself is wrong."""


class Waits:
    """Says once, with the remedy, that a training waits for its data."""

    def __init__(self, settings: Settings):
        self.settings, self.said = settings, False
        self.steps, self.seconds, self.began = 0, 0.0, 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time inside as waiting for a step's data."""
        start = time.perf_counter()
        yield
        now = time.perf_counter()
        step, self.steps = self.steps % TIMED_STEPS, self.steps + 1
        if step == 0:  # the very first one waits for the workers to start
            self.seconds, self.began = 0.0, now
            return
        self.seconds += now - start
        share = self.seconds / (now - self.began)
        if step == TIMED_STEPS - 1 and share > TOLERATED_WAIT and not self.said:
            self.said = True
            print(
                f"warning: {in_percent(share, 0)} % of the time goes into waiting for data: "
                f"{self._remedy()}",
                flush=True,
            )

    def _remedy(self) -> str:
        workers, cores = self.settings.workers, processes.usable_cores()
        more = f"raise --num_workers ({workers}; there are {cores} cores), " * (workers < cores)
        return (
            f"{more}put --cache_dir on a local disk with room for the decoded images, or let "
            "--aug_method have fewer codes"
        )


class Health:
    """Notices the first loss that is not finite, without waiting for the device at every step.

    Attributes:
        saved: whether the run has a checkpoint.
    """

    def __init__(self, state: TrainState, arithmetic: str = FLOAT32):
        """Watch a training; `arithmetic` is that of `utils.arithmetic`."""
        self.state, self.in_float32 = state, arithmetic == FLOAT32
        self.saved = state.step > 0
        self.recent: dict[int, tuple[Mapping[str, Tensor], list[str]]] = {}
        device = next(state.method.parameters()).device
        self.first_bad = torch.tensor(NEVER, device=device)

    def note(self, terms: Mapping[str, Tensor], parts: Sequence[Batch]) -> None:
        """Remember a step that has just been made."""
        step = self.state.step
        bad = torch.where(terms["loss"].isfinite(), NEVER, step)
        self.first_bad = torch.minimum(self.first_bad, bad)
        samples = [sample for batch in parts for sample in (batch.source, batch.target) if sample]
        self.recent[step] = terms, [", ".join(sample.name) for sample in samples]

    def check(self) -> None:
        """Raise UserError where a loss since the last time was not finite.

        Under float16 such a step was skipped, and only a loss scale that has run out is an error.
        """
        step, scaler = int(self.first_bad), self.state.scaler
        recent, self.recent = self.recent, {}
        self.first_bad.fill_(NEVER)
        exhausted = scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE
        if exhausted and step == NEVER:
            raise UserError(
                f"float16's loss scale has run out after step {self.state.step}, as gradients "
                f"overflow all the same; {self._remedy()}"
            )
        if step == NEVER or (scaler.is_enabled() and not exhausted):
            return
        terms, names = recent[step]
        values = fetched(terms)
        bad = ", ".join(f"{name} {v}" for name, v in values.items() if not math.isfinite(v))
        files = "; ".join(itertools.chain.from_iterable(processes.gathered(names)))
        raise UserError(f"{bad} at step {step}, on the images {files}; {self._remedy()}")

    def check_weights(self) -> None:
        """Raise UserError where a weight or a norm's statistic is not finite: a gradient can be so
        without its loss, and what float16 skips has passed the norms."""
        method = self.state.method
        tensors = itertools.chain(method.parameters(), method.buffers())
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise UserError(
                f"a weight is not finite any more after step {self.state.step}; {self._remedy()}"
            )

    def _remedy(self) -> str:
        """Say what is kept, and what helps."""
        if self.saved:
            goes_on = "the same command with --precision fp32 goes on from it, or "
            return (
                f"checkpoints before it are kept: {'' if self.in_float32 else goes_on}"
                "start afresh with a lower --learning_rate and --overwrite"
            )
        precise = "" if self.in_float32 else "with --precision fp32, or "
        return f"nothing has been saved yet: start again {precise}with a lower --learning_rate"


def fetched(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalars from the device, which is waited for once."""
    fetched = torch.stack([scalar.float() for scalar in scalars.values()]).tolist()
    return dict(zip(scalars, fetched, strict=True))
