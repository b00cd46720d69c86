"""TensorBoard's writer, without the TensorFlow that it would import wherever that is installed, as
on Colab, and does not need."""

import sys
from types import ModuleType

# What TensorBoard itself has in its build without TensorFlow; it looks for this name first.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

from tensorboard.compat.proto.summary_pb2 import Summary as Summary  # noqa: E402
from torch.utils.tensorboard import SummaryWriter as SummaryWriter  # noqa: E402
from torch.utils.tensorboard.summary import hparams as hparams  # noqa: E402
