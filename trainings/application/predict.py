"""Predictions for pictures or a video of the user's own.

label_ids/  train_ids/  color/  overlay/  predictions.json  contact_sheet.png

label_ids/ is what the Cityscapes evaluation and its test server take: one PNG per image whose name
begins as the image's. A picture is seen whole, as in validation (`fitted_size`), and its scores are
enlarged to its own size before the argmax.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datasets.catalog import fingerprint, unlabelled
from datasets.data_set import Role
from datasets.inputs import (
    RECORD,
    Picture,
    find_pictures,
    input_folder,
    is_glob,
    is_video,
)
from datasets.labels import CITYSCAPES, TRAIN_ID_TO_LABEL_ID
from datasets.loading.batches import each_item
from datasets.reading import read_image
from datasets.video import VideoReader, check_video_support
from model.ensemble import joint_scores
from model.weights.loading import load_network
from trainings.application.contact_sheet import MOST, Frames, Kept, contact_sheet
from trainings.application.contact_sheet import NAME as SHEET
from trainings.application.options import PredictionOptions
from trainings.application.video import video_writer
from trainings.experiment import new_network
from trainings.options import EnsembleOptions, Settings
from trainings.scoring.batch_norm import TARGET
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.scoring.provenance import comparable, differences, made_with
from trainings.scoring.record import refuse_views
from trainings.scoring.runs import checkpoints_found
from trainings.scoring.trained import as_trained, check_classes, trained_with
from utils.background import Background
from utils.disk.machine import git_revision, versions
from utils.disk.run_folder import BEST, RunFolder
from utils.errors import UsageError, UserError
from utils.pictures.panels import overlay
from utils.spread import spread
from utils.text import dimensions
from utils.transforms import Size, fitted_size, resize
from utils.upsampling import upsampled_max
from utils.utils import autocast, find_input, progress, resolve_device, resolve_precision

KINDS: Mapping[str, str] = {
    "label_ids": "_pred_labelIds.png",
    "train_ids": "_pred_labelTrainIds.png",
    "color": "_pred_color.png",
    "overlay": "_pred_overlay.jpg",
}
"""The folders of results, and how the names in them end."""

COMPARED = ("input", "image_size", "bn_statistics", "statistics_of", "precision", "side_by_side")
"""Flags that all results in a folder share, beside the checkpoints."""

MOST_ELONGATED = 16
"""Times its shorter side that a picture may be long: it is enlarged until it covers `--image_size`,
and the memory grows with its longer side."""

VIDEO_KINDS = ("color", "overlay")
MOST_WRITERS = 4
LONGEST_NAME = 100
FAST_PNG = {"compress_level": 1}
GOOD_JPEG = {"kind": "JPEG", "quality": 90}
SHOWN = 20
"""Bad files that are printed; the record has them all."""


def predict(settings: Settings) -> None:
    """Predicts what `--input` names, and what an earlier attempt has left of it.

    Raises UserError at the end where some of it could not be read.
    """
    refuse_views(settings)
    checkpoints = _checkpoints(settings)
    settings = as_trained(settings, checkpoints[0])
    path = _input(settings)
    folder = RunFolder(_output(checkpoints, path, settings), flag="output")
    if folder.path.absolute() == input_folder(path):
        raise UsageError(
            f"argument --output: {folder.path} is the folder of the inputs; name one of its own"
        )
    pictures = [] if is_video(path) else find_pictures(path)
    if not folder.path.exists():  # a command that cannot work leaves no folder behind
        for checkpoint in checkpoints:
            check_classes(checkpoint, settings)
            load_network(new_network(as_trained(settings, checkpoint)), checkpoint)
    usual = settings.image_size == trained_with(checkpoints[0], settings).get("image_size")
    size = dimensions(settings.image_size)
    print(
        f"predicting at {size}{', as trained' if usual else ''}; pictures of "
        "other proportions keep theirs and are scaled to cover it"
    )
    with folder.alone(below=KINDS):
        making = _Making(folder, checkpoints, path, settings)
        making.begin()
        if is_video(path):
            making.predict_video()
        else:
            making.predict_pictures(pictures)


def _checkpoints(settings: Settings) -> tuple[Path, ...]:
    """Return the checkpoints that the command names.

    Raise UsageError, which lists the existing runs, if it names none.
    """
    ensemble = EnsembleOptions.of(settings).mbt_checkpoints
    if settings.load_model_path and ensemble:
        raise UsageError("--load_model_path and --mbt_checkpoints: name one network or an ensemble")
    if settings.load_model_path:
        return (find_input(settings.load_model_path, "load_model_path"),)
    if not ensemble:
        raise UsageError(
            "argument --load_model_path: predict needs a checkpoint, or those of an ensemble with "
            f"--mbt_checkpoints{checkpoints_found(settings)}"
        )
    return tuple(find_input(path, "mbt_checkpoints") for path in ensemble)


def _input(settings: Settings) -> Path:
    named = PredictionOptions.of(settings).input
    if named is None:
        raise UsageError(
            "argument --input: predict needs an image, a folder, a quoted glob or a video"
        )
    if str(named).startswith(("http:/", "https:/")):
        raise UsageError(f"argument --input: {named}: addresses are not fetched: download it first")
    path = named if is_glob(named) else find_input(named, "input")
    if is_video(path):
        check_video_support(path)
    return Path(os.path.abspath(path))  # noqa: PTH100 - folds `..`, and keeps the names of links


def _output(checkpoints: Sequence[Path], path: Path, settings: Settings) -> Path:
    if output := PredictionOptions.of(settings).output:
        return output
    runs = [
        own.name if checkpoint.name == BEST else f"{own.name}_{checkpoint.stem}"
        for checkpoint in checkpoints
        for own in [checkpoint.resolve().parent]
    ]
    name = settings.save_keyword or f"predictions_{'_'.join(runs)[:LONGEST_NAME]}"
    return settings.save_model_path / name / (_is_one_file(path) or input_folder(path).name)


def _is_one_file(path: Path) -> str:
    """The name of an input that is one file, without its suffix; nothing for several."""
    return "" if path.is_dir() or is_glob(path) else path.stem


# ------------------------------------------------------------------------------ what it works with


class Segmenter:
    """Classes of one picture after the other, by a network or an ensemble."""

    def __init__(self, checkpoints: tuple[Path, ...], settings: Settings):
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.scores: LoadedPredictors = load_predictors(
            [Predictor("", checkpoints)], Role.TARGET, settings
        )

    @torch.inference_mode()
    def __call__(self, seen: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Train ids, uint8 [H, W], of a picture of that size, as the network sees it."""
        with autocast(self.device, self.precision):
            (members,) = self.scores(seen[None].to(self.device))
            scores = joint_scores(members)
        _, train_ids = upsampled_max(scores[0], size)
        return train_ids.cpu().numpy()


