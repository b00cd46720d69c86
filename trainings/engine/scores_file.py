"""Write the scores.json of a training, and print the scores of a finished one."""

from typing import Any

from datasets.catalog import TrainingFiles, data_set, name_of
from datasets.loading.pairs import TrainingData
from trainings.engine.state import TrainState
from trainings.experiment import Experiment
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.record import STATISTICS, scoring_record
from trainings.val import Evaluation, print_scores
from utils.disk.run_folder import LATEST, PREVIOUS, SCORES, RunFolder
from utils.errors import UserError
from utils.text import in_percent

FURTHER_SCORES = {
    "last_average": "with averaged weights",
    "last_target_statistics": f"with {STATISTICS[TARGET]}",
    "last_average_target_statistics": f"with averaged weights and {STATISTICS[TARGET]}",
}
"""Scores of the last epoch that scores.json may hold beside the network's, with their titles."""

BEST_EPOCH = "best: the epoch with the highest mIoU on this same validation split"

UNSELECTED = {
    True: "no best epoch is kept: the target has no labels; scores are of the source's validation "
    "split",
    False: "no best epoch is kept: no validation split has labels, so nothing is scored",
}
"""Sentences about a run without a best epoch; the key says whether the run is scored at all."""


def print_finished(run: RunFolder) -> None:
    """Print the scores of a finished run. Raise UserError where its file holds none."""
    scores = run.read_json(SCORES)
    try:
        print(f"{run.path} is finished; --overwrite trains it afresh. The last epoch scored:")
        if scores["last"] is None:
            print(scores["selection"])
        else:
            print_scores(scores["last"])
        for name, title in FURTHER_SCORES.items():
            if further := scores.get(name):
                print(f"{title}:")
                print_scores(further)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        remedy = "bring it back, or train afresh with --overwrite"
        if run.has(LATEST) or run.has(PREVIOUS):
            remedy = "remove it, and the same command writes it again"
        raise UserError(f"{run.path / SCORES} holds no scores: {remedy}") from error


def training_record(
    experiment: Experiment,
    settings: Settings,
    data: TrainingData,
    target: TrainingFiles | None,
    last: Evaluation | None,
) -> dict[str, Any]:
    """Return the entries of scores.json that tell how its scores were made."""
    role = experiment.scored_role(settings)
    return {
        "training": {
            "source": name_of(experiment.source, settings),
            "source_data_set": data_set(experiment.source, settings),
            "target": target and name_of(target.role, settings),
            "target_data_set": target and data_set(target.role, settings),
            "images": len(data.source),
            "target_images": data.target and len(data.target),
            "steps_per_epoch": data.steps_per_epoch,
            "image_size": settings.image_size,
        },
        **(scoring_record(role, settings, last, TRAINING) if role and last else {}),
    }


def finish(run: RunFolder, state: TrainState, record: dict[str, Any], *, selects: bool) -> None:
    """Write scores.json, and print the mIoU and the time of an epoch."""
    seconds = [row["train_seconds"] for row in state.history]
    timing = {"mean_epoch_seconds": sum(seconds) / state.length.epochs}
    selection = BEST_EPOCH if selects else UNSELECTED[state.last is not None]
    scores = {"last": state.last, "best": state.best, "selection": selection}
    if state.last_average:
        scores["last_average"] = state.last_average
    run.write_json(SCORES, {**scores, **timing, **record})
    found = "no scores"
    if state.last:
        found = f"mIoU last {in_percent(state.last['mIoU'])} %"
        found += "" if selects else " on the source's validation split"
    if state.best:
        found += f", best {in_percent(state.best['mIoU'])} % (epoch {state.best['epoch']}, "
        found += "selected on this validation split)"
    print(f"{found}; {timing['mean_epoch_seconds']:.1f} s an epoch; all in {run.path}")
