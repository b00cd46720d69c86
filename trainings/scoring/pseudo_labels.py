"""Pseudo-labels (Yang & Soatto, CVPR 2020): what the ensemble is sure of on the target's training
images.

thr_c = min(0.9, value at rank 0.66 n of the ascending probabilities of the n pixels predicted as c)
label = c where the probability reaches thr_c, else IGNORE

A first pass over the split counts probabilities in histograms, so that memory does not grow with
it; a second pass writes the labels. Each image is predicted alone: batches change nothing, nor does
the number of processes that share them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.catalog import Domain, TrainingFiles, data_set, fingerprint
from datasets.cityscapes import PSEUDO, cityscapes_images, pseudo_label_path, with_pseudo_labels
from datasets.labels import CLASS_NAMES, IGNORE
from datasets.loading.batches import batches_of
from datasets.loading.sets import unlabelled_samples
from datasets.reading import SampleFiles, read_label
from datasets.samples import Sample, SampleDataset
from model.ensemble import Ensemble
from trainings.experiment import Experiment
from trainings.options import Settings
from trainings.scoring.checkpoints import load_checkpoints
from trainings.scoring.mbt import find_members
from trainings.scoring.provenance import comparable, differences, made_with
from trainings.scoring.record import refuse_views
from trainings.scoring.thresholds import BINS, ConfidenceHistogram, confidence_bins
from trainings.scoring.trained import as_trained
from trainings.train_SSL_FDA import SSLFDAOptions
from utils import processes
from utils.background import Background
from utils.disk.machine import versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.pictures.panels import label_panel
from utils.upsampling import upsampled_max
from utils.utils import (
    autocast,
    file_digest,
    find_input,
    progress,
    resolve_device,
    resolve_precision,
)

SPLIT = "train"

PROGRESS, SUMMARY, PICTURE = "progress.pth", "summary.json", "pseudo_labels.png"
SAVE_EVERY = 100
PICTURED = 4
WRITERS = 2
"""Threads that encode labels while the next images are predicted."""


def label_folder(settings: Settings) -> Path:
    """Where the labels of a round lie, made by networks of one optimiser."""
    options = SSLFDAOptions.of(settings)
    if options.pseudo_label_path:
        return options.pseudo_label_path
    suffix = "" if options.ssl_round == 1 else f"_round{options.ssl_round}"
    return settings.save_model_path / f"pseudo_labels_{settings.optimizer}{suffix}"


def generate_pseudo_labels(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Labels Cityscapes' training images with the ensemble of the round before; continues what an
    earlier attempt has left."""
    ssl_round = SSLFDAOptions.of(settings).ssl_round
    if ssl_round < 1:
        raise UsageError("argument --ssl_round: pseudo-labels are made for round 1 or a later one")
    refuse_views(settings)
    members = find_members(fda, ssl_fda, ssl_round - 1, settings)
    settings = as_trained(settings, members[0])
    samples = unlabelled_samples(Domain.CITYSCAPES, settings, whole=True)
    folder = RunFolder(label_folder(settings))
    making = _Making(folder, samples, _identity(members, samples.files, settings))
    with folder.alone(below=(SPLIT,)):
        finished = making.begin(overwrite=settings.overwrite)
        processes.wait_for_all()
        if finished:
            print(f"{folder.path} is finished; --overwrite makes it afresh")
        else:
            networks = load_checkpoints(
                members, Domain.CITYSCAPES, settings, doing="labelled", seen=samples.files
            )
            making.run(Ensemble(networks), settings)
            processes.wait_for_all()
    _print_summary(folder)


def _identity(
    members: Sequence[Path], files: Sequence[SampleFiles], settings: Settings
) -> dict[str, Any]:
    """All that the labels follow from."""
    return {
        **made_with(members, settings),
        "images": len(files),
        "data": fingerprint(files),
    }


