"""Draw a run's curves and pictures in TensorBoard."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.disk.run_files import HISTORY
from utils.event_files import Summary, SummaryWriter, event_writer


class Board:
    """Writes to TensorBoard's folder of a run, in the process that `writes`."""

    def __init__(self, path: Path, *, writes: bool):
        self.path, self.writes = path, writes
        self._writer: SummaryWriter | None = None
        self._open = contextlib.ExitStack()
        self._lost = False

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add points to TensorBoard's curves."""

        def add(board: SummaryWriter) -> None:
            for tag, value in values.items():
                board.add_scalar(tag, value, step)

        self._draw(step, add)

    def show(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Show a picture, RGB uint8 [H, W, 3], in TensorBoard."""
        self._draw(step, lambda board: board.add_image(tag, picture, step, dataformats="HWC"))

    def describe(self, summary: Summary, step: int) -> None:
        """Write a summary for a plugin of TensorBoard, such as the table of runs."""
        self._draw(
            step,
            lambda board: board.file_writer.add_summary(summary, step),  # type: ignore[attr-defined]  # torch types it as None
        )

    def _draw(self, step: int, add: Callable[[SummaryWriter], Any]) -> None:
        """Add to TensorBoard; entries of an earlier attempt from `step` on are dropped.

        A run needs no curves: where they cannot be written, it warns once and goes on without.
        """
        if not self.writes or self._lost:
            return
        with self._warning_if_lost():
            if self._writer is None:
                self._writer = self._open.enter_context(event_writer(self.path, purge_step=step))
            add(self._writer)

    @contextlib.contextmanager
    def _warning_if_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._lost:
                self._lost = True
                print(
                    f"warning: {self.path} cannot be written ({error.strerror}): "
                    f"the run goes on without it; {HISTORY} still gets a row per epoch",
                    flush=True,
                )

    def close(self) -> None:
        """Close what has been opened in TensorBoard's folder."""
        with self._warning_if_lost():
            self._open.close()
        self._writer = None
