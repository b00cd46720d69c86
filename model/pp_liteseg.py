"""PP-LiteSeg (Peng et al., "PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model", 2022):
the STDC backbone, pyramid pooling at stride 32, and a decoder that fuses by attention at strides 16
and 8.

Widths are multiples of `base`; at 64 they are the paper's, on stdc1 those of PP-LiteSeg-T and on
stdc2 those of PP-LiteSeg-B.
"""

from functools import reduce
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network import Network, SegmentationHead
from model.stdcnet import BACKBONES, FOLDING_PAIRS, STAGE_WIDTHS, ConvX, STDCNet

DECODER_WIDTHS = {"stdc1": (1, 2, 4), "stdc2": (2, 3, 4)}
"""Channels of the decoder at strides 8, 16 and 32, in units of base / 2: PP-LiteSeg-T has 32, 64
and 128, PP-LiteSeg-B 64, 96 and 128."""

BINS = (1, 2, 4)
"""Sides of the pyramid's average pools."""


class PooledContext(nn.Module):
    """The mean of a map in `side` x `side` bins, through a 1x1 convolution: [N, C_in, H, W] ->
    [N, C_out, side, side]."""

    def __init__(self, channels_in: int, channels_out: int, side: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.conv = ConvX(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


class SimplePyramidPooling(nn.Module):
    """Context of the deepest map: [N, C_in, H, W] -> [N, C_out, H, W].

    The map is averaged in 1x1, 2x2 and 4x4 bins; a 1x1 convolution of each, enlarged, is summed.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.pools = nn.ModuleList(PooledContext(channels_in, channels_out, side) for side in BINS)
        self.conv = ConvX(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        contexts = [_enlarge_to(x, pool(x)) for pool in self.pools]
        return self.conv(reduce(torch.add, contexts))


class UnifiedAttentionFusion(nn.Module):
    """Fuse a deeper map with a shallower one of the backbone by attention at each position.

        alpha = sigmoid(conv(mean_c(up), max_c(up), mean_c(low), max_c(low)))
        out   = alpha * up + (1 - alpha) * low

    mean_c and max_c are over channels; `up` is the deeper map enlarged, `low` the shallower one
    with as many channels. conv is two 3x3 convolutions; a third one then gives the output's
    channels.
    """

    def __init__(self, channels_low: int, channels_high: int, channels_out: int):
        super().__init__()
        self.conv_low = ConvX(channels_low, channels_high)
        self.attention = nn.Sequential(
            ConvX(4, 2),
            nn.Sequential(nn.Conv2d(2, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1)),
        )
        self.conv_out = ConvX(channels_high, channels_out)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Fuse low [N, C_low, H, W] and high [N, C_high, h, w] into [N, C_out, H, W]."""
        low = self.conv_low(low)
        up = _enlarge_to(low, high)
        seen = [f(x, dim=1, keepdim=True) for x in (up, low) for f in (torch.mean, torch.amax)]
        alpha = self.attention(torch.cat(seen, dim=1)).sigmoid()
        return self.conv_out(alpha * up + (1 - alpha) * low)


class PPLiteSeg(Network):
    """PP-LiteSeg; see `Network` for what it takes and gives.

    `heads` are the main one at stride 8 and, as in the authors' release, an auxiliary one each on
    the decoder's maps at strides 16 and 32.
    """

    title: ClassVar[str] = "PP-LiteSeg"
    head_weights: ClassVar[tuple[float, ...]] = (1.0, 1.0, 1.0)
    backbone_name: ClassVar[str] = "encoder"
    head_names: ClassVar[tuple[str, ...]] = ("fuse16", "fuse8", "head8", "head16", "head32")
    training_only: ClassVar[str] = r"(head(16|32)|conv_out_sp8)\."
    folding_pairs: ClassVar[tuple[tuple[str, str], ...]] = FOLDING_PAIRS

    def __init__(self, num_classes: int = 19, backbone: str = "stdc1", base: int = 64):
        super().__init__(num_classes, backbone, base)
        width8, width16, width32 = (width * base // 2 for width in DECODER_WIDTHS[backbone])
        low8, low16, low32 = (width * base for width in STAGE_WIDTHS)
        self.encoder = STDCNet(BACKBONES[backbone], base)
        self.pooling = SimplePyramidPooling(low32, width32)
        self.fuse16 = UnifiedAttentionFusion(low16, width32, width16)
        self.fuse8 = UnifiedAttentionFusion(low8, width16, width8)
        self.head8 = SegmentationHead(width8, width8, num_classes)
        self.head16 = SegmentationHead(width16, base, num_classes)
        self.head32 = SegmentationHead(width32, base, num_classes)
        self._initialise_decoder()

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        x8, x16, x32 = self.encoder(self._normalise(x))
        d32 = self.pooling(x32)
        d16 = self.fuse16(x16, d32)
        return x8, self.fuse8(x8, d16), d16, d32

    def _main_head(self, features: tuple[Tensor, ...]) -> Tensor:
        _, d8, _, _ = features
        return self.head8(d8)

    def _auxiliary_heads(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, _, d16, d32 = features
        return self.head16(d16), self.head32(d32)


def _enlarge_to(target: Tensor, x: Tensor) -> Tensor:
    """Enlarge x [N, C, h, w] bilinearly to the height and width of the target."""
    return F.interpolate(x, target.shape[-2:], mode="bilinear", align_corners=False)
