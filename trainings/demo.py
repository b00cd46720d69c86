"""The main job on Toy City, and the action that draws it."""

import csv
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets.toy_city import make_toy_city
from trainings.experiment import Experiment
from trainings.scoring import load_checkpoint
from trainings.training import train
from trainings.loaders import Domain
from utils.pictures import panel
from utils.run_folder import BEST, LATEST, RunFolder
from utils.settings import Settings

LOOKS = {Domain.GTA5: "synthetic look", Domain.CITYSCAPES: "real look"}
COLUMNS = ("Trained on", "Validated on", "Accuracy % (last)", "mIoU % (last)", "mIoU % (best)")

SELECTION = "last: the last epoch; best: the epoch with the highest mIoU on the synthetic look"


def defaults(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that train on Toy City in minutes on a CPU, given the explicit flags."""
    toy_root = explicit.get("toy_root", Settings.toy_root)
    image_size = explicit.get("image_size", explicit.get("toy_size", Settings.toy_size))
    return {
        "gta5_root": toy_root / "GTA5",
        "cityscapes_root": toy_root / "Cityscapes",
        "image_size": image_size,
        "source_resize": image_size,
        "optimizer": "adamw",
        "batch_size": 4,
        "num_epochs": 15,
        "validation_step": 5,
    }


def make_toy_data(settings: Settings) -> None:
    """Draws Toy City under `--toy_root`, once."""
    make_toy_city(
        settings.toy_root,
        train=settings.toy_train,
        val=settings.toy_val,
        size=settings.toy_size,
        seed=settings.seed,
    )


def demo(source_only: Experiment, settings: Settings) -> None:
    """Trains on the synthetic domain, scores on both, writes a table and pictures."""
    settings = dataclasses.replace(settings, save_model_path=settings.save_model_path / "demo")
    print("demo 1/3: Toy City", flush=True)
    make_toy_data(settings)
    print("demo 2/3: training on the synthetic domain", flush=True)
    train(source_only, settings)
    print("demo 3/3: scoring on both domains", flush=True)
    run = settings.save_model_path / settings.run_name(source_only.stem)
    trained_on = f"Toy City, {LOOKS[source_only.source]}"
    rows, pictures = [], []
    for domain, look in LOOKS.items():
        last, best = (evaluate_checkpoint(run / name, domain, settings) for name in (LATEST, BEST))
        scores = (last.matrix.pixel_accuracy(), last.matrix.mean_iou(), best.matrix.mean_iou())
        rows.append((trained_on, f"Toy City, {look}", *(f"{100 * score:.1f}" for score in scores)))
        pictures.append(panel(last.rows, title=f"{trained_on}: seen on the {look}"))
    _write_results(RunFolder(settings.save_model_path), rows, np.concatenate(pictures))


def _write_results(folder: RunFolder, rows: list[tuple[str, ...]], picture: np.ndarray) -> None:
    table = f"{_markdown([COLUMNS, *rows])}\n{SELECTION}\n"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    folder.write_text("results.md", table)
    folder.write_text("results.csv", text.getvalue())
    print(f"\n{table}\npictures: {folder.save_picture('demo.png', picture)}")


def _markdown(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
