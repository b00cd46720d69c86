"""The one training loop: it minimises the sum of a method's terms and knows no method."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from datasets.samples import Batch
from trainings.loaders import TrainingData, training_batches
from trainings.method import Method
from trainings.state import TrainState
from trainings.stopping import Stop, Stopped
from trainings.val import Evaluation, print_scores
from utils.errors import UserError
from utils.pictures import panel
from utils.run_folder import BEST, RunFolder
from utils.settings import Settings
from utils.utils import autocast, progress, resolve_precision

NEVER = 2**62
"""The step of what has not happened."""

SMALLEST_SCALE = 1.0
"""Of the loss under float16: below it nothing is left to scale, the loss itself is wrong."""


def fit(
    method: Method,
    data: TrainingData,
    validate: Callable[[], Evaluation],
    run: RunFolder,
    settings: Settings,
    device: torch.device,
) -> tuple[TrainState, Evaluation]:
    """Trains to the last epoch, from the run's latest checkpoint where there is one.

    Args:
        method: on the device.
        validate: scores `method.network` on the validation split.

    Returns the final state and the evaluation of the last epoch.
    Raises UserError where a loss is not finite, and Stopped after a signal, with all saved.
    """
    precision = resolve_precision(settings.precision, device)
    state = TrainState(
        method,
        settings,
        steps_per_epoch=data.steps_per_epoch,
        scale_loss=precision == torch.float16,
    )
    if run.continues(settings):
        saved = run.load_latest()
        state.load_state_dict(saved)
        if (before := saved.get("precision")) not in (None, str(precision)):
            print(f"until now in {before}, from here in {precision}: --precision decides")
        print(
            f"continuing {run.path} after epoch {state.epoch} of {settings.num_epochs} and "
            f"{state.step} of {state.total_steps} steps"
        )
    batches = training_batches(
        data,
        state.step,
        state.total_steps,
        num_workers=settings.num_workers,
        device=device,
    )
    method.train()
    with Stop() as stop:
        training = _Training(state, run, settings, precision, stop)
        try:
            evaluation = training.run(batches, validate)
        except Stopped:
            training.save()
            print(f"stopped after step {state.step} of {state.total_steps}", flush=True)
            raise
    return state, evaluation or validate()


class _Training:
    """A run under way: the state, and when it was saved."""

    def __init__(
        self,
        state: TrainState,
        run: RunFolder,
        settings: Settings,
        precision: torch.dtype,
        stop: Stop,
    ):
        self.state, self.folder, self.settings = state, run, settings
        self.precision, self.stop = precision, stop
        self.health = _Health(state)
        self.saved = time.monotonic()

    def save(self) -> None:
        self.health.check()
        precision = str(self.precision)
        self.folder.save_latest({**self.state.state_dict(), "precision": precision})
        self.saved = time.monotonic()

    def run(
        self, batches: Iterator[Batch], validate: Callable[[], Evaluation]
    ) -> Evaluation | None:
        """The epochs that are left; the evaluation of the last of them."""
        state, settings = self.state, self.settings
        evaluation, warned = None, False
        while not state.finished:
            self._train_epoch(batches)
            row, means = self._row()
            if not warned and (problem := state.method.diagnose(means)):
                print(f"warning: {problem}", flush=True)
                warned = True
            epoch = state.epoch + 1
            last = epoch == settings.num_epochs
            if last or epoch % settings.validation_step == 0:
                with self.stop.immediately():
                    evaluation = validate()
                row |= _record_validation(evaluation, state, self.folder)
            improved = state.best is not None and state.best["epoch"] == epoch
            state.end_epoch(row)
            self.folder.write_history(state.history)
            if last or improved or epoch % settings.checkpoint_step == 0:
                self.save()
        return evaluation

    def _train_epoch(self, batches: Iterator[Batch]) -> None:
        """The steps that are left of one pass over the source."""
        state, settings = self.state, self.settings
        title = f"epoch {state.epoch + 1}/{settings.num_epochs}"
        images = state.steps_per_epoch * settings.batch_size
        done = images - state.steps_left * settings.batch_size
        start = time.perf_counter() - state.seconds
        with progress(None, title, total=images, unit="image", initial=done) as bar:
            for batch in itertools.islice(self._heeding(batches), state.steps_left):
                terms = train_step(state, batch, self.precision)
                self.health.note(terms, batch)
                state.add(terms)
                state.seconds = time.perf_counter() - start
                if state.step % settings.log_every == 0 or state.steps_left == 0:
                    self.health.check()
                    values = {name: term.item() for name, term in terms.items()}
                    _log(values, state, self.folder)
                    shown = {"loss": f"{values['loss']:.3f}", "lr": f"{state.latest_rate:.2e}"}
                    bar.set_postfix(shown, refresh=False)
                bar.update(settings.batch_size)
                if time.monotonic() - self.saved > 60 * settings.checkpoint_minutes:
                    self.save()
                self.stop.check()

    def _heeding(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; a signal to the whole group, which has ended the workers, too, is the signal
        and no error."""
        while True:
            try:
                batch = next(batches)
            except UserError:
                self.stop.check()
                raise
            yield batch

    def _row(self) -> tuple[dict[str, Any], dict[str, float]]:
        """The epoch's row of scalars, and the means of those that the method gave."""
        state = self.state
        images = state.steps_per_epoch * self.settings.batch_size
        speed = images / state.seconds
        self.folder.scalars({"images_per_second": speed}, state.step)
        means = {name: value.item() / state.steps_per_epoch for name, value in state.sums.items()}
        row = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "learning_rate": state.latest_rate,
            **means,
            "train_seconds": state.seconds,
            "images_per_second": speed,
        }
        return row, means


