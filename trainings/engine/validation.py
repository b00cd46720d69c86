"""Measure a run between two rounds, on a validation split or on an unlabelled target."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from model.network import Network
from trainings.engine.scorer import Scorer
from trainings.engine.state import TrainState, network_content
from trainings.engine.tensorboard import class_curves
from trainings.val import Evaluation, print_scores
from utils.disk.run_folder import BEST, EMA, RunFolder
from utils.pictures.panels import panel
from utils.signals import Stop

Watch = Callable[[Network, Network | None, TrainState, RunFolder], Mapping[str, float]]
"""Looks at the images of a target with a network and its moving average, where there is one; gives
scalars of the round's row."""


class Validation(NamedTuple):
    """How a run is measured.

    Attributes:
        scorer: scores networks on a validation split, if there is one with labels.
        selects: whether the round with the highest mIoU is kept. The split of the source selects
            nothing for a target.
        watch: looks at the target beside it, with its labels or without.
    """

    scorer: Scorer
    selects: bool = True
    watch: Watch | None = None


def measure(
    validation: Validation, state: TrainState, run: RunFolder, stop: Stop
) -> tuple[dict[str, float], Evaluation | None]:
    """Measure the network as it is, print what is found, and save what it is found for.

    Return the scalars of the round's row, and the evaluation of the network.
    """
    network, averaged, of_average = state.method.network, None, None
    row: dict[str, float] = {}
    with stop.immediately():
        evaluation = validation.scorer.score(network)
        if state.scored_average is not None:
            averaged = validation.scorer.with_training_statistics(state.scored_average)
            of_average = validation.scorer.score(averaged)
    if evaluation is not None:
        row |= record_validation(evaluation, state, run, validation)
    if averaged is not None:
        row |= _record_average(of_average, averaged, state, run)
    if validation.watch:
        with stop.immediately():
            row |= validation.watch(network, averaged, state, run)
    return row, evaluation


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
        weights = network_content(state.method.network)
        run.save_checkpoint(BEST, {**weights, "scores": scores})
    state.last = scores
    title, classes = f"{run.path.name}, epoch {epoch}: {validation.scorer.on}", evaluation.classes
    picture = panel(evaluation.rows, title=title, classes=classes)
    run.save_picture("validation.png", picture)
    run.board.show("validation", picture, state.step)
    summary = {f"val/{name}": scores[name] for name in ("pixel_accuracy", "mIoU")}
    run.board.scalars(summary | class_curves(scores["class_IoU"]), state.step)
    return summary


def _record_average(
    evaluation: Evaluation | None, averaged: Network, state: TrainState, run: RunFolder
) -> dict[str, float]:
    """Save the averaged network; print and save its scores, where there are any, and return the
    scalars of the row."""
    scores: dict[str, Any] | None = None
    if evaluation:
        scores = {"epoch": state.epoch, **evaluation.scores()}
        print("with averaged weights:")
        print_scores(scores)
    state.last_average = scores
    run.save_checkpoint(EMA, {**network_content(averaged), "scores": scores})
    if scores is None:
        return {}
    summary = {f"val/ema_{name}": scores[name] for name in ("pixel_accuracy", "mIoU")}
    run.board.scalars(summary, state.step)
    return summary