class _Making:
    """One making of labels, which may take several attempts."""

    def __init__(self, folder: RunFolder, samples: SampleDataset, identity: dict[str, Any]):
        self.folder, self.samples, self.identity = folder, samples, identity
        self.histogram = ConfidenceHistogram()
        self.counted = 0

    def begin(self, *, overwrite: bool) -> bool:
        """Takes up what lies there; whether nothing is left to do.

        Raises UsageError where other labels lie there, unless they may be overwritten.
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
        print(f"continuing {self.folder.path}: {self.counted} of {len(self.samples)} are counted")
        return False

    def _clear(self) -> None:
        if not self.folder.writes:
            return
        for name in (SUMMARY, PROGRESS):
            (self.folder.path / name).unlink(missing_ok=True)
        for path in self.folder.path.glob(f"{SPLIT}/**/*{PSEUDO}"):
            path.unlink()

    def _refuse_other(self, before: dict[str, Any]) -> None:
        differing = differences(_comparable(before), _comparable(self.identity))
        if differing:
            raise UsageError(
                f"{self.folder.path} holds pseudo-labels of another making "
                f"({differing}): make them afresh with --overwrite"
            )

    def run(self, ensemble: Ensemble, settings: Settings) -> None:
        device = resolve_device(settings.device)
        self._count(ensemble, settings, device)
        self._write(ensemble, settings, device)
        processes.wait_for_all()
        if not self.folder.writes:
            return
        self._draw(data_set(Domain.CITYSCAPES, settings))
        self.folder.write_json(SUMMARY, self._summary(settings))
        (self.folder.path / PROGRESS).unlink(missing_ok=True)

    def _count(self, ensemble: Ensemble, settings: Settings, device: torch.device) -> None:
        start, count = self.counted, processes.count()
        rounds = (len(self.samples) - start) // count  # the last one may not be for everybody
        every = max(1, SAVE_EVERY // count)
        places = processes.share(range(start, len(self.samples)))
        new = ConfidenceHistogram()
        for number, (_, classes, confidence) in enumerate(
            self._predict("thresholds", places, ensemble, settings, device), start=1
        ):
            new.update(classes, confidence)
            if number % every == 0 and number <= rounds:
                self._save(new, start + number * count)
                new = ConfidenceHistogram()
        if self.counted < len(self.samples):
            self._save(new, len(self.samples))

    def _save(self, new: ConfidenceHistogram, counted: int) -> None:
        """Adds what every process has counted since the last time."""
        self.histogram.counts += processes.total(new.counts)
        self.counted = counted
        state = {"counted": self.counted, "counts": self.histogram.counts}
        self.folder.save_checkpoint(PROGRESS, {**state, "identity": self.identity})

    def _write(self, ensemble: Ensemble, settings: Settings, device: torch.device) -> None:
        never = BINS + 1
        bins = [never if t is None else t for t in self.histogram.thresholds()]
        thresholds = torch.tensor(bins, device=device)
        places = [
            place
            for place in processes.share(range(len(self.samples)))
            if not self._path(self.samples.files[place]).exists()
        ]
        predictions = self._predict("pseudo-labels", places, ensemble, settings, device)
        with Background(WRITERS) as writers:
            for place, classes, confidence in predictions:
                label = torch.where(confidence >= thresholds[classes.long()], classes, IGNORE)
                path = self._path(self.samples.files[place])
                folder = RunFolder(path.parent, shared=True)
                writers.submit(folder.save_picture, path.name, label.cpu().numpy())

    def _draw(self, data: str) -> None:
        last = len(self.samples) - 1
        places = dict.fromkeys(round(part * last / (PICTURED - 1)) for part in range(PICTURED))
        rows = [
            (
                self.samples.files[place].name,
                self.samples[0, place].image.permute(1, 2, 0).numpy(),
                read_label(self._path(self.samples.files[place]), holds_train_ids=True),
            )
            for place in places
        ]
        title = f"{self.folder.path.name}: {data}, {len(self.samples)} training images"
        sheet = label_panel(rows, title=title, heading="pseudo-label")
        print(f"pictures: {self.folder.save_picture(PICTURE, sheet)}")

    def _path(self, files: SampleFiles) -> Path:
        return pseudo_label_path(self.folder.path, SPLIT, files)

    def _predict(
        self,
        title: str,
        places: Sequence[int],
        ensemble: Ensemble,
        settings: Settings,
        device: torch.device,
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Place, classes and confidence bins [H, W] of each sample, at the network's input size."""
        if not places:
            return
        batches = batches_of(
            self.samples,
            [[place] for place in places],
            num_workers=settings.workers,
            device=device,
        )
        for place, batch in zip(
            places,
            progress(batches, title, total=len(places), unit="image"),
            strict=True,
        ):
            yield place, *predict(ensemble, batch, resolve_precision(settings.precision, device))

    def _summary(self, settings: Settings) -> dict[str, Any]:
        thresholds = [t if t is None else t / BINS for t in self.histogram.thresholds()]
        by_class = zip(CLASS_NAMES, thresholds, self.histogram.kept_share(), strict=True)
        pixels = self.histogram.counts.sum(1).tolist()
        return {
            **self.identity,
            "data_set": data_set(Domain.CITYSCAPES, settings),
            "classes": {
                name: {"threshold": threshold, "kept_share": kept, "predicted_pixels": count}
                for (name, threshold, kept), count in zip(by_class, pixels, strict=True)
            },
            "settings": settings.to_json(),
            "versions": versions(),
        }


