"""A trained network as it is used: its batch norms inside its convolutions."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.network import Network


def folded(network: Network) -> Network:
    """Return a copy in evaluation mode that computes the same, but for rounding, without batch
    norms."""
    result = copy.deepcopy(network).eval()
    for module in list(result.modules()):
        for convolution, norm in network.folding_pairs:
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, fused)
                setattr(module, norm, nn.Identity())
    return result
