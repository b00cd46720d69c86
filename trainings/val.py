"""Validation: scores at the labels' own resolution, three lines, a table and pictures."""

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.labels import CLASS_NAMES
from datasets.samples import SampleDataset
from model.folding import folded
from model.model_stages import BiSeNet
from trainings.loaders import validation_batches
from utils.metrics import ConfusionMatrix
from utils.pictures import PanelRow
from utils.settings import Settings
from utils.upsampling import upsampled_max
from utils.utils import autocast, progress, resolve_precision

PANEL_ROWS = 4
TABLE_COLUMNS = 3


class Evaluation(NamedTuple):
    """Scores of a network on a split, with a few of its predictions.

    `images` are the confusion counts of each image by name, `matrix` their sum.
    """

    matrix: ConfusionMatrix
    rows: list[PanelRow]
    images: dict[str, ConfusionMatrix]
    label_sizes: set[tuple[int, int]]

    @classmethod
    def empty(cls) -> "Evaluation":
        return cls(ConfusionMatrix(), [], {}, set())

    def update(self, name: str, prediction: Tensor, label: Tensor) -> None:
        image = ConfusionMatrix()
        image.update(prediction, label)
        self.matrix.counts += image.counts
        self.images[name] = image
        self.label_sizes.add(tuple(label.shape))

    @property
    def image_accuracy(self) -> dict[str, float]:
        """Pixel accuracy of each image by name, 0 to 1; NaN without a valid pixel."""
        return {name: image.pixel_accuracy() for name, image in self.images.items()}

    def image_counts(self) -> np.ndarray:
        """Confusion counts of the images in their order, int32 [images, C, C]."""
        return torch.stack([image.counts for image in self.images.values()]).int().numpy()

    def scores(self) -> dict[str, Any]:
        """Pixel accuracy, mIoU and IoU per class, 0 to 1; NaN for an absent class."""
        iou = self.matrix.class_iou()
        return {
            "pixel_accuracy": self.matrix.pixel_accuracy(),
            "mIoU": self.matrix.mean_iou(),
            "class_IoU": dict(zip(CLASS_NAMES, iou.tolist(), strict=True)),
        }


ScoreMaps = Callable[[Tensor], Sequence[Tensor]]
"""Images [N, 3, H, W] -> for each of several predictors its scores of the classes [N, C, h, w],
logits or probabilities, to be upsampled before the argmax."""


def evaluate(
    network: BiSeNet, samples: SampleDataset, settings: Settings, device: torch.device
) -> Evaluation:
    """Scores the main head, in evaluation mode, on every sample; the network stays as it is."""
    scored = folded(network)
    (evaluation,) = evaluate_each(
        lambda images: [scored.main_logits(images)], samples, settings, device
    )
    return evaluation


@torch.inference_mode()
def evaluate_each(
    score_maps: ScoreMaps,
    samples: SampleDataset,
    settings: Settings,
    device: torch.device,
    *,
    pictured: Collection[int] | None = None,
) -> list[Evaluation]:
    """Scores several predictors on every sample, in one pass over the data.

    Their networks are in evaluation mode. Scores are upsampled to the label's own size before the
    argmax. `pictured` are the places of the samples whose predictions are kept, a few by default.
    """
    if pictured is None:
        pictured = np.linspace(0, len(samples) - 1, PANEL_ROWS).round().astype(int).tolist()
    precision = resolve_precision(settings.precision, device)
    batches = validation_batches(
        samples,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        device=device,
    )
    evaluations: list[Evaluation] = []
    position = itertools.count()
    with progress(None, "validation", total=len(samples), unit="image") as bar:
        for batch in batches:
            with autocast(device, precision):
                maps = score_maps(batch.image)
            evaluations = evaluations or [Evaluation.empty() for _ in maps]
            for index, (image, label, name) in enumerate(
                zip(batch.image, batch.label, batch.name, strict=True)
            ):
                keep = next(position) in pictured
                for evaluation, scores in zip(evaluations, maps, strict=True):
                    _, prediction = upsampled_max(scores[index], label.shape)
                    evaluation.update(name, prediction, label)
                    if keep:
                        evaluation.rows.append(_panel_row(name, image, label, prediction))
                bar.update()
    return evaluations


def _panel_row(name: str, image: Tensor, label: Tensor, prediction: Tensor) -> PanelRow:
    return PanelRow(
        name,
        image.permute(1, 2, 0).cpu().numpy(),
        label.cpu().numpy(),
        prediction.cpu().numpy(),
    )


def print_scores(scores: dict[str, Any]) -> None:
    """The users' three lines, then the classes by name."""
    iou = ["nan" if value is None else f"{value:.3f}" for value in scores["class_IoU"].values()]
    print(f"precision per pixel for test: {_number(scores['pixel_accuracy'])}")
    print(f"mIoU for validation: {_number(scores['mIoU'])}")
    print(f"mIoU per class: [{' '.join(iou)}]")
    print(class_table(scores["class_IoU"]), flush=True)


def class_table(class_iou: dict[str, float | None]) -> str:
    """IoU in % by class name, several classes a line; an absent class says so."""
    cells = [f"{name:>14} {_percent(iou):>7}" for name, iou in class_iou.items()]
    lines = -(-len(cells) // TABLE_COLUMNS)
    return "\n".join("  ".join(cells[line::lines]) for line in range(lines))


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "absent" if value is None or np.isnan(value) else f"{100 * value:.1f} %"
