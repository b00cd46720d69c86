"""Validation: scores at the labels' own resolution, three lines, a table and pictures."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.catalog import scored_subsets
from datasets.data_set import Subset
from datasets.labels import CITYSCAPES, ClassTable
from datasets.loading.batches import scaled_batches
from datasets.samples import SampleDataset
from model.deployment.folding import folded
from model.ensemble import joint_scores
from model.network import Network
from trainings.options import Settings
from utils import processes
from utils.metrics import ConfusionMatrix
from utils.pictures.panels import PanelRow
from utils.spread import spread
from utils.text import in_percent, markdown
from utils.upsampling import upsampled_max, upsampled_mean_max
from utils.utils import autocast, progress, resolve_precision

PANEL_ROWS = 4
TABLE_COLUMNS = 3
ABSENT = "absent"
SUBSETS = "subset_mIoU"


class Evaluation(NamedTuple):
    """Scores of a network on a split, with a few of its predictions.

    `images` are the confusion counts of each image by name, `matrix` their sum.
    """

    classes: ClassTable
    subsets: tuple[Subset, ...]

    matrix: ConfusionMatrix
    rows: list[PanelRow]
    images: dict[str, ConfusionMatrix]
    label_sizes: set[tuple[int, ...]]

    @classmethod
    def empty(
        cls, classes: ClassTable = CITYSCAPES, subsets: tuple[Subset, ...] = ()
    ) -> "Evaluation":
        return cls(classes, subsets, ConfusionMatrix(len(classes)), [], {}, set())

    def update(self, name: str, prediction: Tensor, label: Tensor) -> None:
        image = ConfusionMatrix(len(self.classes))
        image.update(prediction, label)
        self.matrix.counts += image.counts
        self.images[name] = image
        self.label_sizes.add(tuple(label.shape))

    def add(self, other: "Evaluation") -> None:
        """Add what was found on other samples."""
        self.matrix.counts += other.matrix.counts
        self.rows.extend(other.rows)
        self.images.update(other.images)
        self.label_sizes.update(other.label_sizes)

    def sort(self, names: Sequence[str]) -> None:
        """Bring the samples into the order of these names."""
        place = {name: number for number, name in enumerate(names)}
        self.rows.sort(key=lambda row: place[row.name])
        images = sorted(self.images.items(), key=lambda item: place[item[0]])
        self.images.clear()
        self.images.update(images)

    @property
    def image_accuracy(self) -> dict[str, float]:
        """Pixel accuracy of each image by name, 0 to 1; NaN without a valid pixel."""
        return {name: image.pixel_accuracy() for name, image in self.images.items()}

    def image_counts(self) -> np.ndarray:
        """Return the confusion counts of the images in their order, int32 [images, C, C]."""
        return torch.stack([image.counts for image in self.images.values()]).int().numpy()

    def scores(self) -> dict[str, Any]:
        """Return pixel accuracy, mIoU and IoU per class, 0 to 1, NaN for an absent class; and over
        how many classes the mIoU is a mean, with how many of them are predicted but in no label.

        `SUBSETS` are the means over fewer classes by their titles, where there are any.
        """
        iou = self.matrix.class_iou()
        in_labels = self.matrix.counts.any(1)
        classes = int((~np.isnan(iou)).sum())
        class_iou = dict(zip(self.classes.names, iou.tolist(), strict=True))
        subsets = {
            one.title: mean_of([class_iou[name] for name in one.names]) for one in self.subsets
        }
        return {
            "pixel_accuracy": self.matrix.pixel_accuracy(),
            "mIoU": self.matrix.mean_iou(),
            **({SUBSETS: subsets} if subsets else {}),
            "classes": classes,
            "classes_in_no_label": classes - int(in_labels.sum()),
            "class_IoU": class_iou,
        }


ScoreMaps = Callable[[Tensor], Sequence[Sequence[Tensor]]]
"""Images [N, 3, H, W] -> for each of several predictors the logits [N, C, h, w] of its networks:
one, or the members of an ensemble."""


class Views(NamedTuple):
    """Scores [N, C, h, w] that one predictor gives each view of a batch, mirrored back. They are
    logits, unless an ensemble has averaged probabilities."""

    scores: list[Tensor]
    are_logits: bool

    def prediction(self, index: int, size: Sequence[int]) -> Tensor:
        """Return the classes of an image, uint8 [H, W]: scores are enlarged to this size first, as
        probabilities where views are to be averaged."""
        maps = [scores[index] for scores in self.scores]
        if len(maps) == 1:
            _, classes = upsampled_max(maps[0], size)
            return classes
        return upsampled_mean_max(maps, size, softmax=self.are_logits)


def evaluate(
    network: Network, samples: SampleDataset, settings: Settings, device: torch.device
) -> Evaluation:
    """Score the main head, in evaluation mode, on every sample; the network stays as it is."""
    scored = folded(network)
    (evaluation,) = evaluate_each(
        lambda images: [[scored.main_logits(images)]], samples, settings, device
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
    """Score several predictors on every sample in one pass over the data, which all processes
    share; each process gets the whole result.

    Their networks are in evaluation mode. Scores are upsampled to the label's own size before the
    argmax; those of several views, of `--eval_scales` and `--eval_flip`, are averaged there, as
    STDC's official evaluation does. `pictured` are the places of the samples whose predictions are
    kept, a few by default.
    """
    if pictured is None:
        pictured = spread(len(samples), PANEL_ROWS)
    precision = resolve_precision(settings.precision, device)
    places = _own_places(len(samples), settings.batch_size)
    empty = partial(Evaluation.empty, settings.class_table, scored_subsets(settings))
    batches = scaled_batches(
        samples.subset(places),
        settings.eval_scales,
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        device=device,
    )
    evaluations: list[Evaluation] = []
    remaining = iter(places)
    with progress(None, "validation", total=len(places), unit="image") as bar:
        for images, labels, names in batches:
            with autocast(device, precision):
                seen = _views(score_maps, images, mirrored=settings.eval_flip)
            evaluations = evaluations or [empty() for _ in seen]
            for index, (image, label, name) in enumerate(
                zip(images[0], labels, names, strict=True)
            ):
                keep = next(remaining) in pictured
                for evaluation, views in zip(evaluations, seen, strict=True):
                    prediction = views.prediction(index, label.shape)
                    evaluation.update(name, prediction, label)
                    if keep:
                        evaluation.rows.append(_panel_row(name, image, label, prediction))
                bar.update()
    return _merged(evaluations, samples)


def _own_places(samples: int, batch_size: int) -> list[int]:
    """Return the places of this process's samples: whole batches, so that each is what one process
    sees."""
    starts = range(0, samples, batch_size)
    batches = [range(start, min(start + batch_size, samples)) for start in starts]
    return [place for batch in processes.share(batches) for place in batch]


def _merged(evaluations: list[Evaluation], samples: SampleDataset) -> list[Evaluation]:
    """Return the evaluations over the samples of all processes."""
    if processes.count() == 1:
        return evaluations
    parts = [part for part in processes.gathered(evaluations) if part]
    names = [files.name for files in samples.files]
    merged = [Evaluation.empty(one.classes, one.subsets) for one in parts[0]]
    for number, evaluation in enumerate(merged):
        for part in parts:
            evaluation.add(part[number])
        evaluation.sort(names)
    return merged


def _views(score_maps: ScoreMaps, images: Sequence[Tensor], *, mirrored: bool) -> list[Views]:
    """Return what each predictor sees in images at several scales, each also mirrored if asked."""
    logits = []
    for scaled in images:
        logits.append(score_maps(scaled))
        if mirrored:
            back = [[one.flip(-1) for one in members] for members in score_maps(scaled.flip(-1))]
            logits.append(back)
    return [
        Views([joint_scores(members) for members in views], are_logits=len(views[0]) == 1)
        for views in zip(*logits, strict=True)
    ]


def _panel_row(name: str, image: Tensor, label: Tensor, prediction: Tensor) -> PanelRow:
    return PanelRow(
        name,
        image.permute(1, 2, 0).cpu().numpy(),
        label.cpu().numpy(),
        prediction.cpu().numpy(),
    )


def mean_of(shares: Iterable[float]) -> float:
    """Return the mean of the shares that are not NaN; NaN where all are."""
    present = [share for share in shares if not np.isnan(share)]
    return float(np.mean(present)) if present else float("nan")


def print_scores(scores: dict[str, Any]) -> None:
    """Print the users' three lines, the number of classes in the mean, and the classes by name."""
    iou = ["nan" if value is None else f"{value:.3f}" for value in scores["class_IoU"].values()]
    print(f"precision per pixel for test: {_number(scores['pixel_accuracy'])}")
    print(f"mIoU for validation: {_number(scores['mIoU'])}")
    print(f"mIoU per class: [{' '.join(iou)}]")
    print(f"mIoU is the mean over {_classes_in_words(scores)}")
    for title, value in scores.get(SUBSETS, {}).items():
        print(f"mIoU of {title}: {_number(value)}")
    print(class_table(scores["class_IoU"]), flush=True)


