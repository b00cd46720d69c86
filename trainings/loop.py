"""The one training loop: it minimises the sum of a method's terms and knows no method."""

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from datasets.samples import Batch
from trainings.loaders import TrainingData, training_batches
from trainings.method import Method
from trainings.state import TrainState
from trainings.val import Evaluation, print_scores
from utils.errors import UserError
from utils.pictures import panel
from utils.run_folder import BEST, LATEST, RunFolder
from utils.settings import Settings
from utils.utils import autocast, progress, resolve_precision


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
    Raises UserError where a loss is not finite.
    """
    precision = resolve_precision(settings.precision, device)
    state = TrainState(
        method,
        settings,
        steps_per_epoch=data.steps_per_epoch,
        scale_loss=precision == torch.float16,
    )
    if run.has(LATEST):
        state.load_state_dict(run.load_checkpoint(LATEST))
        print(f"continuing {run.path} after epoch {state.epoch} of {settings.num_epochs}")
    batches = training_batches(
        data,
        state.step,
        state.total_steps,
        num_workers=settings.num_workers,
        device=device,
    )
    method.train()
    evaluation, warned = None, False
    while not state.finished:
        row, means = _train_epoch(method, batches, state, run, settings, precision)
        if not warned and (problem := method.diagnose(means)):
            print(f"warning: {problem}", flush=True)
            warned = True
        if state.finished or state.epoch % settings.validation_step == 0:
            evaluation = validate()
            row |= _record_validation(evaluation, state, run)
        improved = state.best is not None and state.best["epoch"] == state.epoch
        state.history.append(row)
        run.write_history(state.history)
        if state.finished or improved or state.epoch % settings.checkpoint_step == 0:
            run.save_checkpoint(LATEST, state.state_dict())
    return state, evaluation or validate()


def _train_epoch(
    method: Method,
    batches: Iterator[Batch],
    state: TrainState,
    run: RunFolder,
    settings: Settings,
    precision: torch.dtype,
) -> tuple[dict[str, Any], dict[str, float]]:
    """One pass over the source; the epoch's row of scalars, and those that the method gave."""
    title = f"epoch {state.epoch + 1}/{settings.num_epochs}"
    images = state.steps_per_epoch * settings.batch_size
    sums, start = defaultdict(float), time.perf_counter()
    with progress(None, title, total=images, unit="image") as bar:
        for batch in itertools.islice(batches, state.steps_per_epoch):
            rate = state.learning_rate
            terms = _train_step(method, batch, state, precision)
            for name, term in terms.items():
                sums[name] = sums[name] + term
            if state.step % settings.log_every == 0 or state.step % state.steps_per_epoch == 0:
                values = _finite(terms, state)
                _log(values, rate, state, run)
                bar.set_postfix(loss=f"{values['loss']:.3f}", lr=f"{rate:.2e}", refresh=False)
            bar.update(settings.batch_size)
    seconds = time.perf_counter() - start
    run.scalars({"images_per_second": images / seconds}, state.step)
    means = {name: value.item() / state.steps_per_epoch for name, value in sums.items()}
    row = {
        "epoch": state.epoch,
        "step": state.step,
        "learning_rate": rate,
        **means,
        "train_seconds": seconds,
        "images_per_second": images / seconds,
    }
    return row, means


def _train_step(
    method: Method, batch: Batch, state: TrainState, precision: torch.dtype
) -> dict[str, Tensor]:
    """One update; the terms, their sum and what the method observed, on the device, so that
    nothing waits for it."""
    with autocast(batch.source.image.device, precision):
        losses = method(batch)
    total = sum(losses.values())
    state.update(total)
    scalars = {"loss": total, **losses, **method.observed}
    return {name: scalar.detach() for name, scalar in scalars.items()}


def _finite(terms: Mapping[str, Tensor], state: TrainState) -> dict[str, float]:
    """The terms as numbers; raises UserError where one of them is not finite."""
    values = {name: term.item() for name, term in terms.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"{', '.join(bad)} was not finite at step {state.step}; what was saved is kept: "
            "lower --learning_rate or use --precision fp32"
        )
    return values


def _log(values: Mapping[str, float], rate: float, state: TrainState, run: RunFolder) -> None:
    scalars = {f"train/{name}": value for name, value in values.items()}
    run.scalars({**scalars, "learning_rate": rate}, state.step)


def _record_validation(
    evaluation: Evaluation, state: TrainState, run: RunFolder
) -> dict[str, float]:
    """Prints and draws the scores and keeps the best; the scalars of the epoch's row."""
    scores = {"epoch": state.epoch, **evaluation.scores()}
    print(f"{run.path.name} after epoch {state.epoch}:")
    print_scores(scores)
    best = state.best["mIoU"] if state.best else math.nan
    if math.isnan(best) or scores["mIoU"] > best:
        state.best = scores
        weights = state.method.network.state_dict()
        run.save_checkpoint(BEST, {"network": weights, "scores": scores})
    state.last = scores
    picture = panel(evaluation.rows, title=f"{run.path.name}, epoch {state.epoch}")
    run.save_picture("validation.png", picture)
    run.board(state.step).add_image("validation", picture, state.step, dataformats="HWC")
    summary = {f"val/{name}": scores[name] for name in ("pixel_accuracy", "mIoU")}
    run.scalars(summary, state.step)
    return summary
