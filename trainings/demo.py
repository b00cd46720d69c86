"""Every method on Toy City, side by side: tables, a chart and a sheet of predictions."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datasets.labels import CLASS_NAMES
from datasets.toy_city import make_toy_city
from trainings.batch_norm import TARGET, TRAINING
from trainings.experiment import Experiment
from trainings.loaders import Domain, validation_samples
from trainings.mbt import BETAS
from trainings.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.pseudo_labels import generate_pseudo_labels
from trainings.training import train
from trainings.val import Evaluation, evaluate_each
from trainings.visualize import comparison_sheet
from utils import processes
from utils.pictures import bar_chart
from utils.run_folder import LATEST, SCORES, RunFolder
from utils.settings import Settings
from utils.transforms import augmentation_codes
from utils.utils import markdown, resolve_device

AUGMENTATION = "C-S-HF"
"""Of the second source-only training, unless `--aug_method` names another; the rest has none."""

SELF_TRAINING_BETA = 0.05
COLUMNS = (
    "Config",
    "Accuracy %",
    "mIoU %",
    "Accuracy % (target statistics)",
    "mIoU % (target statistics)",
    "Train time per epoch (s)",
)
NOTE = (
    "The last epoch of each training, on the real look's validation split. Target statistics: the "
    "same weights with batch-norm statistics re-estimated on the real look's training images, "
    "without labels (AdaBN)."
)
SHEET_ROWS = 3


class Methods(NamedTuple):
    """The experiments that the demo runs."""

    source_only: Experiment
    ada: Experiment
    fda: Experiment
    ssl_fda: Experiment
    upper_bound: Experiment


class Entry(NamedTuple):
    """A line of the table: what it is called, and the training it comes from."""

    title: str
    experiment: Experiment
    settings: Settings

    @property
    def folder(self) -> Path:
        return self.settings.save_model_path / self.settings.run_name(self.experiment.stem)


def defaults(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that train on Toy City in minutes on a CPU, given the explicit flags."""
    toy_root = explicit.get("toy_root", Settings.toy_root)
    image_size = explicit.get("image_size", explicit.get("toy_size", Settings.toy_size))
    chosen = {"optimizer", "config"} & set(explicit)
    recipe = {} if chosen else {"optimizer": "adamw", "learning_rate": 2e-3}
    return {
        **recipe,
        "gta5_root": toy_root / "GTA5",
        "cityscapes_root": toy_root / "Cityscapes",
        "image_size": image_size,
        "source_resize": image_size,
        "base_width": 32,
        "batch_size": 4,
        "num_epochs": 15,
        "validation_step": 15,
        "discriminator": "light",
        "select": "last",
    }


def make_toy_data(settings: Settings) -> None:
    """Draws Toy City under `--toy_root`, once."""
    if processes.is_first():
        make_toy_city(
            settings.toy_root,
            train=settings.toy_train,
            val=settings.toy_val,
            size=settings.toy_size,
            seed=settings.seed,
        )
    processes.wait_for_all()
    print(
        f"Toy City: --gta5_root {settings.toy_root / 'GTA5'} "
        f"--cityscapes_root {settings.toy_root / 'Cityscapes'}",
        flush=True,
    )


def demo(methods: Methods, settings: Settings) -> None:
    """Runs every method on Toy City, scores all on its real look, writes tables and pictures."""
    folder = settings.save_model_path / (settings.save_keyword or "demo")
    settings = replace(settings, save_model_path=folder, save_keyword=None, ssl_round=1)
    before, self_training, after = _plan(methods, settings)
    steps = _Steps(len(before) + len(after) + len(self_training) + 3)
    steps.announce("Toy City")
    make_toy_data(settings)
    for entry in before:
        steps.announce(f"training: {entry.title}")
        train(entry.experiment, entry.settings)
    steps.announce("pseudo-labels")
    generate_pseudo_labels(methods.fda, methods.ssl_fda, settings)
    for entry in (*self_training, *after):
        steps.announce(f"training: {entry.title}")
        train(entry.experiment, entry.settings)
    steps.announce("scores and pictures")
    _report([*before, *self_training, *after], methods, settings)


class _Steps:
    """Says which step of how many begins, and how long it has been."""

    def __init__(self, total: int):
        self.total, self.done, self.start = total, 0, time.perf_counter()

    def announce(self, what: str) -> None:
        self.done += 1
        seconds = round(time.perf_counter() - self.start)
        print(
            f"\ndemo {self.done}/{self.total}, after {seconds // 60} min {seconds % 60:02d} s: "
            f"{what}",
            flush=True,
        )


def _plan(methods: Methods, settings: Settings) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Trainings before the pseudo-labels, on them, and the upper bound, in the table's order."""

    def entry(title: str, experiment: Experiment, **changes: Any) -> Entry:
        return Entry(title, experiment, replace(settings, action=experiment.action, **changes))

    augmentation = settings.aug_method if augmentation_codes(settings.aug_method) else AUGMENTATION
    settings = replace(settings, aug_method="")
    before = [
        entry("Source-only", methods.source_only),
        entry(f"Source-only, {augmentation}", methods.source_only, aug_method=augmentation),
        entry("ADA", methods.ada),
        *(entry(f"FDA {beta}", methods.fda, fda_beta=beta) for beta in BETAS),
    ]
    beta = SELF_TRAINING_BETA
    self_training = [entry(f"SSL-FDA {beta}", methods.ssl_fda, fda_beta=beta)]
    return before, self_training, [entry("Supervised on the target", methods.upper_bound)]


