"""What a run is measured by between two rounds: a validation split, an unlabelled target."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from model.average import MovingAverage
from model.network import Network
from trainings.engine.state import TrainState
from trainings.engine.tensorboard import class_curves
from trainings.val import Evaluation, print_scores
from utils import processes
from utils.disk.run_folder import BEST, EMA, RunFolder
from utils.pictures.panels import panel
from utils.signals import Stop

Watch = Callable[[Network, Network | None, TrainState, RunFolder], Mapping[str, float]]
"""Looks at the images of a target with a network and its moving average, where there is one; gives
scalars of the round's row."""


class Validation(NamedTuple):
    """How a run is measured.

    Attributes:
        evaluate: scores a network on a validation split; None where there is none with labels.
        on: that split in words: the data set and the number of its images.
        selects: whether the round with the highest mIoU is kept. The split of the source selects
            nothing for a target.
        watch: what is done with a target whose labels are not scored.
        statistics: gives a moving average the norm statistics that it is scored and saved with.
    """

    evaluate: Callable[[Network], Evaluation] | None
    on: str = ""
    selects: bool = True
    watch: Watch | None = None
    statistics: Callable[[MovingAverage], Network] | None = None


class Measured(NamedTuple):
    """The scalars of a round's row, the evaluation of the network, and whether it is the best."""

    row: dict[str, float]
    evaluation: Evaluation | None
    improved: bool


def measure(validation: Validation, state: TrainState, run: RunFolder, stop: Stop) -> Measured:
    """Measure the network as it is, print what is found, and save what it is found for."""
    shared = processes.with_first_buffers
    network, average = shared(state.method.network), state.scored_average
    averaged: Network | None = None
    evaluation = of_average = None
    row: dict[str, float] = {}
    with stop.immediately():
        if average is not None and validation.statistics:
            averaged = validation.statistics(average)
        if validation.evaluate:
            evaluation = validation.evaluate(network)
            of_average = averaged and validation.evaluate(averaged)
    if evaluation:
        row |= record_validation(evaluation, state, run, validation)
    if averaged:
        row |= _record_average(averaged, of_average, state, run)
    if validation.watch:
        with stop.immediately():
            row |= validation.watch(network, averaged, state, run)
    improved = evaluation is not None and validation.selects and state.best is state.last
    return Measured(row, evaluation, improved)


def record_validation(
    evaluation: Evaluation, state: TrainState, run: RunFolder, validation: Validation
) -> dict[str, float]:
    """Print and draw the scores and keep the best; return the scalars of the round's row."""
    epoch = state.epoch
    scores = {"epoch": epoch, **evaluation.scores()}
    print(f"{run.path.name} after epoch {epoch}:")
    print_scores(scores)
    best = state.best["mIoU"] if state.best else math.nan
    if validation.selects and (math.isnan(best) or scores["mIoU"] > best):
        state.best = scores
        weights = state.method.network.state_dict()
        run.save_checkpoint(BEST, {"network": weights, "scores": scores})
    state.last = scores
    picture = panel(evaluation.rows, title=f"{run.path.name}, epoch {epoch}: {validation.on}")
    run.save_picture("validation.png", picture)
    run.show("validation", picture, state.step)
    summary = {f"val/{name}": scores[name] for name in ("pixel_accuracy", "mIoU")}
    run.scalars(summary | class_curves(scores["class_IoU"]), state.step)
    return summary


def _record_average(
    averaged: Network, evaluation: Evaluation | None, state: TrainState, run: RunFolder
) -> dict[str, float]:
    """Save the averaged network; print and save their scores, where there are any, and return the
    scalars of the row."""
    scores: dict[str, Any] | None = None
    if evaluation:
        scores = {"epoch": state.epoch, **evaluation.scores()}
        print("with averaged weights:")
        print_scores(scores)
    state.last_average = scores
    run.save_checkpoint(EMA, {"network": averaged.state_dict(), "scores": scores})
    if scores is None:
        return {}
    summary = {f"val/ema_{name}": scores[name] for name in ("pixel_accuracy", "mIoU")}
    run.scalars(summary, state.step)
    return summary
