"""The command `predict`: the networks, the input and the output folder that it names."""

import os
from collections.abc import Sequence
from pathlib import Path

from datasets.inputs import find_pictures, input_folder, is_glob, is_video
from datasets.video import check_video_support
from model.weights.loading import load_network
from trainings.application.options import PredictionOptions
from trainings.application.predict_pictures import predict_pictures
from trainings.application.predict_video import predict_video
from trainings.application.predictions import KINDS, Predictions
from trainings.experiment import new_network
from trainings.options import EnsembleOptions, Settings
from trainings.scoring.batch_norm import TARGET
from trainings.scoring.record import refuse_views
from trainings.scoring.runs import checkpoints_found, run_and_file
from trainings.scoring.trained import as_trained, check_classes, trained_with, with_data_of_run
from utils.disk.run_folder import BEST, RunFolder
from utils.errors import UsageError
from utils.text import dimensions
from utils.utils import find_input

LONGEST_NAME = 100


def predict(settings: Settings) -> None:
    """Predict what `--input` names, and what an earlier attempt has left of it.

    Raise UserError at the end where some of it could not be read.
    """
    refuse_views(settings)
    checkpoints = _checkpoints(settings)
    settings = as_trained(settings, checkpoints[0])
    if settings.load_model_path and settings.bn_statistics == TARGET:
        settings = with_data_of_run(settings, checkpoints[0])
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
        predictions = Predictions(folder, checkpoints, path, settings)
        predictions.begin()
        if is_video(path):
            predict_video(predictions)
        else:
            predict_pictures(predictions, pictures)


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
    runs = [c.resolve().parent.name if c.name == BEST else run_and_file(c) for c in checkpoints]
    name = settings.save_keyword or f"predictions_{'_'.join(runs)[:LONGEST_NAME]}"
    are_several = path.is_dir() or is_glob(path)
    return settings.save_model_path / name / (input_folder(path).name if are_several else path.stem)
