"""The making of pseudo-labels (Yang & Soatto, CVPR 2020): what the ensemble is sure of on the
target's training images.

thr_c = min(0.9, value at rank 0.66 n of the ascending probabilities of the n pixels predicted as c)
label = c where the probability reaches thr_c, else IGNORE

A first pass over the split counts probabilities in histograms, so that memory does not grow with
it; a second pass writes the labels. Soft labels, the probabilities of each pixel's best classes,
need no thresholds and a single pass. Each image is predicted alone: batches change nothing, nor
does the number of processes that share them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.catalog import data_set, has_labels, labelled
from datasets.data_set import Role
from datasets.labels import IGNORE
from datasets.loading.batches import batches_of
from datasets.pseudo_labels import ENDING, pseudo_label_path
from datasets.reading import SampleFiles, probabilities_path, read_label
from datasets.samples import SampleDataset
from model.ensemble import mean_probabilities
from model.network import Network
from trainings.options import Settings
from trainings.scoring.provenance import differences
from trainings.scoring.pseudo_label_folder import (
    PICTURE,
    PROGRESS,
    SPLIT,
    SUMMARY,
    compared,
)
from trainings.scoring.thresholds import BINS, ConfidenceHistogram, confidence_bins
from utils import processes
from utils.background import Background
from utils.disk.machine import versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.pictures.panels import pseudo_label_panel
from utils.spread import spread
from utils.upsampling import upsample, upsampled_max
from utils.utils import autocast, progress, resolve_device, resolve_precision

SAVE_EVERY = 100
PICTURED = 4
SOFT_CLASSES = 3
"""Classes of a pixel whose probabilities soft labels keep: the channels of an RGB picture."""

WRITERS = 2
"""Threads that encode labels while the next images are predicted."""


class Making:
    """One making of labels, which may take several attempts."""

    def __init__(
        self,
        folder: RunFolder,
        samples: SampleDataset,
        identity: dict[str, Any],
        settings: Settings,
    ):
        self.folder, self.samples, self.identity = folder, samples, identity
        self.settings, self.classes = settings, settings.class_table
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.soft = "soft" in identity
        self.histogram = ConfidenceHistogram(len(self.classes))
        self.counted = 0

    def begin(self, *, overwrite: bool) -> bool:
        """Take up what lies there, and return whether nothing is left to do.

        Raise UsageError where other labels lie there, unless they may be overwritten.
        """
        if overwrite or not (self.folder.has(SUMMARY) or self.folder.has(PROGRESS)):
            self._clear()
            return False
        if self.folder.has(SUMMARY):
            self._refuse_other(self.folder.read_json(SUMMARY))
            return all(self._path(files).exists() for files in self.samples.files)
        state = self.folder.load_checkpoint(PROGRESS)
        self._refuse_other(state["identity"])
        self.histogram.counts, self.counted = state["counts"], state["counted"]
        counted = "" if self.soft else f": {self.counted} of {len(self.samples)} are counted"
        print(f"continuing {self.folder.path}{counted}")
        return False

    def _clear(self) -> None:
        if not self.folder.writes:
            return
        for name in (SUMMARY, PROGRESS):
            (self.folder.path / name).unlink(missing_ok=True)
        for path in self.folder.path.glob(f"{SPLIT}/**/*{ENDING}"):
            probabilities_path(path).unlink(missing_ok=True)
            path.unlink()

    def _refuse_other(self, before: dict[str, Any]) -> None:
        if (before.get("soft") is not None) != self.soft:
            differing = "hard and soft labels differ"
        else:
            differing = differences(before, self.identity, compared(self.identity))
        if differing:
            raise UsageError(
                f"{self.folder.path} holds pseudo-labels of another making ({differing}): name "
                "another folder with --pseudo_label_path, or replace them with --overwrite"
            )

    def run(self, networks: Sequence[Network]) -> None:
        if self.soft:  # a later attempt must find out what is made here
            self._save(ConfidenceHistogram(len(self.classes)), 0)
        else:
            self._count(networks)
        self._write(networks)
        processes.wait_for_all()
        if not self.folder.writes:
            return
        self._draw()
        self.folder.write_json(SUMMARY, self._summary())
        (self.folder.path / PROGRESS).unlink(missing_ok=True)

    def _count(self, networks: Sequence[Network]) -> None:
        start, count = self.counted, processes.count()
        rounds = (len(self.samples) - start) // count  # the last one may not be for everybody
        every = max(1, SAVE_EVERY // count)
        places = processes.share(range(start, len(self.samples)))
        new = ConfidenceHistogram(len(self.classes))
        for number, (_, classes, confidence) in enumerate(
            self._predict("thresholds", predict, places, networks), start=1
        ):
            new.update(classes, confidence)
            if number % every == 0 and number <= rounds:
                self._save(new, start + number * count)
                new = ConfidenceHistogram(len(self.classes))
        if self.counted < len(self.samples):
            self._save(new, len(self.samples))

    def _save(self, new: ConfidenceHistogram, counted: int) -> None:
        """Add what every process has counted since the last time."""
        self.histogram.counts += processes.total(new.counts)
        self.counted = counted
        state = {"counted": self.counted, "counts": self.histogram.counts}
        self.folder.save_checkpoint(PROGRESS, {**state, "identity": self.identity})

    def _write(self, networks: Sequence[Network]) -> None:
        never = BINS + 1
        bins = [never if t is None else t for t in self.histogram.thresholds()]
        thresholds = torch.tensor(bins, device=self.device)
        places = [
            place
            for place in processes.share(range(len(self.samples)))
            if not self._path(self.samples.files[place]).exists()
        ]
        form = predict_soft if self.soft else predict
        predictions = self._predict("pseudo-labels", form, places, networks)
        with Background(WRITERS) as writers:
            for place, ids, confidence in predictions:
                path = self._path(self.samples.files[place])
                if self.soft:  # the label last: where it is, the probabilities are, too
                    pictures = {probabilities_path(path): confidence, path: ids}
                else:
                    kept = confidence >= thresholds[ids.long()]
                    pictures = {path: torch.where(kept, ids, IGNORE)}
                arrays = {path: picture.cpu().numpy() for path, picture in pictures.items()}
                writers.submit(_save_pictures, arrays)

    def _draw(self) -> None:
        """Draw some labels beside their images, and beside the truth where there is one: how much
        of an image is labelled, and how much of that is right."""
        truths = self._truths()
        rows = []
        for place in spread(len(self.samples), PICTURED):
            files = self.samples.files[place]
            image = self.samples[0, place].image.permute(1, 2, 0).numpy()
            truth = _truth(truths.get(files.name))
            rows.append((files.name, image, self._best_classes(files), truth))
        data = data_set(Role.TARGET, self.settings)
        title = f"{self.folder.path.name}: {data}, {len(self.samples)} training images"
        sheet = pseudo_label_panel(rows, title=title, classes=self.classes)
        print(f"pictures: {self.folder.save_picture(PICTURE, sheet)}")

    def _truths(self) -> dict[str, SampleFiles]:
        """Return the samples with labels of their own, by name; training never reads these."""
        with contextlib.suppress(UserError):
            if has_labels(Role.TARGET, SPLIT, self.settings):
                return {files.name: files for files in labelled(Role.TARGET, SPLIT, self.settings)}
        return {}

    def _best_classes(self, files: SampleFiles) -> np.ndarray:
        """Return the train ids of a label, uint8 [H, W], of a soft one the most probable ones."""
        path = self._path(files)
        label = read_label(path, self.classes.pseudo_labels(soft=self.soft))
        return label[0] if self.soft else label

    def _path(self, files: SampleFiles) -> Path:
        return pseudo_label_path(self.folder.path, SPLIT, files)

    def _predict(
        self,
        title: str,
        form: Callable[[Sequence[Network], Tensor, torch.dtype], tuple[Tensor, Tensor]],
        places: Sequence[int],
        networks: Sequence[Network],
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield the place of each sample, and the two results of `predict` or `predict_soft`."""
        if not places:
            return
        batches = batches_of(
            self.samples,
            [[place] for place in places],
            num_workers=self.settings.workers,
            device=self.device,
        )
        bar = progress(batches, title, total=len(places), unit="image")
        for place, images in zip(places, bar, strict=True):
            yield place, *form(networks, images, self.precision)

    def _summary(self) -> dict[str, Any]:
        return {
            **self.identity,
            "data_set": data_set(Role.TARGET, self.settings),
            **({} if self.soft else {"classes": self._classes()}),
            "settings": self.settings.to_json(),
            "versions": versions(),
        }

    def _classes(self) -> dict[str, dict[str, Any]]:
        """Return threshold, share of kept pixels and number of pixels of each class by its name."""
        thresholds = [t if t is None else t / BINS for t in self.histogram.thresholds()]
        by_class = zip(self.classes.names, thresholds, self.histogram.kept_share(), strict=True)
        pixels = self.histogram.counts.sum(1).tolist()
        return {
            name: {"threshold": threshold, "kept_share": kept, "predicted_pixels": count}
            for (name, threshold, kept), count in zip(by_class, pixels, strict=True)
        }


