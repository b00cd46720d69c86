"""Scoring what is trained: finding checkpoints, loading them, leaving scores and pictures."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.catalog import Domain, data_set, fingerprint, resize_size
from datasets.loading.sets import unlabelled_samples, validation_samples
from model.folding import folded
from model.model_stages import BiSeNet
from model.weights import load_network
from trainings.batch_norm import TARGET, TRAINING, check_enough, reestimate_statistics
from trainings.experiment import Experiment, new_network
from trainings.runs import NoRun, find_run, own_run, selected
from trainings.val import Evaluation, evaluate, print_scores, scored_on, scores_table
from utils.cli.settings import Settings, with_derived_defaults
from utils.disk.machine import git_revision, versions
from utils.disk.run_folder import BEST, SCORES, SETTINGS, RunFolder
from utils.errors import UsageError, UserError
from utils.pictures import panel
from utils.transforms import augmentation_codes
from utils.utils import TF32, arithmetic, find_input, resolve_device

STATISTICS = {
    TRAINING: "the batch-norm statistics of the training",
    TARGET: "batch-norm statistics of the scored domain's training images",
}


NONE = "none"
"""The augmentation of a run without any, in words."""

NETWORK = ("backbone", "base_width")
SIZES = ("image_size", "source_resize")


def trained_with(checkpoint: Path) -> dict[str, Any]:
    """Network and sizes of the run in whose folder a checkpoint lies; nothing for a checkpoint from
    elsewhere. Raises UserError where the run's settings cannot be read."""
    run = RunFolder(checkpoint.resolve().parent)
    if not run.has(SETTINGS):
        return {}
    found = run.read_settings()
    sizes = {name: found[name] and tuple(found[name]) for name in SIZES}
    return {**{name: found[name] for name in NETWORK}, **sizes}


def as_trained(settings: Settings, checkpoint: Path) -> Settings:
    """The settings with the network and the sizes of the run that a checkpoint is of, unless the
    command gives others; without such a run as they are."""
    trained = trained_with(checkpoint)
    given = settings.given
    if "image_size" in given and settings.image_size != trained.get("image_size"):
        given = given.union(SIZES)  # what follows from an explicit size does so already
    chosen = {name: value for name, value in trained.items() if name not in given}
    return with_derived_defaults(replace(settings, **chosen))


def score(experiment: Experiment, settings: Settings) -> None:
    """Scores the checkpoint that is named, else that of the experiment's own run."""
    folder, checkpoint = _checkpoint(experiment, settings, search=False)
    settings = as_trained(settings, checkpoint)
    score_checkpoint(checkpoint, folder, experiment.validation, settings)


def score_transfer(source: Experiment, settings: Settings) -> None:
    """The domain shift: a network trained on the source, scored on Cityscapes; and how much of it
    the statistics of the target take back."""
    folder, checkpoint = _checkpoint(source, settings, search=True)
    domain, settings = Domain.CITYSCAPES, as_trained(settings, checkpoint)

    def scored_with(statistics: str) -> dict[str, Any]:
        chosen = replace(settings, bn_statistics=statistics)
        return score_checkpoint(checkpoint, folder, domain, chosen)

    records = {STATISTICS[TRAINING]: scored_with(TRAINING)}
    try:
        check_enough(unlabelled_samples(domain, settings))
    except UserError as error:  # a validation split alone is enough for the first row
        print(f"not scored with {STATISTICS[TARGET]}: {error}")
    else:
        records[STATISTICS[TARGET]] = scored_with(TARGET)
    validation = records[STATISTICS[TRAINING]]["validation"]
    print(f"\n{scores_table(records.items(), validation)}", end="", flush=True)