def _report(entries: Sequence[Entry], methods: Methods, settings: Settings) -> None:
    """Scores all on the target with both kinds of statistics; writes the tables and pictures."""
    predictors = _predictors(entries, methods)
    samples = validation_samples(Domain.CITYSCAPES, settings)
    device = resolve_device(settings.device)
    loaded, evaluations = {}, {}
    for statistics in (TRAINING, TARGET):
        chosen = replace(settings, bn_statistics=statistics)
        loaded[statistics] = load_predictors(predictors, Domain.CITYSCAPES, chosen)
        evaluations[statistics] = evaluate_each(
            loaded[statistics], samples, settings, device, pictured=()
        )
    seconds = {entry.title: _epoch_seconds(entry) for entry in entries}
    rows = [_shift_row(entries[0])]
    for predictor, *both in zip(
        predictors, evaluations[TRAINING], evaluations[TARGET], strict=True
    ):
        scores = [cell for evaluation in both for cell in _cells(evaluation)]
        rows.append((predictor.title, *scores, seconds.get(predictor.title, "")))
    folder = RunFolder(settings.save_model_path)
    table = f"{markdown([COLUMNS, *rows])}\n{NOTE}\n\n{_recipe(settings, len(samples))}\n"
    folder.write_text("results.md", table)
    folder.write_text("results.csv", _csv([COLUMNS, *rows]))
    _write_class_iou(folder, predictors, evaluations[TRAINING])
    sheet = comparison_sheet(_shown(loaded), _places(len(samples)), samples, settings)
    folder.save_picture("demo.png", sheet)
    print(f"\n{table}\ntables and pictures: {folder.path}/{{results,class_iou,demo}}.*")


def _shown(loaded: Mapping[str, LoadedPredictors]) -> list[LoadedPredictors]:
    """All predictors, and beside source-only the same with the target's statistics."""
    source_only, *_ = loaded[TRAINING].predictors
    adapted = source_only._replace(title=f"{source_only.title}, target statistics")
    return [
        loaded[TRAINING].only(0),
        LoadedPredictors([adapted], loaded[TARGET].networks),
        loaded[TRAINING].only(*range(1, len(loaded[TRAINING].predictors))),
    ]


def _places(images: int) -> list[int]:
    return [round(part * (images - 1) / (SHEET_ROWS - 1)) for part in range(SHEET_ROWS)]


def _recipe(settings: Settings, images: int) -> str:
    """What the numbers of the table depend on."""
    return (
        f"{settings.backbone} of width {settings.base_width}, {settings.toy_train} training scenes "
        f"a domain, {images} validation scenes, {settings.image_size[0]}x{settings.image_size[1]}, "
        f"{settings.optimizer} {settings.learning_rate:g}, batch {settings.batch_size}, "
        f"{settings.num_epochs} epochs, discriminator {settings.discriminator}, seed "
        f"{settings.seed}, {torch.get_num_threads()} threads."
    )


def _epoch_seconds(entry: Entry) -> str:
    return f"{RunFolder(entry.folder).read_json(SCORES)['mean_epoch_seconds']:.1f}"


def _predictors(entries: Sequence[Entry], methods: Methods) -> list[Predictor]:
    """Every training's network, and MBT after the networks it consists of."""
    predictors = [Predictor(entry.title, (entry.folder / LATEST,)) for entry in entries]
    fda = [place for place, entry in enumerate(entries) if entry.experiment is methods.fda]
    members = tuple(predictors[place].checkpoints[0] for place in fda)
    return [*predictors[: fda[-1] + 1], Predictor("MBT", members), *predictors[fda[-1] + 1 :]]


def _shift_row(source_only: Entry) -> tuple[str, ...]:
    """What the source-only network scores where it was trained: the shift is the fall from it."""
    scores = RunFolder(source_only.folder).read_json(SCORES)["last"]
    cells = (_percent(scores["pixel_accuracy"]), _percent(scores["mIoU"]))
    return (f"{source_only.title}, on the synthetic look", *cells, "", "", "")


def _cells(evaluation: Evaluation) -> tuple[str, str]:
    matrix = evaluation.matrix
    return _percent(matrix.pixel_accuracy()), _percent(matrix.mean_iou())


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _write_class_iou(
    folder: RunFolder, predictors: Sequence[Predictor], evaluations: Sequence[Evaluation]
) -> None:
    iou = {
        predictor.title: evaluation.matrix.class_iou().tolist()
        for predictor, evaluation in zip(predictors, evaluations, strict=True)
    }
    rows = [
        ("Config, IoU %", *CLASS_NAMES),
        *((title, *(f"{100 * value:.1f}" for value in values)) for title, values in iou.items()),
    ]
    folder.write_text("class_iou.csv", _csv(rows))
    chart = bar_chart(iou, CLASS_NAMES, title="IoU per class on the real look, in %")
    folder.save_picture("class_iou.png", chart)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