def _comparable(identity: dict[str, Any]) -> dict[str, Any]:
    """What must be equal."""
    names = ("image_size", "bn_statistics", "precision", "images", "data")
    return comparable(identity, names)


@torch.inference_mode()
def predict(ensemble: Ensemble, batch: Sample, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """Classes, uint8, and confidence bins, int64, both [H, W], of a batch of one image."""
    with autocast(batch.image.device, precision):
        probabilities = ensemble.probabilities(batch.image)
    confidence, classes = upsampled_max(probabilities[0], batch.image.shape[-2:])
    return classes, confidence_bins(confidence)


def _print_summary(folder: RunFolder) -> None:
    summary = folder.read_json(SUMMARY)
    print(f"{'class':>14}  threshold   kept")
    for name, row in summary["classes"].items():
        if row["threshold"] is None:
            print(f"{name:>14}  never predicted")
        else:
            print(f"{name:>14}  {row['threshold']:9.4f} {100 * row['kept_share']:5.1f} %")
    of = f" of {summary['data_set']}" if "data_set" in summary else ""
    print(f"{summary['images']} pseudo-labels{of} in {folder.path / SPLIT}", flush=True)


def pseudo_labelled_cityscapes(settings: Settings) -> TrainingFiles:
    """The target of self-training: the training images with the labels of this round.

    Raises UserError where they are missing or unfinished. Unless they are accepted all the same, it
    is a problem where they were made at another size or their checkpoints have changed since.
    """
    options = SSLFDAOptions.of(settings)
    if options.ssl_round < 1:
        raise UsageError("argument --ssl_round: self-training begins with round 1")
    folder = RunFolder(label_folder(settings))
    if not folder.has(SUMMARY):
        raise UserError(
            f"{folder.path} holds no finished pseudo-labels (no {SUMMARY}): make them with "
            f"--action generate_pseudo_labels --optimizer {settings.optimizer} "
            f"--ssl_round {options.ssl_round}"
        )
    summary = folder.read_json(SUMMARY)
    problem = _staleness(summary, settings)
    if problem:
        problem = (
            f"{folder.path}: {problem}; make them again with --action generate_pseudo_labels "
            "--overwrite, or train on them all the same with --accept_pseudo_labels True"
        )
    root = find_input(settings.cityscapes_root, "cityscapes_root")
    files = with_pseudo_labels(cityscapes_images(root, SPLIT), folder.path, SPLIT)
    return TrainingFiles(
        Domain.CITYSCAPES,
        files,
        origin=json.dumps(_comparable(summary)),
        problem=None if options.accept_pseudo_labels else problem,
        note=f"pseudo-labels: {len(files)} in {folder.path / SPLIT}",
    )


def _staleness(summary: dict[str, Any], settings: Settings) -> str | None:
    """Why the labels should not be trained on, if so."""
    size = summary.get("image_size")
    if size != list(settings.image_size):
        wanted = list(settings.image_size)
        return f"the pseudo-labels were made at --image_size {size}, this training is at {wanted}"
    for checkpoint in summary["checkpoints"]:
        path = settings.save_model_path / checkpoint["path"]
        if not path.exists():
            print(f"{path}, which made the pseudo-labels, is not there any more; they are taken")
        elif file_digest(path) != checkpoint["sha256"]:
            return f"{path} has changed since the pseudo-labels were made with it"
    return None
