"""Pseudo-labels (Yang & Soatto, CVPR 2020): what the ensemble is sure of on the target's training
images.

thr_c = min(0.9, value at rank 0.66 n of the ascending probabilities of the n pixels predicted as c)
label = c where the probability reaches thr_c, else IGNORE

A first pass over the split counts probabilities in histograms, so that memory does not grow with
it; a second pass writes the labels. Soft labels, the probabilities of each pixel's best classes,
need no thresholds and a single pass. Each image is predicted alone: batches change nothing, nor
does the number of processes that share them.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.catalog import TrainingFiles, data_set, fingerprint, has_labels, labelled, unlabelled
from datasets.data_set import Role
from datasets.labels import CITYSCAPES, CLASS_TABLE, IGNORE, USUAL, ClassTable
from datasets.loading.batches import WholeImages, batches_of
from datasets.loading.sets import unlabelled_samples
from datasets.pseudo_labels import ENDING, pseudo_label_path, with_pseudo_labels
from datasets.reading import SampleFiles, probabilities_path, read_label
from datasets.samples import SampleDataset
from model.catalog import RECORDED
from model.ensemble import Ensemble
from trainings.experiment import Experiment
from trainings.options import EnsembleOptions, PseudoLabelOptions, Settings, SoftOptions
from trainings.scoring.checkpoints import load_checkpoints
from trainings.scoring.mbt import find_members
from trainings.scoring.provenance import comparable, differences, made_with
from trainings.scoring.record import refuse_views
from trainings.scoring.runs import command_flags
from trainings.scoring.thresholds import BINS, ConfidenceHistogram, confidence_bins
from trainings.scoring.trained import as_trained
from trainings.train_SSL_FDA import SSLFDAOptions
from utils import processes
from utils.background import Background
from utils.disk.machine import versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.pictures.panels import pseudo_label_panel
from utils.spread import spread
from utils.text import in_percent
from utils.upsampling import upsample, upsampled_max
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
SOFT_CLASSES = 3
"""Classes of a pixel whose probabilities soft labels keep: the channels of an RGB picture."""

WRITERS = 2
"""Threads that encode labels while the next images are predicted."""


def label_folder(settings: Settings, ssl_round: int = 1) -> Path:
    """Return where the labels of an ensemble lie, made by networks of one optimiser for a round of
    self-training."""
    if folder := PseudoLabelOptions.of(settings).pseudo_label_path:
        return folder
    suffix = "" if ssl_round == 1 else f"_round{ssl_round}"
    return settings.save_model_path / f"pseudo_labels{settings.pair()}_{settings.optimizer}{suffix}"


def label_folder_of(teacher: Path, settings: Settings) -> Path:
    """Return where the labels of one network lie; `teacher` is its checkpoint."""
    named = PseudoLabelOptions.of(settings).pseudo_label_path
    return named or settings.save_model_path / f"labels_{teacher.resolve().parent.name}"


def generate_pseudo_labels(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> None:
    """Label the target's training images with `--load_model_path`, or with the ensemble of the
    round before; continue what an earlier attempt has left."""
    refuse_views(settings)
    members, path = _teachers(fda, ssl_fda, settings)
    settings = as_trained(settings, members[0])
    samples = unlabelled_samples(Role.TARGET, settings, whole=True)
    folder = RunFolder(path)
    making = _Making(
        folder,
        samples,
        _identity(members, samples.files, settings),
        settings.class_table,
    )
    with folder.alone(below=(SPLIT,)):
        finished = making.begin(overwrite=settings.overwrite)
        processes.wait_for_all()
        if finished:
            print(f"{folder.path} is finished; --overwrite makes it afresh")
        else:
            networks = load_checkpoints(
                members, Role.TARGET, settings, doing="labelled", seen=samples.files
            )
            making.run(Ensemble(networks), settings)
            processes.wait_for_all()
    _print_summary(folder)


def _teachers(fda: Experiment, ssl_fda: Experiment, settings: Settings) -> tuple[list[Path], Path]:
    """Return the checkpoints of the networks that label, and the folder of their labels."""
    ssl_round = SSLFDAOptions.of(settings).ssl_round
    if not settings.load_model_path:
        if ssl_round < 1:
            raise UsageError(
                "argument --ssl_round: pseudo-labels are made for round 1 or a later one"
            )
        members = find_members(fda, ssl_fda, ssl_round - 1, settings)
        return members, label_folder(settings, ssl_round)
    if ssl_round != SSLFDAOptions.ssl_round:
        raise UsageError(
            "argument --ssl_round: it chooses the ensemble that labels, and --load_model_path "
            "names one teacher; give one of the two"
        )
    if EnsembleOptions.of(settings).mbt_checkpoints:
        raise UsageError(
            "argument --load_model_path: it names one teacher, --mbt_checkpoints the members of an "
            "ensemble; give one of the two"
        )
    teacher = find_input(settings.load_model_path, "load_model_path")
    return [teacher], label_folder_of(teacher, settings)


def _identity(
    members: Sequence[Path], files: Sequence[SampleFiles], settings: Settings
) -> dict[str, Any]:
    """Return all that the labels follow from."""
    return {
        **made_with(members, settings),
        "images": len(files),
        "data": fingerprint(files),
        **({"soft": SOFT_CLASSES} if SoftOptions.of(settings).soft else {}),
    }


class _Making:
    """One making of labels, which may take several attempts."""

    def __init__(
        self,
        folder: RunFolder,
        samples: SampleDataset,
        identity: dict[str, Any],
        classes: ClassTable = CITYSCAPES,
    ):
        self.folder, self.samples, self.identity = folder, samples, identity
        self.soft = "soft" in identity
        self.classes = classes
        self.histogram = ConfidenceHistogram(len(classes))
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
            differing = differences(_comparable(before), _comparable(self.identity))
        if differing:
            raise UsageError(
                f"{self.folder.path} holds pseudo-labels of another making "
                f"({differing}): make them afresh with --overwrite"
            )

    def run(self, ensemble: Ensemble, settings: Settings) -> None:
        device = resolve_device(settings.device)
        if self.soft:
            self._save(
                ConfidenceHistogram(len(self.classes)), 0
            )  # what is made here, for a later attempt
        else:
            self._count(ensemble, settings, device)
        self._write(ensemble, settings, device)
        processes.wait_for_all()
        if not self.folder.writes:
            return
        self._draw(settings)
        self.folder.write_json(SUMMARY, self._summary(settings))
        (self.folder.path / PROGRESS).unlink(missing_ok=True)

    def _count(self, ensemble: Ensemble, settings: Settings, device: torch.device) -> None:
        start, count = self.counted, processes.count()
        rounds = (len(self.samples) - start) // count  # the last one may not be for everybody
        every = max(1, SAVE_EVERY // count)
        places = processes.share(range(start, len(self.samples)))
        new = ConfidenceHistogram(len(self.classes))
        for number, (_, classes, confidence) in enumerate(
            self._predict("thresholds", predict, places, ensemble, settings, device), start=1
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

    def _write(self, ensemble: Ensemble, settings: Settings, device: torch.device) -> None:
        never = BINS + 1
        bins = [never if t is None else t for t in self.histogram.thresholds()]
        thresholds = torch.tensor(bins, device=device)
        places = [
            place
            for place in processes.share(range(len(self.samples)))
            if not self._path(self.samples.files[place]).exists()
        ]
        form = predict_soft if self.soft else predict
        predictions = self._predict("pseudo-labels", form, places, ensemble, settings, device)
        with Background(WRITERS) as writers:
            for place, ids, confidence in predictions:
                path = self._path(self.samples.files[place])
                pictures = {path: ids}
                if self.soft:  # the label last: where it is, the probabilities are, too
                    pictures = {probabilities_path(path): confidence, path: ids}
                else:
                    pictures[path] = torch.where(confidence >= thresholds[ids.long()], ids, IGNORE)
                arrays = {path: picture.cpu().numpy() for path, picture in pictures.items()}
                writers.submit(_save_pictures, arrays)

    def _draw(self, settings: Settings) -> None:
        """Draw some labels beside their images, and beside the truth where there is one: how much
        of an image is labelled, and how much of that is right."""
        truths = self._truths(settings)
        rows = [
            (
                self.samples.files[place].name,
                self.samples[0, place].image.permute(1, 2, 0).numpy(),
                self._best_classes(self.samples.files[place]),
                _truth(truths.get(self.samples.files[place].name)),
            )
            for place in spread(len(self.samples), PICTURED)
        ]
        data = data_set(Role.TARGET, settings)
        title = f"{self.folder.path.name}: {data}, {len(self.samples)} training images"
        sheet = pseudo_label_panel(rows, title=title, classes=self.classes)
        print(f"pictures: {self.folder.save_picture(PICTURE, sheet)}")

    def _truths(self, settings: Settings) -> dict[str, SampleFiles]:
        """Return the samples with labels of their own, by name; training never reads these."""
        with contextlib.suppress(UserError):
            if has_labels(Role.TARGET, SPLIT, settings):
                return {files.name: files for files in labelled(Role.TARGET, SPLIT, settings)}
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
        form: Callable[[Ensemble, WholeImages, torch.dtype], tuple[Tensor, Tensor]],
        places: Sequence[int],
        ensemble: Ensemble,
        settings: Settings,
        device: torch.device,
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield the place of each sample, and the two results of `predict` or `predict_soft`."""
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
            yield place, *form(ensemble, batch, resolve_precision(settings.precision, device))

    def _summary(self, settings: Settings) -> dict[str, Any]:
        return {
            **self.identity,
            "data_set": data_set(Role.TARGET, settings),
            **({} if self.soft else {"classes": self._classes()}),
            "settings": settings.to_json(),
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


def _comparable(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that must be equal for the labels to be continued."""
    names: tuple[str, ...] = ("image_size", "bn_statistics", "precision", "images", "data")
    names += ("soft",) * ("soft" in identity)  # hard labels are compared as before there were soft
    return comparable(identity, names)


def _truth(files: SampleFiles | None) -> np.ndarray | None:
    """Return the train ids of a sample's own label, None where it has none that can be read."""
    if files is None or files.label is None:
        return None
    with contextlib.suppress(UserError):
        return read_label(files.label, files.kind)
    return None


@torch.inference_mode()
def predict(
    ensemble: Ensemble, batch: WholeImages, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the classes, uint8, and confidence bins, int64, both [H, W], of a batch of one
    image."""
    with autocast(batch.image.device, precision):
        probabilities = ensemble.probabilities(batch.image)
    confidence, classes = upsampled_max(probabilities[0], batch.image.shape[-2:])
    return classes, confidence_bins(confidence)


@torch.inference_mode()
def predict_soft(
    ensemble: Ensemble, batch: WholeImages, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the best classes of a batch of one image and their probabilities times 255, most
    probable first, uint8 [H, W, SOFT_CLASSES]."""
    with autocast(batch.image.device, precision):
        probabilities = ensemble.probabilities(batch.image)
    enlarged = upsample(probabilities, batch.image.shape[-2:])[0]
    largest, classes = enlarged.topk(min(SOFT_CLASSES, len(enlarged)), dim=0)
    shares = (255 * largest).round()
    return classes.byte().permute(1, 2, 0), shares.byte().permute(1, 2, 0)


def _save_pictures(pictures: Mapping[Path, np.ndarray]) -> None:
    """Write pictures one after another."""
    for path, picture in pictures.items():
        RunFolder(path.parent, shared=True).save_picture(path.name, picture)


def _print_summary(folder: RunFolder) -> None:
    summary = folder.read_json(SUMMARY)
    if "classes" in summary:
        print(f"{'class':>14}  threshold   kept")
    for name, row in summary.get("classes", {}).items():
        if row["threshold"] is None:
            print(f"{name:>14}  never predicted")
        else:
            print(f"{name:>14}  {row['threshold']:9.4f} {in_percent(row['kept_share'], 1):>5} %")
    of = f" of {summary['data_set']}" if "data_set" in summary else ""
    kind = "soft pseudo-labels" if "soft" in summary else "pseudo-labels"
    print(f"{summary['images']} {kind}{of} in {folder.path / SPLIT}", flush=True)


def self_training_target(settings: Settings) -> TrainingFiles:
    """Return the target of self-training: the training images with the pseudo-labels of the
    round."""
    ssl_round = SSLFDAOptions.of(settings).ssl_round
    if ssl_round < 1:
        raise UsageError("argument --ssl_round: self-training begins with round 1")
    remedy = f"make them with {_making(settings, {}, ssl_round)}"
    return _pseudo_labelled(settings, label_folder(settings, ssl_round), remedy, ssl_round)


def pseudo_labelled_target(settings: Settings) -> TrainingFiles:
    """Return the target of distillation: the training images with the pseudo-labels of any
    teacher."""
    remedy = f"make them with {_making(settings, {})}"
    if not PseudoLabelOptions.of(settings).pseudo_label_path:
        remedy = f"name the folder of the teacher's labels with --pseudo_label_path, or {remedy}"
    return _pseudo_labelled(settings, label_folder(settings), remedy)


def _pseudo_labelled(
    settings: Settings, path: Path, remedy: str, ssl_round: int | None = None
) -> TrainingFiles:
    """Return the training images of the target with the pseudo-labels in a folder.

    `--pseudo_label_path` may hold labels of any origin. Raise UserError, with the remedy, where
    labels are missing or unfinished. It is a problem, unless they are accepted all the same, where
    ours were made at another size or their checkpoints have changed since.
    """
    options, folder = PseudoLabelOptions.of(settings), RunFolder(path)
    foreign = options.pseudo_label_path and (folder.path / SPLIT).is_dir()
    if not folder.has(SUMMARY) and (folder.has(PROGRESS) or not foreign):
        raise UserError(f"{folder.path} holds no finished pseudo-labels (no {SUMMARY}): {remedy}")
    files = with_pseudo_labels(
        unlabelled(Role.TARGET, SPLIT, settings), folder.path, SPLIT, settings.class_table
    )
    problem = None
    if folder.has(SUMMARY):
        summary = folder.read_json(SUMMARY)
        if summary.get(CLASS_TABLE, USUAL) != settings.class_table.recorded():
            raise UserError(
                f"{folder.path} holds pseudo-labels of other classes than this training's: make "
                "them again with a network of these classes, or name theirs with --classes"
            )
        origin, problem = json.dumps(_comparable(summary)), _staleness(summary, settings)
    else:
        origin = _contents(files)
    if problem:
        problem = (
            f"{folder.path}: {problem}; make them again with "
            f"{_making(settings, summary, ssl_round)} --overwrite, or train on them all the same "
            "with --accept_pseudo_labels True"
        )
    easy = "; --ohem leaves soft labels as they are" if files[0].kind.soft and settings.ohem else ""
    return TrainingFiles(
        Role.TARGET,
        files,
        origin=origin,
        problem=None if options.accept_pseudo_labels else problem,
        note=f"{files[0].kind.name}: {len(files)} in {folder.path / SPLIT}{easy}",
    )


def _making(settings: Settings, summary: Mapping[str, Any], ssl_round: int | None = None) -> str:
    """Return the flags that make the labels of a training, from the teachers that the summary of
    earlier ones names, or else from the ensemble of the round before. Where there is neither, the
    words say that a teacher is to be named."""
    options, before = PseudoLabelOptions.of(settings), summary.get("settings", {})
    teachers = {
        name: before[name] for name in ("load_model_path", "mbt_checkpoints") if before.get(name)
    }
    flags = {
        "action": "generate_pseudo_labels",
        "optimizer": None if options.pseudo_label_path else settings.optimizer,
        "ssl_round": ssl_round,
        "pseudo_label_path": options.pseudo_label_path,
        **teachers,
        **({"soft": True} if before.get("soft") else {}),
        **({"image_size": settings.image_size} if summary else {}),
        # A teacher's network is recorded, and need not be this training's.
        **(dict.fromkeys(RECORDED) if teachers or not ssl_round else {}),
    }
    command = command_flags(flags, settings)
    return (
        command
        if ssl_round or teachers
        else f"{command} and the teacher's checkpoint as --load_model_path"
    )


def _contents(files: Iterable[SampleFiles]) -> str:
    """Return a digest of what the labels hold."""
    digest = hashlib.sha256()
    for one in files:
        soft = [probabilities_path(one.label_path)] if one.kind.soft else []
        for path in (one.label_path, *soft):
            digest.update(file_digest(path).encode())
    return digest.hexdigest()


def _staleness(summary: dict[str, Any], settings: Settings) -> str | None:
    """Return the reason why the labels should not be trained on; None without one."""
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
