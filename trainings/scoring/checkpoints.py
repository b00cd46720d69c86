"""Finding the checkpoints that are meant, and loading them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from datasets.catalog import data_set
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples
from datasets.reading import SampleFiles
from model.deployment.folding import fold
from model.network import Network
from model.weights.loading import load_network
from trainings.experiment import Experiment, new_network
from trainings.options import Settings
from trainings.scoring.batch_norm import TARGET, reestimate_statistics
from trainings.scoring.record import STATISTICS, at_size, views_in_words
from trainings.scoring.runs import SELECTS, NoRun, find_run, own_run, selected
from trainings.scoring.trained import as_trained, check_classes
from utils.disk.run_folder import SCORES, SETTINGS, RunFolder
from utils.errors import UserError
from utils.transforms import augmentation_codes
from utils.utils import find_input, resolve_device, slow_precision

NONE = "none"
"""The augmentation of a run without any, in words."""


def checkpoint_to_score(
    experiment: Experiment, settings: Settings, *, search: bool
) -> tuple[Path, Path]:
    """Return the folder for the scores, and the checkpoint to score: with `search` that of any run
    that fits, else that of the run that these settings name.

    The scores of a checkpoint that the command names go into the folder of its run, unless
    `--save_keyword` names another one or the checkpoint lies in no run's folder.
    """
    if settings.load_model_path:
        checkpoint = find_input(settings.load_model_path, "load_model_path")
        own = checkpoint.resolve().parent
        if not settings.save_keyword and RunFolder(own).has(SETTINGS):
            return own, checkpoint
        return settings.save_model_path / settings.run_name(experiment.stem), checkpoint
    if not search:
        folder = own_run(settings, experiment.stem)
        return folder, _announced(folder, settings)
    try:
        return find_checkpoint(experiment, settings)
    except NoRun as error:
        raise UserError(
            f"{error}: run that command, or name a run with --save_keyword or a checkpoint with "
            "--load_model_path"
        ) from None


def find_checkpoint(experiment: Experiment, settings: Settings) -> tuple[Path, Path]:
    """Return the folder and checkpoint of the experiment's run that these settings mean, as
    `find_run` finds it, and warn if its augmentation is not the explicit one."""
    folder = find_run(settings, experiment.stem, experiment.wanted(settings))
    trained = RunFolder(folder).read_settings(settings)["aug_method"]
    warning = ""
    if not settings.save_keyword and lacks_augmentation(settings, trained):
        asked = settings.aug_method or NONE
        warning = f"warning: no run of {experiment.action} has augmentation {asked}; instead, "
    return folder, _announced(folder, settings, warning)


def lacks_augmentation(settings: Settings, trained: str) -> bool:
    """Return whether the command gives another augmentation than that of a training."""
    given = "aug_method" in settings.given
    return given and augmentation_codes(settings.aug_method) != augmentation_codes(trained)


def _announced(folder: Path, settings: Settings, warning: str = "") -> Path:
    """Return the checkpoint of a run that is scored; say how it came about, after a warning."""
    run, checkpoint = RunFolder(folder), folder / selected(settings, folder)
    trained = run.read_settings(settings)["aug_method"] or NONE
    how = {
        "best": "the epoch with the highest mIoU on that run's own validation split",
        "last": "the last epoch",
        "ema": "averaged weights, of the last validation",
    }[SELECTS[checkpoint.name]]
    unfinished = "" if run.has(SCORES) else "; that training has not finished"
    print(f"{warning}{checkpoint}: trained with augmentation {trained}, {how}{unfinished}")
    return checkpoint


def load_checkpoints(
    checkpoints: Sequence[Path],
    role: Role,
    settings: Settings,
    *,
    doing: str = "",
    seen: Sequence[SampleFiles] | None = None,
) -> list[Network]:
    """Load the checkpoints, apply --bn_statistics, fold, and move to the device.

    Args:
        role: the data set of the images that the networks are going to see.
        doing: the use of the networks in one word, such as "scored", for the line that is printed.
        seen: those images, whose sizes that line names; by default the validation split.
    """
    device = resolve_device(settings.device)
    if note := slow_precision(settings.precision, device):
        print(note)
    networks = []
    for checkpoint in checkpoints:
        check_classes(checkpoint, settings)
        own = as_trained(settings, checkpoint)  # each may have its own width
        network = new_network(replace(own, class_table=settings.class_table))
        print(f"{checkpoint}: {load_network(network, checkpoint)}")
        networks.append(network.to(device).to(memory_format=torch.channels_last).eval())
    if settings.bn_statistics == TARGET:
        samples = unlabelled_samples(role, settings)
        reestimate_statistics(networks, samples, settings, device)
    statistics = STATISTICS[settings.bn_statistics]
    if settings.bn_statistics == TARGET:
        statistics += f" ({len(samples)} of {data_set(role, settings)})"
    how = ", ".join([statistics, *views_in_words(settings)])
    size = at_size(role, settings, seen) if doing else ""
    print(f"{doing}{size} with {how}".lstrip(), flush=True)
    return [fold(network) for network in networks]