def _truth(files: SampleFiles | None) -> np.ndarray | None:
    """Return the train ids of a sample's own label, None where it has none that can be read."""
    with contextlib.suppress(UserError):
        return read_label(files.label_path, files.kind) if files else None
    return None


@torch.inference_mode()
def predict(
    networks: Sequence[Network], images: Tensor, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the classes, uint8, and confidence bins, int64, both [H, W], of a batch of one
    image."""
    probabilities = _probabilities(networks, images, precision)
    confidence, classes = upsampled_max(probabilities[0], images.shape[-2:])
    return classes, confidence_bins(confidence)


@torch.inference_mode()
def predict_soft(
    networks: Sequence[Network], images: Tensor, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the best classes of a batch of one image and their probabilities times 255, most
    probable first, uint8 [H, W, SOFT_CLASSES]."""
    probabilities = _probabilities(networks, images, precision)
    enlarged = upsample(probabilities, images.shape[-2:])[0]
    largest, classes = enlarged.topk(min(SOFT_CLASSES, len(enlarged)), dim=0)
    shares = (255 * largest).round()
    return classes.byte().permute(1, 2, 0), shares.byte().permute(1, 2, 0)


def _probabilities(networks: Sequence[Network], image: Tensor, precision: torch.dtype) -> Tensor:
    """Return the networks' mean class probabilities of images, [N, C, h, w]."""
    with autocast(image.device, precision):
        return mean_probabilities([network.main_logits(image) for network in networks])


def _save_pictures(pictures: Mapping[Path, np.ndarray]) -> None:
    """Write pictures one after another."""
    for path, picture in pictures.items():
        RunFolder(path.parent, shared=True).save_picture(path.name, picture)
