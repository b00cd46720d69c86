"""TensorBoard's writer, without the TensorFlow that it would import wherever that is installed, as
on Colab, and does not need."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# What TensorBoard itself has in its build without TensorFlow; it looks for this name first.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

from tensorboard.compat.proto.summary_pb2 import Summary as Summary  # noqa: E402
from torch.utils.tensorboard import SummaryWriter as SummaryWriter  # noqa: E402
from torch.utils.tensorboard.summary import hparams as hparams  # noqa: E402


@contextlib.contextmanager
def event_writer(folder: Path, purge_step: int) -> Iterator[SummaryWriter]:
    """Yield a writer of event files, and close it afterwards; older entries from a step on count as
    dropped.

    Inside, an error that ends the writer's thread is not printed: the writer raises it again when
    the next entry is added.
    """
    report = threading.excepthook

    def but_of_writers(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            report(failure)

    threading.excepthook = but_of_writers
    try:
        with SummaryWriter(str(folder), purge_step=purge_step) as writer:
            yield writer
    finally:
        if threading.excepthook is but_of_writers:
            threading.excepthook = report
