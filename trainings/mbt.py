"""Multi-band transfer (Yang & Soatto, CVPR 2020): the networks of three betas as one.

p = 1/3 * sum over beta of softmax(phi_beta(x)), upsampled, then argmax
"""

import dataclasses
from pathlib import Path

from trainings.experiment import Experiment
from trainings.loaders import Domain, validation_samples
from trainings.predictors import Predictor, load_predictors
from trainings.scoring import find_checkpoint, scores_name, scoring_record, write_scores
from trainings.val import evaluate_each, print_scores
from utils.errors import UsageError, UserError
from utils.run_folder import SETTINGS, RunFolder
from utils.settings import Settings
from utils.utils import find_input, resolve_device

BETAS = (0.01, 0.05, 0.09)


def val_mbt(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Scores each member and the ensemble of a round on Cityscapes' validation split."""
    folder = ensemble_folder(settings)
    members = find_members(fda, ssl_fda, settings.ssl_round, settings)
    ensemble = Predictor(f"ensemble of the {len(members)}", tuple(members))
    predictors = [*(Predictor(str(path), (path,)) for path in members), ensemble]
    score_maps = load_predictors(predictors, Domain.CITYSCAPES, settings)
    samples = validation_samples(Domain.CITYSCAPES, settings)
    device = resolve_device(settings.device)
    evaluations = evaluate_each(score_maps, samples, settings, device)
    scores = [evaluation.scores() for evaluation in evaluations]
    for predictor, one in zip(predictors, scores, strict=True):
        print(f"\n{predictor.title}:")
        print_scores(one)
    record = {
        **scores[-1],
        "members": [
            {"checkpoint": str(path), **one} for path, one in zip(members, scores, strict=False)
        ],
        **scoring_record(Domain.CITYSCAPES, settings, evaluations[-1], settings.bn_statistics),
    }
    name = scores_name(Domain.CITYSCAPES, settings, _origin(settings))
    write_scores(RunFolder(folder), name, record, evaluations[-1])


def ensemble_folder(settings: Settings) -> Path:
    """Where an ensemble's scores and pictures go. Raises UsageError where a training lies there."""
    folder = settings.save_model_path / settings.run_name(
        "mbt_ssl{round}" if settings.ssl_round else "mbt"
    )
    if (folder / SETTINGS).exists():
        raise UsageError(
            f"argument --save_keyword: {folder} is the folder of a training; choose another name "
            "for the ensemble"
        )
    return folder


def _origin(settings: Settings) -> str:
    """What tells the files of this ensemble from those of the usual one."""
    if settings.mbt_checkpoints:
        names = (f"{p.resolve().parent.name}_{p.stem}" for p in settings.mbt_checkpoints)
        return "_" + "_".join(names)
    return "" if settings.select == "best" else f"_{settings.select}"


def find_members(
    fda: Experiment, ssl_fda: Experiment, ssl_round: int, settings: Settings
) -> list[Path]:
    """The checkpoints of an ensemble: those that are named, else the runs of a round at the three
    betas; round 0 is FDA's.

    Raises UserError that names each missing one and the command that makes it.
    """
    if settings.mbt_checkpoints:
        return [find_input(path, "mbt_checkpoints") for path in settings.mbt_checkpoints]
    experiment = ssl_fda if ssl_round else fda
    found, problems = [], []
    for beta in BETAS:
        member = dataclasses.replace(
            settings, fda_beta=beta, ssl_round=ssl_round, save_keyword=None
        )
        try:
            _, checkpoint = find_checkpoint(experiment, member)
            found.append(checkpoint)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{'; '.join(problems)}: run those commands, or name the checkpoints with "
            "--mbt_checkpoints"
        )
    return found