def as_seen(image: np.ndarray, size: Size) -> Tensor:
    """An image, uint8 [H, W, 3], as validation at that size shows it to the network, uint8
    [3, h, w]."""
    return resize(fitted_size(image.shape[:2], size))(
        torch.from_numpy(image.transpose(2, 0, 1))
    ).contiguous()


class _Reader(Dataset):
    """Each picture, uint8 [H, W, 3], and as the network sees it; or the sentence why not."""

    def __init__(self, pictures: Sequence[Picture], size: Size):
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | str:
        path = self.pictures[index].path
        try:
            image = read_image(path, photo=True)
            _check_proportions(path, image)
            return torch.from_numpy(image), as_seen(image, self.size)
        except UserError as error:
            return str(error)
        except Exception as error:  # no file may end the rest
            return f"{path} cannot be read ({error!r}): replace it"


def _check_proportions(path: Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if max(height, width) > MOST_ELONGATED * min(height, width):
        raise UserError(
            f"{path} is {width}x{height} pixels, more than {MOST_ELONGATED} times as long as wide: "
            "cut it into pieces"
        )


# --------------------------------------------------------------------------------------- the making


class _Making:
    """One making of results, which may take several attempts."""

    def __init__(
        self, folder: RunFolder, checkpoints: tuple[Path, ...], path: Path, settings: Settings
    ):
        self.folder, self.checkpoints, self.path = folder, checkpoints, path
        self.settings, self.classes = settings, settings.class_table
        self.identity = {
            "input": str(path),
            "statistics_of": _statistics_of(settings),
            **made_with(checkpoints, settings),
        }
        self.side_by_side = PredictionOptions.of(settings).side_by_side
        if self.side_by_side:
            self.identity["side_by_side"] = True
        self.problems: list[tuple[Path, str]] = []

    def begin(self) -> None:
        """Takes the folder. Raises UsageError where other results lie there, unless they may be
        overwritten."""
        if self.settings.overwrite:
            self._clear()
        elif self.folder.has(RECORD):
            self._refuse_other(self.folder.read_json(RECORD))
        elif found := [kind for kind in KINDS if self.folder.has(kind)]:
            raise UsageError(
                f"{self.folder.path} holds {', '.join(found)} and no {RECORD} that says what made "
                "them: choose another --output, or write over them with --overwrite"
            )

    def _load(self) -> Segmenter:
        """The networks; from here on the folder is this making's."""
        segment = Segmenter(self.checkpoints, self.settings)
        if not self.folder.has(RECORD):
            self.folder.write_json(RECORD, self._record())
        return segment

    def _clear(self) -> None:
        (self.folder.path / RECORD).unlink(missing_ok=True)
        for kind, suffix in KINDS.items():
            for path in self.folder.path.glob(f"{kind}/**/*{suffix}"):
                path.unlink()
        for path in (*self._videos(), self.folder.path / SHEET):
            path.unlink(missing_ok=True)

    def _refuse_other(self, before: dict[str, Any]) -> None:
        pair = (comparable(record, COMPARED) for record in (before, self.identity))
        if differing := differences(*pair):
            raise UsageError(
                f"{self.folder.path} holds other predictions ({differing}): choose another "
                "--output, or make them afresh with --overwrite"
            )

    def predict_pictures(self, pictures: Sequence[Picture]) -> None:
        """Writes four files for each picture that lacks one or is younger than one."""
        todo = [
            one for one in pictures if not _are_newer(self._results(one.name).values(), one.path)
        ]
        started = time.perf_counter()
        if todo:
            self._predict_each(todo)
        done = len(todo) - len(self.problems)
        if done or not self.folder.has(SHEET):
            self._draw_sheet(self._predicted(pictures))
        self._finish("image", len(pictures), done, time.perf_counter() - started)

    def _predict_each(self, todo: Sequence[Picture]) -> None:
        segment = self._load()
        reader = _Reader(todo, self.settings.image_size)
        items = each_item(reader, num_workers=self.settings.workers)
        writers = Background(min(MOST_WRITERS, os.cpu_count() or 1))
        with writers, progress(None, "predict", total=len(todo), unit="image") as bar:
            for picture, item in zip(todo, items, strict=True):
                if isinstance(item, str):
                    self.problems.append((picture.path, item))
                else:
                    image, seen = item
                    train_ids = segment(seen, image.shape[:2])
                    writers.submit(self._write, picture.name, image.numpy(), train_ids)
                bar.update()

    def _results(self, name: str) -> dict[str, Path]:
        return {kind: self.folder.path / kind / f"{name}{end}" for kind, end in KINDS.items()}

    def _write(self, name: str, image: np.ndarray, train_ids: np.ndarray) -> None:
        contents = {
            "label_ids": (self._label_ids(train_ids), FAST_PNG),
            "train_ids": (train_ids, FAST_PNG),
            "color": (self.classes.colorize(train_ids), FAST_PNG),
            "overlay": (self._overlay(image, train_ids), GOOD_JPEG),
        }
        for kind, path in self._results(name).items():
            picture, options = contents[kind]
            RunFolder(path.parent, flag="output").save_picture(path.name, picture, **options)

    def _label_ids(self, train_ids: np.ndarray) -> np.ndarray:
        """The ids of the classes as label files have them, uint8 [H, W]."""
        usual = self.classes == CITYSCAPES
        return (TRAIN_ID_TO_LABEL_ID if usual else self.classes.to_ids)[train_ids]

    def _overlay(self, image: np.ndarray, train_ids: np.ndarray) -> np.ndarray:
        """The overlay, beside its picture if that is asked for."""
        drawn = overlay(image, train_ids, self.classes)
        return np.concatenate([image, drawn], axis=1) if self.side_by_side else drawn

    def _predicted(self, pictures: Sequence[Picture]) -> Iterator[Kept]:
        """Some of the pictures that have results, evenly spread, with their classes."""
        files = {one.name: self._results(one.name)["train_ids"] for one in pictures}
        there = [one for one in pictures if files[one.name].exists()]
        for place in spread(len(there), MOST):
            picture = there[place]
            with contextlib.suppress(UserError):
                image = read_image(picture.path, photo=True)
                with Image.open(files[picture.name]) as stored:
                    train_ids = np.array(stored)
                if image.shape[:2] == train_ids.shape:
                    yield Kept(picture.name, image, train_ids)

    def _draw_sheet(self, pictures: Iterable[Kept]) -> None:
        """Writes the contact sheet of what was predicted, if anything was."""
        if shown := list(pictures):
            networks = ", ".join(f"{path.resolve().parent.name}" for path in self.checkpoints)
            title = f"{self.path.name}, as {networks} sees it"
            self.folder.save_picture(SHEET, contact_sheet(shown, title=title, classes=self.classes))
            print(f"contact sheet: {self.folder.path / SHEET}")

    def _videos(self) -> list[Path]:
        return [self.folder.path / f"{self.path.stem}_pred_{kind}.mp4" for kind in VIDEO_KINDS]

    def predict_video(self) -> None:
        """Writes a video of the colours and one of the overlay, of all frames that can be decoded,
        from the first one on."""
        if _are_newer(self._videos(), self.path):
            print(f"{self.folder.path} is finished; --overwrite makes it afresh")
            bad = self.folder.read_json(RECORD).get("bad", ())
            self.problems = [(Path(one["path"]), one["problem"]) for one in bad]
            self._say_problems()
            return
        started = time.perf_counter()
        with VideoReader(self.path) as video:
            self._predict_frames(video)
        if video.problem:
            self.problems.append((self.path, video.problem))
        self._finish("frame", video.decoded, video.decoded, time.perf_counter() - started)

    def _predict_frames(self, video: VideoReader) -> None:
        frames = iter(video)
        first = next(frames, None)
        if first is None:
            return
        size = height, width = first.shape[:2]
        segment, kept = self._load(), Frames()
        color_path, overlay_path = self._videos()
        colors = video_writer(color_path, size, video.rate)
        wide = (height, 2 * width) if self.side_by_side else size
        overlays = video_writer(overlay_path, wide, video.rate)
        with (
            colors as write_colors,
            overlays as write_overlay,
            Background(1) as writer,  # one, for the order
            progress(None, "predict", total=video.length, unit="frame") as bar,
        ):

            def write(image: np.ndarray, train_ids: np.ndarray) -> None:
                write_colors(self.classes.colorize(train_ids))
                write_overlay(self._overlay(image, train_ids))
                kept.add(image, train_ids)

            for image in itertools.chain([first], frames):
                train_ids = segment(as_seen(image, self.settings.image_size), image.shape[:2])
                writer.submit(write, image, train_ids)
                bar.update()
        self._draw_sheet(kept.kept)

    def _finish(self, unit: str, total: int, done: int, seconds: float) -> None:
        """Says and records what was done. Raises UserError where something could not be."""
        there = total - done - len(self.problems) if unit == "image" else 0
        result = {
            unit + "s": total,
            "predicted_last": done,
            "seconds": seconds,
            "bad": [{"path": str(path), "problem": why} for path, why in self.problems],
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self.folder.write_json(RECORD, {**self._record(), **result})
        if there:
            print(f"{_counted(there, unit)} predicted before; --overwrite makes all afresh")
        if done:
            rate = f"{done / seconds:.2f} {unit}s/s"
            print(f"{_counted(done, unit)} in {seconds:.1f} s, {rate}")
        print(f"results: {self.folder.path}", flush=True)
        self._say_problems()

    def _say_problems(self) -> None:
        """Raises UserError where there are any."""
        if not self.problems:
            return
        for _, sentence in self.problems[:SHOWN]:
            # Names of files are bytes to the system; not all of them are text.
            text = sentence.replace("\n", "\\n").encode(errors="backslashreplace").decode()
            print(f"bad: {text}", flush=True)
        raise UserError(
            f"{_counted(len(self.problems), 'file')} could not be read, named above and in "
            f"{self.folder.path / RECORD}; everything else is done: mend or remove them"
        )

    def _record(self) -> dict[str, Any]:
        return {
            **self.identity,
            "settings": self.settings.to_json(),
            "versions": versions(),
            "git_revision": git_revision(),
        }


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _statistics_of(settings: Settings) -> str | None:
    """Digest of the images whose batch-norm statistics are taken, if those of the training are
    not."""
    if settings.bn_statistics != TARGET:
        return None
    return fingerprint(unlabelled(Role.TARGET, "train", settings))


def _are_newer(results: Iterable[Path], source: Path) -> bool:
    """Whether all results are there, and none is older than what it was made from."""
    try:
        oldest = min(result.stat().st_mtime_ns for result in results)
        return oldest >= source.stat().st_mtime_ns
    except OSError:
        return False