def _classes_in_words(scores: Mapping[str, Any]) -> str:
    """Return how many classes an mIoU averages over; records of older releases lack the number."""
    count = len(averaged_classes(scores["class_IoU"]))
    in_no_label = scores.get("classes_in_no_label", 0)
    predicted = f"; {in_no_label} of them with no labelled pixel, so IoU 0" if in_no_label else ""
    return f"{count} {'class' if count == 1 else 'classes'}{predicted}"


def averaged_classes(class_iou: Mapping[str, float | None]) -> frozenset[str]:
    """Return the classes that an mIoU averages over: those in a label or a prediction."""
    return frozenset(name for name, iou in class_iou.items() if _percent(iou) != ABSENT)


def different_classes(several: Iterable[Mapping[str, float | None]]) -> str:
    """Return a sentence where the mIoU of several are means over different classes, else nothing.

    Args:
        several: the IoU of each class, for each of them.
    """
    averaged = {averaged_classes(class_iou) for class_iou in several}
    if len(averaged) < 2:
        return ""
    counts = sorted({len(classes) for classes in averaged})
    over = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"these mIoU are means over different classes ({over} of them): compare IoU per class"


def class_table(class_iou: dict[str, float | None]) -> str:
    """Return the IoU in % by class name, several classes a line; an absent class says so."""
    cells = [f"{name:>14} {_percent(iou):>7}" for name, iou in class_iou.items()]
    lines = -(-len(cells) // TABLE_COLUMNS)
    return "\n".join("  ".join(cells[line::lines]) for line in range(lines))


def scored_on(validation: Mapping[str, Any]) -> str:
    """Return the data set and the number of images that a record's validation names, in words."""
    layout = f"data in the layout of {validation['domain']} (which is not recorded)"
    count = validation["images"]
    images = "1 validation image" if count == 1 else f"{count} validation images"
    return f"{validation.get('data_set', layout)}, {images}"


def scores_table(
    rows: Iterable[tuple[str, Mapping[str, Any]]], validation: Mapping[str, Any]
) -> str:
    """Return the scores of several by their titles, in % with two decimals, as a table in Markdown
    that names the data of the validation; under it a warning where their mIoU average over
    different classes."""
    rows = list(rows)
    subsets = list(dict.fromkeys(name for _, scores in rows for name in scores.get(SUBSETS, ())))
    head = ("accuracy %", "mIoU %", *(f"mIoU of {name} %" for name in subsets))
    table = [[scored_on(validation), *head]]
    for title, scores in rows:
        of_subsets = (scores.get(SUBSETS, {}).get(name) for name in subsets)
        shares = (scores["pixel_accuracy"], scores["mIoU"], *of_subsets)
        table.append([title, *map(in_percent, shares)])
    warning = different_classes(scores["class_IoU"] for _, scores in rows)
    numbers = range(1, len(table[0]))
    return markdown(table, numbers=numbers) + (f"warning: {warning}\n" if warning else "")


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None or np.isnan(value) else f"{in_percent(value, 1)} %"
