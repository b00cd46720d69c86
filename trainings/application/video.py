"""Videos, frame by frame: PyAV decodes and encodes, and memory does not grow with the length."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from utils.disk.files import written_whole
from utils.errors import UserError

try:
    import av
except ImportError:  # optional: pictures do without
    av = None

CODECS = ("libx264", "mpeg4")
"""The first one that this PyAV has."""

OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
USUAL_RATE = Fraction(25)  # of files that do not say theirs
FINEST_TICK = 65535  # MPEG-4's, in parts of a second


def check_video_support(path: Path) -> None:
    """Raises UserError where there is no PyAV."""
    if av is None:
        raise UserError(f"--input {path}: videos need PyAV: pip install av")


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
        except (av.FFmpegError, OSError, IndexError) as error:
            raise UserError(f"{path} cannot be read as a video ({error}): replace it") from error
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self.length = self._stream.frames or None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for frame in self._container.decode(self._stream):
                self.decoded += 1
                image = frame.to_ndarray(format="rgb24")
                rotation = getattr(frame, "rotation", 0)  # PyAV 12 does not tell
                yield np.ascontiguousarray(np.rot90(image, rotation // 90))
        except (av.FFmpegError, OSError) as error:
            self.problem = (
                f"{self.path} cannot be decoded after frame {self.decoded} ({error}): replace it"
            )
        if self.decoded == 0:
            self.problem = self.problem or f"{self.path} holds no frames: replace it"


@contextlib.contextmanager
def video_writer(
    path: Path, size: tuple[int, int], rate: Fraction
) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes frames, RGB uint8 [H, W, 3], of (height, width) to an MP4; it is there when whole.

    A killed process leaves a hidden file that the next attempt removes. Raises UserError where
    nothing can be written.
    """
    codec = next(name for name in CODECS if name in av.codecs_available)
    # 4:2:0, which every player takes, has one colour for two pixels a side.
    pixels = "yuv444p" if codec == "libx264" and any(side % 2 for side in size) else "yuv420p"
    try:
        with (
            written_whole(path) as temporary,
            av.open(str(temporary), "w", format="mp4") as container,
        ):
            tick = (1 / Fraction(rate)).limit_denominator(FINEST_TICK)
            stream = container.add_stream(codec, rate=1 / tick, options=OPTIONS[codec])
            (stream.height, stream.width), stream.pix_fmt = size, pixels

            def write(image: np.ndarray) -> None:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(width=stream.width, height=stream.height, format=pixels)
                container.mux(stream.encode(frame))

            yield write
            container.mux(stream.encode())
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path} cannot be written ({error}): see to the folder and its free space, or name "
            "another --output"
        ) from error
