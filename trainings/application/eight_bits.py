"""`export --int8`: calibrate on the target's training images, compare with the float network."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.catalog import data_set, has_labels, root_of
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples, validation_samples
from datasets.samples import SampleDataset
from model.deployment.formats import Parts, Row
from model.deployment.quantised import Goal, class_map
from model.deployment.runtimes import AS_IT_RUNS, Runtime
from model.network import WHITE
from trainings.application.options import DeploymentOptions
from trainings.engine.timing import timed
from trainings.options import Settings
from utils.errors import UserError
from utils.metrics import ConfusionMatrix
from utils.spread import spread
from utils.text import dimensions, first_few, in_percent
from utils.utils import progress

MOST, FEWEST = 256, 8
"""Training images that the ranges of activations are measured on: at most and at least."""

SEARCHED = 16
"""Images of the comparison that choose the layers in float."""

COMPARED, EVERY = 100, 5
"""Without labels every fifth training image is kept for the comparison, at most so many."""

AT_LEAST, AT_MOST, SECONDS, WARM_UP = 5, 30, 2.0, 3
"""Runs that are timed: at least, at most, within the seconds; and runs before them."""


@dataclass(frozen=True)
class Images:
    """Images of the target, read one after another as uint8 arrays [1, 3, H, W].

    Attributes:
        samples: the images, with labels if they are known.
        origin: what they are, in words.
        labelled: whether the labels are known.
    """

    samples: SampleDataset
    origin: str
    labelled: bool = False

    def __str__(self) -> str:
        return f"{len(self)} {self.origin}"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> np.ndarray:
        return self.samples[0, place].image[None].numpy()

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))


def calibration(settings: Settings) -> Images:
    """Return the training images of the target that ranges of activations are measured on.

    Raise UserError where there are too few.
    """
    samples = unlabelled_samples(Role.TARGET, settings, whole=True)
    places = list(range(len(samples)))
    if not has_labels(Role.TARGET, "val", settings):
        del places[::EVERY]
    if len(places) < FEWEST:
        raise UserError(
            f"--int8 calibrates on {FEWEST} training images of the target or more, and "
            f"{root_of(Role.TARGET, settings)} has {len(places)} for that: add images, which need "
            "no labels, or export without --int8"
        )
    chosen = samples.subset(places[place] for place in spread(len(places), MOST))
    return Images(chosen, f"training images of {data_set(Role.TARGET, settings)}")


def in_8_bits(
    row: Row, model: bytes, parts: Parts, images: Images, settings: Settings
) -> tuple[Parts, float]:
    """Quantise a network for a runtime and compare it with the float network; print the result.

    Args:
        row: the runtime.
        model: the ONNX file of the float network.
        parts: the parts of the float network's file for that runtime.
        images: what to calibrate on.

    Returns:
        The parts of the file in 8 bits, and the share of pixels that keep their class, 0 to 1.
    """
    assert row.in_8_bits
    unseen = _unseen(settings)
    print(f"8 bits: calibrating on {images}, which takes minutes", flush=True)
    as_float = row.run(parts, "fp32")
    some = [unseen[place] for place in spread(len(unseen), SEARCHED)]
    minimum = DeploymentOptions.of(settings).int8_min_agreement
    goal = Goal(some, [class_map(as_float(image)) for image in some], minimum)
    quantised = row.in_8_bits(model, images, goal)
    kept = quantised.layers - len(quantised.in_float)
    print(
        f"8 bits: {kept} of {quantised.layers} convolutions; in float: "
        f"{first_few(quantised.in_float)}"
    )
    if not kept:
        raise UserError(
            f"no convolution could stay in 8 bits at --int8_min_agreement {minimum:g}: ask for "
            "less, or export without --int8"
        )
    small = row.run(quantised.parts, AS_IT_RUNS)
    agreement = _compared(as_float, small, unseen, len(settings.class_table))
    image = np.random.default_rng(0).integers(0, WHITE + 1, (1, 3, *settings.image_size), np.uint8)
    times = [_milliseconds(run, image) for run in (small, row.run(parts, AS_IT_RUNS))]
    print(
        f"{row.title} at {dimensions(settings.image_size)}: {times[0]:.1f} ms in 8 bits, "
        f"{times[1]:.1f} ms in its fastest float"
    )
    return quantised.parts, agreement


def _unseen(settings: Settings) -> Images:
    """Return the images of the comparison: of the validation split, or, if that has no labels,
    training images that are not calibrated on."""
    name = data_set(Role.TARGET, settings)
    if has_labels(Role.TARGET, "val", settings):
        return Images(
            validation_samples(Role.TARGET, settings), f"validation images of {name}", labelled=True
        )
    samples = unlabelled_samples(Role.TARGET, settings, whole=True)
    places = range(0, len(samples), EVERY)
    chosen = samples.subset(places[place] for place in spread(len(places), COMPARED))
    return Images(chosen, f"images of {name} that were not calibrated on")


def _compared(as_float: Runtime, small: Runtime, images: Images, classes: int) -> float:
    """Compare class maps at the network's size, and score them, enlarged to the labels' size; print
    what is found. Return the share of an image's pixels that have the same class, as a mean over
    images."""
    same, matrices = [], (ConfusionMatrix(classes), ConfusionMatrix(classes))
    with progress(range(len(images)), "8 bits", unit="image") as bar:
        for place in bar:
            sample = images.samples[0, place]
            image = sample.image[None].numpy()
            maps = [class_map(run(image)).astype(np.uint8) for run in (small, as_float)]
            same.append((maps[0] == maps[1]).mean())
            for matrix, predicted in zip(matrices, maps, strict=True):
                if images.labelled:
                    matrix.update(_enlarged(predicted, sample.label), sample.label)
    agreement = float(np.mean(same))
    scores = "there are no labels to measure an mIoU with"
    if images.labelled:
        in_8_bits, in_float = (in_percent(matrix.mean_iou()) for matrix in matrices)
        scores = f"mIoU {in_8_bits} %, {in_float} % in float"
    print(
        f"8 bits: the same class at {in_percent(agreement)} % of the pixels of {images}; {scores}"
    )
    return agreement


def _enlarged(classes: np.ndarray, label: Tensor) -> Tensor:
    """Return a class map, uint8 [1, h, w], at the size of a label [H, W], by nearest neighbours."""
    given = torch.from_numpy(classes)[None]
    return F.interpolate(given, tuple(label.shape), mode="nearest-exact")[0, 0]


def _milliseconds(run: Runtime, image: np.ndarray) -> float:
    """Return the median time of an image."""
    seconds = timed(
        lambda: run(image),
        torch.device("cpu"),
        at_least=AT_LEAST,
        at_most=AT_MOST,
        budget=SECONDS,
        warm_up=WARM_UP,
    )
    return 1e3 * float(np.median(seconds))
