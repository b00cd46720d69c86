"""Scoring a checkpoint on a data set's validation split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples, validation_samples
from trainings.experiment import Experiment
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, TRAINING, check_enough
from trainings.scoring.checkpoints import checkpoint_to_score, load_checkpoints
from trainings.scoring.record import STATISTICS, scoring_record, write_scores
from trainings.scoring.runs import run_and_file
from trainings.scoring.trained import as_trained
from trainings.val import evaluate, print_scores, scores_table
from utils.disk.run_folder import BEST
from utils.errors import UserError
from utils.utils import resolve_device


def score(experiment: Experiment, settings: Settings) -> None:
    """Score the checkpoint that the command names, or else that of the experiment's own run."""
    folder, checkpoint = checkpoint_to_score(experiment, settings, search=False)
    settings = as_trained(settings, checkpoint)
    role = experiment.scored_role(settings) or experiment.validation  # which says what is missing
    score_checkpoint(checkpoint, folder, role, settings)


def score_transfer(source: Experiment, settings: Settings) -> None:
    """Score a network that was trained on the source on the target: with its own batch-norm
    statistics, which measures the domain shift, and with those of the target."""
    source.check_pair(settings)
    folder, checkpoint = checkpoint_to_score(source, settings, search=True)
    role, settings = Role.TARGET, as_trained(settings, checkpoint)

    def scored_with(statistics: str) -> dict[str, Any]:
        chosen = replace(settings, bn_statistics=statistics)
        return score_checkpoint(checkpoint, folder, role, chosen)

    records = {STATISTICS[TRAINING]: scored_with(TRAINING)}
    try:
        check_enough(unlabelled_samples(role, settings))
    except UserError as error:  # a validation split alone is enough for the first row
        print(f"not scored with {STATISTICS[TARGET]}: {error}")
    else:
        records[STATISTICS[TARGET]] = scored_with(TARGET)
    validation = records[STATISTICS[TRAINING]]["validation"]
    print(f"\n{scores_table(records.items(), validation)}", end="", flush=True)


def score_checkpoint(
    checkpoint: Path, folder: Path, role: Role, settings: Settings
) -> dict[str, Any]:
    """Score a checkpoint on a domain's validation split with the chosen batch-norm statistics.

    Print the scores, write them into the folder, and return their record.
    """
    (network,) = load_checkpoints([checkpoint], role, settings, doing="scored")
    device = resolve_device(settings.device)
    evaluation = evaluate(network, validation_samples(role, settings), settings, device)
    scores = evaluation.scores()
    print_scores(scores)
    record = {
        "checkpoint": str(checkpoint),
        **scores,
        **scoring_record(role, settings, evaluation, settings.bn_statistics),
    }
    usual = checkpoint.resolve().parent == folder.resolve() and checkpoint.name == BEST
    suffix = "" if usual else f"_{run_and_file(checkpoint)}"
    write_scores(folder, role, record, evaluation, settings, suffix=suffix)
    return record