def _checkpoint(experiment: Experiment, settings: Settings, *, search: bool) -> tuple[Path, Path]:
    """Where the scores go, and the checkpoint; with `search` that of any run that fits, else of the
    run that these settings name."""
    if settings.load_model_path:
        folder = settings.save_model_path / settings.run_name(experiment.stem)
        return folder, find_input(settings.load_model_path, "load_model_path")
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
    """Folder and checkpoint of the experiment's run that these settings mean, as `find_run` finds
    it; warns of another augmentation than an explicit one."""
    folder = find_run(settings, experiment.stem, experiment.wanted(settings))
    trained = RunFolder(folder).read_settings()["aug_method"]
    warning = ""
    if not settings.save_keyword and lacks_augmentation(settings, trained):
        asked = settings.aug_method or NONE
        warning = f"warning: no run of {experiment.action} has augmentation {asked}; instead, "
    return folder, _announced(folder, settings, warning)


def lacks_augmentation(settings: Settings, trained: str) -> bool:
    """Whether the command gives another augmentation than that of a training."""
    given = "aug_method" in settings.given
    return given and augmentation_codes(settings.aug_method) != augmentation_codes(trained)


def _announced(folder: Path, settings: Settings, warning: str = "") -> Path:
    """The checkpoint of a run that is scored; says how it came about, after a warning."""
    run, checkpoint = RunFolder(folder), folder / selected(settings)
    trained = run.read_settings()["aug_method"] or NONE
    how = {
        "best": "the epoch with the highest mIoU on that run's own validation split",
        "last": "the last epoch",
        "ema": "averaged weights, of the last validation",
    }[settings.select]
    unfinished = "" if run.has(SCORES) else "; that training has not finished"
    print(f"{warning}{checkpoint}: trained with augmentation {trained}, {how}{unfinished}")
    return checkpoint


def score_checkpoint(
    checkpoint: Path, folder: Path, domain: Domain, settings: Settings
) -> dict[str, Any]:
    """The record of a checkpoint's scores on a domain's validation split with the chosen batch-norm
    statistics, which are printed and left in the folder, too."""
    doing = f"scored{at_size(domain, settings)}"
    (network,) = load_checkpoints([checkpoint], domain, settings, doing=doing)
    device = resolve_device(settings.device)
    evaluation = evaluate(network, validation_samples(domain, settings), settings, device)
    scores = evaluation.scores()
    print_scores(scores)
    record = {
        "checkpoint": str(checkpoint),
        **scores,
        **scoring_record(domain, settings, evaluation, settings.bn_statistics),
    }
    name = checkpoint_scores_name(checkpoint, folder, domain, settings)
    write_scores(RunFolder(folder), name, record, evaluation)
    return record


def checkpoint_scores_name(
    checkpoint: Path, folder: Path, domain: Domain, settings: Settings
) -> str:
    """What the files of a checkpoint's scores are called by in a folder: with the checkpoint's name
    unless the folder is its own and it is the best one."""
    own = checkpoint.resolve().parent
    plain = own == folder.resolve() and checkpoint.name == BEST
    extra = "" if plain else f"_{own.name}_{checkpoint.stem}"
    return scores_name(domain, settings, extra, checkpoint=checkpoint)


def load_checkpoints(
    checkpoints: Sequence[Path], domain: Domain, settings: Settings, *, doing: str = ""
) -> list[BiSeNet]:
    """Networks on the device, folded, with the batch-norm statistics that are chosen, which is
    printed after what is `doing` with them; `domain` is what they are going to see."""
    device = resolve_device(settings.device)
    networks = []
    for checkpoint in checkpoints:
        network = new_network(as_trained(settings, checkpoint))  # each may have its own width
        print(f"{checkpoint}: {load_network(network, checkpoint)}")
        networks.append(network.to(device, memory_format=torch.channels_last).eval())
    if settings.bn_statistics == TARGET:
        samples = unlabelled_samples(domain, settings)
        reestimate_statistics(networks, samples, settings, device)
    how = ", ".join([STATISTICS[settings.bn_statistics], *_views(settings)])
    print(f"{doing} with {how}".lstrip(), flush=True)
    return [folded(network) for network in networks]


