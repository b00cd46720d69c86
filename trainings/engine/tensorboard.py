"""TensorBoard beside a run's plain curves: its classes, what its method sees, runs compared."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from datasets.samples import Batch
from model.catalog import RECORDED
from trainings.engine.state import TrainState
from trainings.options import Settings
from utils.disk.run_folder import RunFolder
from utils.event_files import hparams
from utils.pictures.panels import side_by_side
from utils.text import dimensions

COMPARED = (
    *("action", "optimizer", "learning_rate", "batch_size", "num_epochs", "aug_method", "ohem"),
    *("image_size", *RECORDED, "seed", "fda_beta", "ent_weight", "ssl_round", "adv_weight"),
    "discriminator",
)
"""Settings that are columns of the table of runs; TensorBoard takes them from one run for all."""

METRICS = ("val/mIoU", "val/pixel_accuracy")
"""Curves whose latest value is a column, too."""


def class_curves(class_iou: Mapping[str, float | None]) -> dict[str, float]:
    """IoU by curve; a class that is absent (NaN) has no point."""
    return {f"val_IoU/{name}": iou for name, iou in class_iou.items() if iou == iou}


def show_pictures(batch: Batch, state: TrainState, run: RunFolder, *, on: str) -> None:
    """Draw the pictures that the method makes of a batch, at the end of rounds 1, 2, 4, 8 and so
    on: they differ by the images more than by the time. `on` names the data sets."""
    number = state.rounds + 1
    if not run.writes or number & (number - 1):
        return
    with torch.no_grad():
        pictures = state.method.pictures(batch) | state.method.detail_pictures(batch)
    if pictures:
        arrays = {
            name: image.clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
            for name, image in pictures.items()
        }
        sheet = side_by_side(arrays, title=f"{run.path.name}, epoch {state.epoch}: {on}")
        run.show("training", sheet, state.step)


def introduce(run: RunFolder, settings: Settings, adaptation: Collection[str]) -> None:
    """Writes the settings that a new run is compared by; of adaptation's those its method uses."""
    everything = {name: _shown(value) for name, value in settings.to_json().items()}
    columns = {name: everything[name] for name in COMPARED}
    used = settings.result_settings(adaptation)
    values = {name: value for name, value in columns.items() if name in used}
    start_of = settings.load_model_path or settings.pretrain_path
    weights = {"weights": start_of.name if start_of else "random"}
    table, *_ = hparams({**columns, **weights}, dict.fromkeys(METRICS))
    _, row, _ = hparams({**values, **weights}, {})
    for summary in (table, row):
        run.describe(summary, 0)


def conclude(run: RunFolder, step: int) -> None:
    """Says that the run has ended well."""
    *_, end = hparams({}, {})
    after = step + 1  # where this is all that a continued run writes, nothing before it is dropped
    run.describe(end, after)


def _shown(value: Any) -> Any:
    """As a column holds it: a number or words."""
    if isinstance(value, list):
        return dimensions(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
