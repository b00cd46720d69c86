"""The table of networks: a new network is its file and a row here."""

from collections.abc import Mapping
from typing import NamedTuple

from model.model_stages import BiSeNet
from model.network import Network
from model.pp_liteseg import PPLiteSeg

NETWORKS: Mapping[str, type[Network]] = {"bisenet": BiSeNet, "pp_liteseg": PPLiteSeg}
"""Every network by its name."""


class Design(NamedTuple):
    """Record from which a run's network is built again; each field is the flag of that name.

    Attributes:
        network: a key of `NETWORKS`.
        backbone: a key of `model.stdcnet.BACKBONES`.
        base_width: the unit of all widths.
    """

    network: str = "bisenet"
    backbone: str = "stdc1"
    base_width: int = 64

    def build(self, num_classes: int = 19) -> Network:
        """Return such a network with random weights."""
        return NETWORKS[self.network](num_classes, self.backbone, self.base_width)


RECORDED = Design._fields
"""The settings that a run records to build its network again."""


def design_of(network: Network) -> Design:
    """Return what builds such a network."""
    (name,) = (name for name, kind in NETWORKS.items() if type(network) is kind)
    return Design(name, network.backbone_kind, network.base)