def at_size(domain: Domain, settings: Settings) -> str:
    """In words, the size of whole images that networks see; nothing where the images' own sizes are
    scaled."""
    if settings.eval_scales:
        return ""
    return f" at {_in_words(resize_size(domain, settings))}"


def _in_words(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def refuse_views(settings: Settings) -> None:
    """Raises UsageError where several views of an image are asked for that this action, which is no
    scoring, does not take."""
    if settings.eval_scales or settings.eval_flip:
        raise UsageError(
            f"argument --eval_scales, --eval_flip: {settings.action} sees each image once, at "
            "--image_size; leave them out"
        )


def scores_name(
    domain: Domain, settings: Settings, extra: str = "", *, checkpoint: Path | None = None
) -> str:
    """What the files of a validation are called by, such as `validation_cityscapes`; a
    `checkpoint` that is scored tells whether the size is its usual one."""
    suffix = scoring_suffix(domain, settings, checkpoint)
    return f"validation_{domain.value.lower()}{extra}{suffix}"


def scoring_suffix(domain: Domain, settings: Settings, checkpoint: Path | None) -> str:
    """What tells the files of a way of scoring from those of the usual one, such as
    `_128x256_target_statistics_flip`."""
    ways = unusual_scoring(domain, settings, checkpoint)
    return "".join(f"_{way}" for way in ways).replace(" ", "_")


def unusual_scoring(domain: Domain, settings: Settings, checkpoint: Path | None) -> list[str]:
    """In a few words each, what is not as usual in the scoring that is asked for."""
    size = [] if checkpoint is None else _other_size(domain, settings, checkpoint)
    return [*size, *["target statistics"] * (settings.bn_statistics == TARGET), *_views(settings)]


def _other_size(domain: Domain, settings: Settings, checkpoint: Path) -> list[str]:
    """The size where the command gives another one than that of the checkpoint's run."""
    if settings.eval_scales or settings.given.isdisjoint(SIZES):
        return []
    size = resize_size(domain, settings)
    usual = resize_size(domain, as_trained(replace(settings, given=frozenset()), checkpoint))
    return [] if size == usual else [_in_words(size)]


def _views(settings: Settings) -> list[str]:
    scales = "-".join(map(str, settings.eval_scales))
    return [f"scales {scales}"] * bool(scales) + ["flip"] * settings.eval_flip


def write_scores(
    run: RunFolder, name: str, record: Mapping[str, Any], evaluation: Evaluation
) -> None:
    """The confusion counts of every image as arrays, a picture of the evaluation's predictions,
    and a record as JSON, under one name; the JSON, by which a step is done, is written last."""
    names, counts = np.array(list(evaluation.images)), evaluation.image_counts()
    run.write_arrays(f"{name}.npz", names=names, counts=counts)
    title = f"{run.path.name}: {name}, {scored_on(record['validation'])}"
    picture = run.save_picture(f"{name}.png", panel(evaluation.rows, title=title))
    run.write_json(f"{name}.json", record)
    print(f"scores and pictures: {picture.with_suffix('.*')}")


def scoring_record(
    domain: Domain, settings: Settings, evaluation: Evaluation, statistics: str
) -> dict[str, Any]:
    """What traces a score to its making: data, sizes, statistics, machine, versions, settings."""
    device = resolve_device(settings.device)
    precision = arithmetic(settings.precision, device)
    return {
        "validation": {
            "domain": domain.value,
            "data_set": data_set(domain, settings),
            "images": len(evaluation.images),
            "fingerprint": fingerprint(repr(sorted(evaluation.images))),
            "image_size": None if settings.eval_scales else resize_size(domain, settings),
            "scales": settings.eval_scales,
            "flip": settings.eval_flip,
            "label_sizes": sorted(evaluation.label_sizes),
        },
        "bn_statistics": statistics,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "tf32": precision == TF32,
        "seed": settings.seed,
        "versions": versions(),
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings.to_json(),
    }
