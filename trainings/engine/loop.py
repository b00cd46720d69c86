"""The one training loop: it minimises the sum of a method's terms and knows no method."""

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from datasets.loading.batches import training_batches
from datasets.loading.pairs import TrainingData
from datasets.samples import Batch
from trainings.engine.health import Health, Waits, fetched
from trainings.engine.state import TrainState
from trainings.engine.step import compile_parts, train_step
from trainings.engine.tensorboard import show_pictures
from trainings.engine.validation import Validation, measure
from trainings.method import Method
from trainings.options import Settings
from trainings.val import Evaluation
from utils import processes
from utils.disk.run_folder import LATEST, RunFolder
from utils.errors import UserError
from utils.signals import Stop, Stopped
from utils.text import in_percent
from utils.utils import arithmetic, progress, resolve_precision


def fit(
    method: Method,
    data: TrainingData,
    validation: Validation,
    run: RunFolder,
    settings: Settings,
    device: torch.device,
    *,
    on: str,
) -> tuple[TrainState, Evaluation | None]:
    """Train to the last step, from the run's latest checkpoint where there is one.

    Args:
        method: on the device.
        on: the data sets of the training in words, for the titles of pictures.

    Returns the final state and the evaluation of its network, if there is a validation split.
    Raise UserError where a loss is not finite, and Stopped after a signal, with all saved.
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
        _load(state, saved, run)
        now = arithmetic(settings.precision, device)
        if (before := saved.get("precision")) not in (None, now):
            print(f"until now in {before}, from here in {now}: --precision decides")
        print(
            f"continuing {run.path} after {state.length.round_name} {state.rounds} of "
            f"{state.length.rounds} and {state.step} of {state.total_steps} steps"
        )
    batches = training_batches(
        data,
        state.step,
        state.total_steps,
        num_workers=settings.workers,
        device=device,
    )
    method.train()
    if settings.compile:
        compile_parts(method)
    processes.with_first_state(method)
    with Stop() as stop:
        training = Training(state, data, run, settings, precision, stop, on)
        try:
            evaluation = training.run(batches, validation)
        except Stopped:
            training.save()
            print(f"stopped after step {state.step} of {state.total_steps}", flush=True)
            raise
    return state, evaluation or validation.scorer.score(method.network)


def _load(state: TrainState, saved: Mapping[str, Any], run: RunFolder) -> None:
    try:
        state.load_state_dict(saved)
    except UserError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path / LATEST} is no state of this training ({type(error).__name__}): bring it "
            "back, or start afresh with --overwrite"
        ) from error


class Training:
    """A run under way: the state, and when it was saved."""

    def __init__(
        self,
        state: TrainState,
        data: TrainingData,
        run: RunFolder,
        settings: Settings,
        precision: torch.dtype,
        stop: Stop,
        on: str,
    ):
        self.state, self.data, self.on = state, data, on
        self.folder, self.settings = run, settings
        self.precision, self.stop = precision, stop
        device = next(state.method.parameters()).device
        self.arithmetic = arithmetic(settings.precision, device)
        self.health = Health(state, self.arithmetic)
        self.waits = Waits(settings)
        self.saved, self.saved_step = time.monotonic(), state.step
        self.saving = 0.0

    def save(self) -> None:
        start = time.perf_counter()
        self.health.check()
        self.health.check_weights()
        self.folder.save_latest({**self.state.state_dict(), "precision": self.arithmetic})
        self.saved, self.saved_step = time.monotonic(), self.state.step
        self.saving += time.perf_counter() - start
        self.health.saved = True

    def _clock(self) -> float:
        """Return the seconds since some moment, without those of saving."""
        return time.perf_counter() - self.saving

    def run(self, batches: Iterator[Batch], validation: Validation) -> Evaluation | None:
        """Train the rounds that are left; return the evaluation of the last of them."""
        state = self.state
        evaluation, warned = None, False
        while not state.finished:
            self._train_round(batches)
            row, means = self._row()
            self._tell_drawn_classes()
            if not warned and (problem := state.method.diagnose(means)):
                print(f"warning: {problem}", flush=True)
                warned = True
            improved = False
            if state.length.validates_after(state.step):
                if state.best is None and validation.selects:
                    self.save()  # a best.pth without a state would be that of a lost run
                self.health.check_weights()
                scalars, evaluation = measure(validation, state, self.folder, self.stop)
                row |= scalars
                improved = state.best is not None and state.best is state.last
            state.end_round(row)
            self.folder.write_history(state.history)
            if improved or state.length.saves_after(state.step):
                self.save()
        return evaluation

    def _train_round(self, batches: Iterator[Batch]) -> None:
        """Train the steps that are left of a round."""
        state, settings = self.state, self.settings
        title = f"{state.length.round_name} {state.rounds + 1}/{state.length.rounds}"
        images = self._steps_of_round() * self.data.batch_size
        done = images - state.steps_left * self.data.batch_size
        start = self._clock() - state.seconds
        with progress(None, title, total=images, unit="image", initial=done) as bar:
            while state.steps_left:
                parts = self._next(batches)
                terms = train_step(state, parts, self.precision)
                self.health.note(terms, parts)
                state.add(terms)
                if state.step % settings.log_every == 0 or state.steps_left == 0:
                    self.health.check()
                    values = fetched(terms)
                    _log(values, state, self.folder)
                    shown = {"loss": f"{values['loss']:.3f}", "lr": f"{state.latest_rate:.2e}"}
                    bar.set_postfix(shown, refresh=False)
                state.seconds = self._clock() - start  # a round ends with a wait for the device
                if state.steps_left == 0:
                    show_pictures(parts[-1], state, self.folder, on=self.on)
                bar.update(self.data.batch_size)

    def _next(self, batches: Iterator[Batch]) -> list[Batch]:
        """Return the passes of the step to come, and save first if it is time.

        Raise Stopped after a signal, in every process before the same step.
        """
        try:
            with self.waits.timed():
                parts = list(itertools.islice(batches, self.data.passes))
        except UserError:
            # A signal to the whole group has ended the workers, too: it is no error.
            if self.stop.requested is None:
                raise
        minutes = (time.monotonic() - self.saved) / 60
        step = self.state.step
        due = minutes > self.settings.checkpoint_minutes or self.state.length.saves_after(step)
        due = due and step > self.saved_step
        signum, saves = processes.largest(self.stop.requested or 0, due)
        if signum:
            raise Stopped(signum)
        if saves:
            self.save()
        return parts

    def _steps_of_round(self) -> int:
        """Return the number of steps in the unfinished round."""
        state = self.state
        return state.length.end_of_round(state.rounds) - state.rounds * state.length.steps_per_round

    def _tell_drawn_classes(self) -> None:
        """Print and draw how often rare class sampling has drawn each class in this round."""
        stop = self.state.step
        if shares := self.data.drawn_classes(stop - self._steps_of_round(), stop):
            listed = ", ".join(f"{name} {in_percent(share, 1)}" for name, share in shares.items())
            print(f"classes drawn by rare class sampling, in %: {listed}", flush=True)
            self.folder.board.scalars(
                {f"drawn/{name}": share for name, share in shares.items()}, stop
            )

    def _row(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Return the round's row of scalars, and the means of those that the method gave."""
        state, steps = self.state, self._steps_of_round()
        speed = steps * self.data.batch_size / state.seconds
        self.folder.board.scalars({"images_per_second": speed}, state.step)
        means = state.means(steps)
        row = {
            "epoch": state.epoch,
            "step": state.step,
            "learning_rate": state.latest_rate,
            "precision": self.arithmetic,
            **means,
            "train_seconds": state.seconds,
            "images_per_second": speed,
        }
        return row, means


def _log(values: Mapping[str, float], state: TrainState, run: RunFolder) -> None:
    scalars = {f"train/{name}": value for name, value in values.items()}
    if state.scaler.is_enabled():
        scalars["loss_scale"] = state.scaler.get_scale()
    run.board.scalars({**scalars, "learning_rate": state.latest_rate}, state.step)
