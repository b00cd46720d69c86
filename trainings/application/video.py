"""Writing videos, frame by frame, by PyAV."""

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
    av = None  # type: ignore[assignment]  # mypy types the name as the module

CODECS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
"""Codecs and their options; the first one that this PyAV has is taken."""

FINEST_TICK = 65535  # MPEG-4's, in parts of a second


@contextlib.contextmanager
def video_writer(
    path: Path, size: tuple[int, int], rate: Fraction
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write frames, RGB uint8 [H, W, 3], of (height, width) to an MP4, which appears once it is
    whole.

    A killed process leaves a hidden file that the next attempt removes. Raise UserError where
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
            stream = container.add_stream(codec, rate=1 / tick, options=CODECS[codec])
            assert isinstance(stream, av.VideoStream)  # as its codec is one of `CODECS`
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
