"""Predict the frames of a video, and write two videos of the results."""

import itertools
import time
from pathlib import Path

import numpy as np

from datasets.inputs import RECORD
from datasets.video import VideoReader
from trainings.application.contact_sheet import Frames
from trainings.application.predictions import Predictions, are_newer
from trainings.application.segmenter import as_seen
from trainings.application.video import video_writer
from utils.background import Background
from utils.utils import progress


def predict_video(predictions: Predictions) -> None:
    """Write a video of the colours and one of the overlay, of all frames that can be decoded,
    from the first one on."""
    if are_newer(predictions.videos(), predictions.path):
        print(f"{predictions.folder.path} is finished; --overwrite makes it afresh")
        bad = predictions.folder.read_json(RECORD).get("bad", ())
        predictions.problems = [(Path(one["path"]), one["problem"]) for one in bad]
        predictions.say_problems()
        return
    started = time.perf_counter()
    with VideoReader(predictions.path) as video:
        _predict_frames(predictions, video)
    if video.problem:
        predictions.problems.append((predictions.path, video.problem))
    predictions.finish("frame", video.decoded, video.decoded, time.perf_counter() - started)


def _predict_frames(predictions: Predictions, video: VideoReader) -> None:
    frames = iter(video)
    first = next(frames, None)
    if first is None:
        return
    size = height, width = first.shape[:2]
    segment, kept = predictions.load(), Frames()
    color_path, overlay_path = predictions.videos()
    colors = video_writer(color_path, size, video.rate)
    wide = (height, 2 * width) if predictions.side_by_side else size
    overlays = video_writer(overlay_path, wide, video.rate)
    with (
        colors as write_colors,
        overlays as write_overlay,
        Background(1) as writer,  # one, for the order
        progress(None, "predict", total=video.length, unit="frame") as bar,
    ):

        def write(image: np.ndarray, train_ids: np.ndarray) -> None:
            write_colors(predictions.classes.colorize(train_ids))
            write_overlay(predictions.overlay(image, train_ids))
            kept.add(image, train_ids)

        for image in itertools.chain([first], frames):
            train_ids = segment(as_seen(image, predictions.settings.image_size), image.shape[:2])
            writer.submit(write, image, train_ids)
            bar.update()
    predictions.draw_sheet(kept.kept)