class _Health:
    """Notices the first loss that is not finite, without waiting for the device at every step."""

    def __init__(self, state: TrainState):
        self.state = state
        self.recent: dict[int, tuple[Mapping[str, Tensor], list[Sequence[str]]]] = {}
        device = next(state.method.parameters()).device
        self.first_bad = torch.tensor(NEVER, device=device)

    def note(self, terms: Mapping[str, Tensor], batch: Batch) -> None:
        """Remembers a step that has just been made."""
        step = self.state.step
        bad = torch.where(terms["loss"].isfinite(), NEVER, step)
        self.first_bad = torch.minimum(self.first_bad, bad)
        self.recent[step] = terms, [part.name for part in batch if part]

    def check(self) -> None:
        """Raises UserError where a loss since the last time was not finite.

        Under float16 such a step was skipped, and only a loss scale that has run out is an error.
        """
        step, scaler = self.first_bad.item(), self.state.scaler
        recent, self.recent = self.recent, {}
        self.first_bad.fill_(NEVER)
        if step == NEVER or (scaler.is_enabled() and scaler.get_scale() >= SMALLEST_SCALE):
            return
        terms, names = recent[step]
        values = {name: term.item() for name, term in terms.items()}
        bad = ", ".join(f"{name} {v}" for name, v in values.items() if not math.isfinite(v))
        files = "; ".join(", ".join(part) for part in names)
        raise UserError(
            f"{bad} at step {step}, on the images {files}; the last checkpoint is kept: lower "
            "--learning_rate or use --precision fp32"
        )


def train_step(state: TrainState, batch: Batch, precision: torch.dtype) -> dict[str, Tensor]:
    """One update; the terms, their sum and what the method observed, on the device, so that
    nothing waits for it."""
    with autocast(batch.source.image.device, precision):
        losses = state.method(batch)
    total = sum(losses.values())
    state.update(total)
    scalars = {"loss": total, **losses, **state.method.observed}
    return {name: scalar.detach() for name, scalar in scalars.items()}


def _log(values: Mapping[str, float], state: TrainState, run: RunFolder) -> None:
    scalars = {f"train/{name}": value for name, value in values.items()}
    run.scalars({**scalars, "learning_rate": state.latest_rate}, state.step)


def _record_validation(
    evaluation: Evaluation, state: TrainState, run: RunFolder
) -> dict[str, float]:
    """Prints and draws the scores and keeps the best; the scalars of the epoch's row."""
    epoch = state.epoch + 1
    scores = {"epoch": epoch, **evaluation.scores()}
    print(f"{run.path.name} after epoch {epoch}:")
    print_scores(scores)
    best = state.best["mIoU"] if state.best else math.nan
    if math.isnan(best) or scores["mIoU"] > best:
        state.best = scores
        weights = state.method.network.state_dict()
        run.save_checkpoint(BEST, {"network": weights, "scores": scores})
    state.last = scores
    picture = panel(evaluation.rows, title=f"{run.path.name}, epoch {epoch}")
    run.save_picture("validation.png", picture)
    run.board(state.step).add_image("validation", picture, state.step, dataformats="HWC")
    summary = {f"val/{name}": scores[name] for name in ("pixel_accuracy", "mIoU")}
    run.scalars(summary, state.step)
    return summary
