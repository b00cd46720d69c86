"""TensorBoard beside a run's plain curves: its classes, what its method sees, runs compared."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch

from datasets.samples import Batch
from model.catalog import RECORDED
from trainings.engine.state import TrainState
from trainings.options import Settings
from utils.cli.options import ADAPTATION, flags_of
from utils.disk.run_folder import RunFolder
from utils.event_files import hparams
from utils.pictures.panels import side_by_side
from utils.text import dimensions

COMPARED = (
    *("action", "optimizer", "learning_rate", "batch_size", "num_epochs", "num_steps", "ohem"),
    *("aug_method", "image_size", *RECORDED, "seed"),
)
"""Settings that are columns of the table of runs, beside the flags of all methods."""

METRICS = ("val/mIoU", "val/pixel_accuracy")
"""Curves whose latest value is a column, too."""


def class_curves(class_iou: Mapping[str, float]) -> dict[str, float]:
    """Return the IoU by curve; a class that is absent (NaN) has no point."""
    return {f"val_IoU/{name}": iou for name, iou in class_iou.items() if not math.isnan(iou)}


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
        run.board.show("training", sheet, state.step)


def compared(settings: Settings) -> tuple[str, ...]:
    """Return the columns of the table of runs, which TensorBoard takes from one run for all."""
    of_methods = (
        field.name
        for field in flags_of(type(settings))
        if field.metadata["group"] == ADAPTATION and field.metadata["affects_result"]
    )
    return (*COMPARED, *of_methods)


def introduce(run: RunFolder, settings: Settings, adaptation: Collection[str]) -> None:
    """Write the settings that a new run is compared by; of adaptation's those its method uses."""
    everything = {name: _shown(value) for name, value in settings.to_json().items()}
    columns = {name: everything[name] for name in compared(settings)}
    used = settings.result_settings(adaptation)
    values = {n: value for n, value in columns.items() if used.get(n) is not None}
    start_of = settings.load_model_path or settings.pretrain_path
    weights = {"weights": start_of.name if start_of else "random"}
    table, *_ = hparams({**columns, **weights}, dict.fromkeys(METRICS))
    _, row, _ = hparams({**values, **weights}, {})
    for summary in (table, row):
        run.board.describe(summary, 0)


def conclude(run: RunFolder, step: int) -> None:
    """Say that the run has ended well."""
    *_, end = hparams({}, {})
    after = step + 1  # where this is all that a continued run writes, nothing before it is dropped
    run.board.describe(end, after)


def _shown(value: Any) -> Any:
    """Return a value as a column holds it: a number or words; 0 for a number that nobody gives."""
    if value is None:
        return 0
    if isinstance(value, list):
        return dimensions(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
