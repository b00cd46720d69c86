"""Frames of videos: PyAV decodes them, and memory does not grow with the length."""

import functools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.cache import NO_CACHE, digest_of
from datasets.reading import SampleFiles
from utils.disk.files import removed_unless_used, written_whole
from utils.disk.lock import locked
from utils.errors import UserError, naming
from utils.notes import say_once
from utils.utils import progress

try:
    import av
except ImportError:  # optional: pictures do without
    av = None  # type: ignore[assignment]  # mypy types the name as the module

USUAL_RATE = Fraction(25)
"""Frames per second of files that do not say theirs."""

FRAMES, DONE, LOCK = "frames", "done", "lock"
"""The folder in the cache that has a folder for each video, the file in one that is whole, and the
file that a process locks."""

IN_NAME = 6
"""Letters of a video's digest in the names of its frames: other videos have other frames."""


class UnreadableVideo(UserError):
    """A file holds no frame of a video."""


def check_video_support(path: Path) -> None:
    """Raise UserError where there is no PyAV."""
    if av is None:
        raise UserError(f"{path}: videos need PyAV: pip install av")


class VideoReader:
    """The frames of a video, RGB uint8 [H, W, 3], turned as players turn them.

    Attributes:
        rate: frames per second.
        length: number of frames, None where the file does not tell.
        decoded: number of frames so far.
        problem: a sentence, once the frames have ended before the end.
    """

    def __init__(self, path: Path):
        self.path, self.decoded, self.problem = path, 0, ""
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except IndexError as error:
            raise UnreadableVideo(
                f"{path} holds no frames, only sound or text: replace it"
            ) from error
        except (av.FFmpegError, OSError) as error:
            kind = UnreadableVideo if isinstance(error, av.InvalidDataError) else UserError
            reason = error.strerror or error
            raise kind(f"{path} cannot be read as a video ({reason}): replace it") from error
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self.length = self._stream.frames or None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        return (image for _, image in self.every(1))

    def every(self, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames whose numbers, from 0 on, are multiples of the step, with the number."""
        try:
            for frame in self._container.decode(self._stream):
                self.decoded += 1
                if (number := self.decoded - 1) % step:
                    continue
                image = frame.to_ndarray(format="rgb24")
                rotation = getattr(frame, "rotation", 0)  # PyAV 12 does not tell
                yield number, np.ascontiguousarray(np.rot90(image, rotation // 90))
        except (av.FFmpegError, OSError) as error:
            self.problem = (
                f"{self.path} cannot be decoded after frame {self.decoded} ({error}): replace it"
            )
        if self.decoded == 0:
            self.problem = self.problem or f"{self.path} holds no frames: replace it"


def frames_of(video: Path, name: str, *, step: int, cache: Path) -> list[SampleFiles]:
    """Return every `step`-th frame of a video as a PNG in the cache, where it is decoded once.

    `name` is what the names of the frames begin with. Raise UserError where there is no PyAV, no
    cache, or no frame.
    """
    check_video_support(video)
    if cache == NO_CACHE:
        raise UserError(
            f"{video}: the frames of a video are kept in a cache: name a folder with --cache_dir"
        )
    status = video.stat()
    digest = _digest(video, step, status.st_size, status.st_mtime_ns)
    folder = cache / FRAMES / digest
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, wait=True), removed_unless_used(folder, LOCK):
        if not (folder / DONE).exists():
            _decode(video, folder, step)
    prefix = f"{name}_{digest[:IN_NAME]}"
    return [
        SampleFiles(frame, path, place=frame)
        for path in sorted(folder.glob("*.png"))
        for frame in [f"{prefix}_{path.stem}"]
    ]


@functools.cache
def _digest(video: Path, step: int, _size: int, _changed: int) -> str:
    """Return the name of the frames of a file of that size, last changed at that time, from all of
    its content."""
    return digest_of([video], f"{FRAMES} {step}")


def _decode(video: Path, folder: Path, step: int) -> None:
    """Write the frames that are not there yet; a video that ends too early has those before."""
    with VideoReader(video) as reader:
        count = reader.length and -(-reader.length // step)
        for number, image in progress(
            reader.every(step), f"frames of {video.name}", total=count, unit="frame"
        ):
            path = folder / f"{number:06d}.png"
            if path.exists():
                continue
            with naming(path), written_whole(path) as temporary:
                Image.fromarray(image).save(temporary, "PNG", compress_level=1)
        if reader.decoded == 0:
            raise UnreadableVideo(reader.problem)
        if reader.problem:
            say_once(f"{reader.problem}, or go on with the frames before")
    (folder / DONE).touch()
