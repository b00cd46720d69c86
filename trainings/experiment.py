"""A training action: which data, which method, which validation; and the actions that score."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.labels import NUM_CLASSES
from model.model_stages import BiSeNet
from model.weights import load_backbone, load_network
from trainings.loaders import (
    SOURCE_STREAM,
    TARGET_STREAM,
    Domain,
    TrainingData,
    fingerprint,
    resize_size,
    training_samples,
    validation_samples,
)
from trainings.loop import fit
from trainings.method import Method
from trainings.state import TrainState
from trainings.val import Evaluation, evaluate, print_scores
from utils.pictures import panel
from utils.run_folder import BEST, SCORES, SETTINGS, RunFolder, find_run
from utils.settings import Settings
from utils.utils import (
    find_input,
    git_revision,
    resolve_device,
    resolve_precision,
    seed_everything,
    versions,
)

SELECTION = "best: the epoch with the highest mIoU on this same validation split"


@dataclass(frozen=True)
class Experiment:
    """What distinguishes one training action from another.

    Attributes:
        action: the word after `--action`.
        stem: what its runs are called by.
        source: the labelled domain it trains on.
        validation: the domain whose validation split scores it.
        method: makes the method around a network.
        target: the domain it adapts to, if it does.
    """

    action: str
    stem: str
    source: Domain
    validation: Domain
    method: Callable[[BiSeNet, Settings], Method]
    target: Domain | None = None


def run_experiment(experiment: Experiment, settings: Settings) -> None:
    """Trains, or with `--validation_only True` scores on the experiment's validation split."""
    if settings.validation_only:
        score(experiment, experiment.validation, settings, any_augmentation=False)
    else:
        train(experiment, settings)


def train(experiment: Experiment, settings: Settings) -> None:
    """Trains, or continues, or prints the scores of a finished run."""
    run = RunFolder(settings.save_model_path / settings.run_name(experiment.stem))
    device = resolve_device(settings.device)
    resolve_precision(settings.precision, device)  # refuses here what this device cannot do
    data = _training_data(experiment, settings)
    validation = validation_samples(experiment.validation, settings)
    data_names = fingerprint(data.source, data.target, validation)
    if run.finished(settings, data_names):
        _print_finished(run)
        return
    seed_everything(settings.seed)
    network = build_network(settings, continued=run.continues(settings))
    run.begin(settings, data_names)
    method = experiment.method(network, settings).to(device, memory_format=torch.channels_last)

    _announce(run, data, len(validation), device)
    validate = functools.partial(evaluate, network, validation, settings, device)
    try:
        state, last = fit(method, data, validate, run, settings, device)
    finally:
        run.close()
    _finish(run, state, _record(experiment, settings, data, last))


def _training_data(experiment: Experiment, settings: Settings) -> TrainingData:
    source = training_samples(experiment.source, settings, SOURCE_STREAM)
    target = experiment.target and training_samples(experiment.target, settings, TARGET_STREAM)
    return TrainingData(source, target, batch_size=settings.batch_size, seed=settings.seed)


def _announce(run: RunFolder, data: TrainingData, validated: int, device: torch.device) -> None:
    print(
        f"run {run.path}: {len(data.source)} training and {validated} validation images, "
        f"{data.steps_per_epoch} steps an epoch, on {device}",
        flush=True,
    )


def _print_finished(run: RunFolder) -> None:
    scores = run.read_json(SCORES)
    print(f"{run.path} is finished; --overwrite trains it afresh. The last epoch scored:")
    print_scores(scores["last"])


def _record(
    experiment: Experiment, settings: Settings, data: TrainingData, last: Evaluation
) -> dict[str, Any]:
    """What scores.json says beside the scores, so that a number can be traced to its making."""
    return {
        "training": {
            "source": experiment.source.value,
            "target": experiment.target and experiment.target.value,
            "images": len(data.source),
            "steps_per_epoch": data.steps_per_epoch,
            "image_size": settings.image_size,
        },
        **scoring_record(experiment.validation, settings, last.images, last.label_sizes),
    }


