"""A trained network as it is used: its batch norms inside its convolutions."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.model_stages import BiSeNet

PAIRS = (("conv", "bn"), ("conv_atten", "bn_atten"), ("0", "1"))
"""Names under which a convolution and its norm lie in one module."""


def folded(network: BiSeNet) -> BiSeNet:
    """A copy in evaluation mode that computes the same, but for rounding, without batch norms."""
    result = copy.deepcopy(network).eval()
    for module in list(result.modules()):
        for convolution, norm in PAIRS:
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, fused)
                setattr(module, norm, nn.Identity())
    return result
