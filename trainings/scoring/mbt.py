"""Multi-band transfer (Yang & Soatto, CVPR 2020): the networks of three betas as one.

p = 1/3 * sum over beta of softmax(phi_beta(x)), upsampled, then argmax
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from datasets.data_set import Role
from datasets.loading.sets import validation_samples
from trainings.experiment import Experiment
from trainings.options import EnsembleOptions, Settings
from trainings.scoring.checkpoints import NONE, find_checkpoint, lacks_augmentation
from trainings.scoring.predictors import Predictor, load_predictors
from trainings.scoring.record import scoring_record, write_scores
from trainings.scoring.runs import NoRun, find_runs, run_and_file
from trainings.scoring.trained import as_trained
from trainings.train_SSL_FDA import SSLFDAOptions
from trainings.val import evaluate_each, print_scores, scores_table
from utils.disk.run_folder import SETTINGS, RunFolder
from utils.errors import UsageError, UserError
from utils.utils import find_input, resolve_device

BETAS = (0.01, 0.05, 0.09)


def val_mbt(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Score each member and the ensemble of a round on the target's validation split."""
    members = find_members(fda, ssl_fda, SSLFDAOptions.of(settings).ssl_round, settings)
    settings, role = as_trained(settings, members[0]), Role.TARGET
    folder = ensemble_folder(members, settings)
    ensemble = Predictor(f"ensemble of the {len(members)}", tuple(members))
    predictors = [*(Predictor(str(path), (path,)) for path in members), ensemble]
    samples = validation_samples(role, settings)  # refuses a target without labels
    score_maps = load_predictors(predictors, role, settings, doing="scored")
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
        **scoring_record(role, settings, evaluations[-1], settings.bn_statistics),
    }
    titled = zip((p.title for p in predictors), scores, strict=True)
    print(f"\n{scores_table(titled, record['validation'])}", flush=True)
    suffix = ensemble_suffix(settings)
    write_scores(folder, role, record, evaluations[-1], settings, suffix=suffix)


def ensemble_folder(members: Sequence[Path], settings: Settings) -> Path:
    """Return the folder of an ensemble's scores and pictures, named by its members' augmentation.

    Raise UsageError where it is the folder of a training.
    """
    if (members[0].parent / SETTINGS).exists():
        trained = RunFolder(members[0].parent).read_settings(settings)["aug_method"]
        settings = dataclasses.replace(settings, aug_method=trained)
    stem = ensemble_stem(SSLFDAOptions.of(settings).ssl_round)
    folder = settings.save_model_path / settings.run_name(stem)
    if (folder / SETTINGS).exists():
        raise UsageError(
            f"argument --save_keyword: {folder} is the folder of a training; choose another name "
            "for the ensemble"
        )
    return folder


def ensemble_stem(ssl_round: int) -> str:
    """Return the stem of the folder of a round's ensemble, for `Settings.run_name`."""
    return "mbt_ssl{ssl_round}" if ssl_round else "mbt"


def ensemble_suffix(settings: Settings) -> str:
    """Return the file-name suffix of this ensemble's scores; empty for the default ensemble."""
    if named := EnsembleOptions.of(settings).mbt_checkpoints:
        return "".join(f"_{run_and_file(path)}" for path in named)
    return "" if settings.select == "best" else f"_{settings.select}"


def find_members(
    fda: Experiment, ssl_fda: Experiment, ssl_round: int, settings: Settings
) -> list[Path]:
    """Return the checkpoints of an ensemble: those that are named, else the runs of a round at the
    three betas, of one augmentation where there is such a set; round 0 is FDA's.

    Raise UserError that names each missing one and the command that makes it.
    """
    if named := EnsembleOptions.of(settings).mbt_checkpoints:
        return [find_input(path, "mbt_checkpoints") for path in named]
    experiment = ssl_fda if ssl_round else fda
    settings = settings.changed(ssl_round=ssl_round, save_keyword=None)
    betas = [settings.changed(fda_beta=beta) for beta in BETAS]
    shared = _shared_augmentation(experiment, betas)
    if shared is not None and lacks_augmentation(settings, shared):
        print(
            f"warning: no runs of {experiment.action} at every beta have augmentation "
            f"{settings.aug_method or NONE}; those with {shared or NONE} are taken"
        )
    found, problems = [], []
    for member in betas:
        wanted = member if shared is None else member.changed(aug_method=shared)
        try:
            _, checkpoint = find_checkpoint(experiment, wanted)
            found.append(checkpoint)
        except NoRun as error:
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{'; '.join(problems)}: run those commands, or name the checkpoints with "
            "--mbt_checkpoints"
        )
    if shared is None:
        print("warning: the members were not trained with the same augmentation")
    return found


def _shared_augmentation(experiment: Experiment, betas: Sequence[Settings]) -> str | None:
    """Return the augmentation of which there is a run at every beta: the command's, else the only
    one.

    Raise UserError where there are several to choose from.
    """
    sets = [
        {run["aug_method"] for run in find_runs(member, experiment.wanted(member)).values()}
        for member in betas
    ]
    shared = set.intersection(*sets)
    if betas[0].aug_method in shared:
        return betas[0].aug_method
    if len(shared) > 1:
        names = ", ".join(sorted(codes or "nonorm" for codes in shared))
        raise UserError(
            f"there are runs of {experiment.action} at every beta with several augmentations "
            f"({names}): choose one with --aug_method"
        )
    return shared.pop() if shared else None
