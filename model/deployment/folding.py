"""A trained network as it is used: its batch norms inside its convolutions."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.network import Network


def folded(network: Network) -> Network:
    """Return a folded copy; a network in evaluation mode without batch norms is returned itself."""
    norms = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return fold(copy.deepcopy(network)) if norms or network.training else network


def fold(network: Network) -> Network:
    """Merge each batch norm into its convolution, in place; return the network in evaluation mode.

    Results change by rounding alone.
    """
    network.eval()
    for module in list(network.modules()):
        for convolution, norm in network.folding_pairs:
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, fused)
                setattr(module, norm, nn.Identity())
    return network
