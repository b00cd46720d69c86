"""The flags of the network."""

import dataclasses
from pathlib import Path

from model.catalog import NETWORKS
from model.stdcnet import BACKBONES
from utils.cli.options import NETWORK, Options, flag

WIDEST = 512
"""Largest `--base_width`: eight times the paper's, half a billion weights."""


def width(value: int) -> None:
    """Raise ValueError unless the value is a width that the network can have."""
    if not 8 <= value <= WIDEST or value % 2:
        raise ValueError(f"must be an even number from 8 to {WIDEST}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options, group=NETWORK):
    """Its size, and the weights it starts from."""

    network: str = flag(
        "bisenet",
        "STDC-BiSeNet or PP-LiteSeg, both on --backbone; a trained run is read with its own",
        choices=tuple(NETWORKS),
    )
    backbone: str = flag("stdc1", "STDC813 or STDC1446", choices=tuple(BACKBONES))
    base_width: int = flag(
        64,
        "number of channels from which all widths of the network follow; the paper has 64",
        check=width,
    )
    pretrain_path: Path | None = flag(
        None,
        "ImageNet weights of the backbone (STDCNet813M_73.91.tar); without them training starts "
        "from random weights; not read when a checkpoint is loaded",
        metavar="FILE",
        affects_result=False,  # its content does, wherever it lies
        may_be_empty=True,  # as in the notebook; the training says that its weights are random
    )
    load_model_path: Path | None = flag(
        None,
        "checkpoint to score or to start training from: ours, a plain state dict, or an official "
        "STDC-Seg one",
        metavar="FILE",
        affects_result=False,
    )
