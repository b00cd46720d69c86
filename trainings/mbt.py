"""Multi-band transfer (Yang & Soatto, CVPR 2020): the networks of three betas as one.

p = 1/3 * sum over beta of softmax(phi_beta(x)), upsampled, then argmax
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from model.ensemble import Ensemble
from trainings.experiment import Experiment
from trainings.loaders import Domain, validation_samples
from trainings.scoring import find_checkpoint, load_checkpoints, scoring_record, write_scores
from trainings.val import evaluate_each, print_scores
from utils.errors import UserError
from utils.run_folder import RunFolder
from utils.settings import Settings
from utils.utils import find_input, resolve_device

BETAS = (0.01, 0.05, 0.09)


def val_mbt(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Scores each member and the ensemble of a round on Cityscapes' validation split."""
    members = find_members(fda, ssl_fda, settings.ssl_round, settings)
    ensemble = load_ensemble(members, settings)
    device = resolve_device(settings.device)
    samples = validation_samples(Domain.CITYSCAPES, settings)

    def score_maps(images: Tensor) -> Sequence[Tensor]:
        logits = [network.main_logits(images) for network in ensemble.networks]
        return [*logits, ensemble.probabilities(images)]

    *singles, together = evaluate_each(score_maps, samples, settings, device)
    for path, evaluation in zip(members, singles, strict=True):
        print(f"\n{path}:")
        print_scores(evaluation.scores())
    print(f"\nensemble of the {len(members)}:")
    print_scores(together.scores())
    record = {
        **together.scores(),
        "members": [
            {"checkpoint": str(path), **evaluation.scores()}
            for path, evaluation in zip(members, singles, strict=True)
        ],
        **scoring_record(Domain.CITYSCAPES, settings, together),
    }
    stem = "mbt" if settings.ssl_round == 0 else "mbt_ssl{round}"
    run = RunFolder(settings.save_model_path / settings.run_name(stem))
    name = "validation_cityscapes"
    if settings.bn_statistics == "target":
        name += "_target_statistics"
    write_scores(run, name, record, together)


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
            f"{'; '.join(problems)}: run what is missing, or name the checkpoints with "
            "--mbt_checkpoints"
        )
    return found


def load_ensemble(members: Sequence[Path], settings: Settings) -> Ensemble:
    """The members on the device, in evaluation mode, with the chosen batch-norm statistics."""
    return Ensemble(load_checkpoints(members, Domain.CITYSCAPES, settings)).eval()