def scoring_record(
    domain: Domain, settings: Settings, images: int, label_sizes: list
) -> dict[str, Any]:
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    return {
        "validation": {
            "domain": domain.value,
            "images": images,
            "image_size": resize_size(domain, settings),
            "label_sizes": label_sizes,
        },
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": str(precision).removeprefix("torch."),
        "seed": settings.seed,
        "versions": versions(),
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings.to_json(),
    }


def _finish(run: RunFolder, state: TrainState, record: dict[str, Any]) -> None:
    seconds = [row["train_seconds"] for row in state.history]
    timing = {"mean_epoch_seconds": sum(seconds) / len(seconds)}
    run.write_json(
        SCORES, {"last": state.last, "best": state.best, "selection": SELECTION, **timing, **record}
    )
    print(
        f"mIoU last {_percent(state.last)}, best {_percent(state.best)} (epoch "
        f"{state.best['epoch']}, selected on this validation split); "
        f"{timing['mean_epoch_seconds']:.1f} s an epoch; all in {run.path}"
    )


def _percent(scores: dict[str, Any]) -> str:
    return f"{100 * scores['mIoU']:.2f} %"


def new_network(settings: Settings) -> BiSeNet:
    """The network of the settings, with random weights."""
    return BiSeNet(NUM_CLASSES, backbone=settings.backbone, base=settings.base_width)


def build_network(settings: Settings, *, continued: bool = False) -> BiSeNet:
    """The network of the settings with the weights they name, saying which were loaded.

    `continued`: its weights come from the run's own checkpoint, so none are read here.
    """
    network = new_network(settings)
    if continued:
        return network
    if settings.load_model_path:
        path = find_input(settings.load_model_path, "load_model_path")
        print(f"{path}: {load_network(network, path)}")
    elif settings.pretrain_path:
        path = find_input(settings.pretrain_path, "pretrain_path")
        print(f"{path}: {load_backbone(network, path)}")
    else:
        print("no --pretrain_path: training starts from random weights")
    return network


def score_transfer(source: Experiment, settings: Settings) -> None:
    """The domain shift: a network trained on the source, scored on Cityscapes."""
    score(source, Domain.CITYSCAPES, settings, any_augmentation=True)


def score(
    experiment: Experiment, domain: Domain, settings: Settings, *, any_augmentation: bool
) -> None:
    """Scores the checkpoint that is named, else the best one of the experiment's own run.

    Prints, and leaves JSON and a picture in the run's folder; those of a named checkpoint carry
    its name. `any_augmentation` lets a run stand in that differs in its augmentation.
    """
    name = f"validation_{domain.value.lower()}"
    if settings.load_model_path:
        checkpoint = find_input(settings.load_model_path, "load_model_path")
        folder = settings.save_model_path / settings.run_name(experiment.stem)
        name += f"_{checkpoint.resolve().parent.name}_{checkpoint.stem}"
    else:
        folder = find_run(
            settings, experiment.stem, experiment.action, any_augmentation=any_augmentation
        )
        checkpoint = folder / BEST
        trained = RunFolder(folder).read_json(SETTINGS)["aug_method"] or "none"
        print(
            f"{checkpoint}: trained with augmentation {trained}, chosen as the epoch with the "
            "highest mIoU on that run's own validation split"
        )
    evaluation = evaluate_checkpoint(checkpoint, domain, settings)
    scores = evaluation.scores()
    print_scores(scores)
    run = RunFolder(folder)
    record = scoring_record(domain, settings, evaluation.images, evaluation.label_sizes)
    run.write_json(f"{name}.json", {"checkpoint": str(checkpoint), **scores, **record})
    picture = panel(evaluation.rows, title=f"{checkpoint} on {domain.value}")
    print(f"scores and pictures: {run.save_picture(f'{name}.png', picture).with_suffix('.*')}")


def evaluate_checkpoint(checkpoint: Path, domain: Domain, settings: Settings) -> Evaluation:
    """A checkpoint on a domain's validation split."""
    device = resolve_device(settings.device)
    samples = validation_samples(domain, settings)
    network = new_network(settings)
    print(f"{checkpoint}: {load_network(network, checkpoint)}")
    network = network.to(device, memory_format=torch.channels_last)
    return evaluate(network, samples, settings, device)
