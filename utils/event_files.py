"""TensorBoard's writer, without the TensorFlow that it would import wherever that is installed, as
on Colab, and does not need."""

import sys
import threading
from types import ModuleType

# What TensorBoard itself has in its build without TensorFlow; it looks for this name first.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

from tensorboard.compat.proto.summary_pb2 import Summary as Summary  # noqa: E402
from torch.utils.tensorboard import SummaryWriter as SummaryWriter  # noqa: E402
from torch.utils.tensorboard.summary import hparams as hparams  # noqa: E402

_report = threading.excepthook


def _but_of_writers(failure: threading.ExceptHookArgs) -> None:
    """Report what ended a thread, unless it wrote an event file: the writer raises its error again
    when the next entry is added."""
    if not type(failure.thread).__module__.startswith("tensorboard."):
        _report(failure)


threading.excepthook = _but_of_writers
