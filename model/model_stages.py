"""STDC-BiSeNet (Fan et al., CVPR 2021): the STDC backbone, a context path with attention, the
fusion of both at stride 8, and three segmentation heads.

Modules carry the names of the official checkpoints. All widths are multiples of `base`; at the
paper's 64 they are the paper's.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network import DETAIL_HEADS, Network, SegmentationHead
from model.stdcnet import BACKBONES, FOLDING_PAIRS, STAGE_WIDTHS, ConvX, STDCNet
from model.weights.official import BACKBONE_SURPLUS, for_batch_norm

CONTEXT_WIDTH = 2
"""Channels of the context path, in units of `base`; likewise the next three."""
FUSION_WIDTH = 4
MAIN_HEAD_WIDTH = 4
AUX_HEAD_WIDTH = 1
ATTENTION_REDUCTION = 4


class AttentionRefinement(nn.Module):
    """[N, C_in, H, W] -> [N, C_out, H, W]: features times one attention in 0..1 per channel."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv = ConvX(channels_in, channels_out)
        self.conv_atten = nn.Conv2d(channels_out, channels_out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        attention = self.bn_atten(self.conv_atten(_global_average(features)))
        return features * attention.sigmoid()


class ContextPath(nn.Module):
    """The backbone, and its two deepest stages brought back to strides 16 and 8."""

    def __init__(self, backbone: STDCNet):
        super().__init__()
        _, width16, width32 = (width * backbone.base for width in STAGE_WIDTHS)
        context = CONTEXT_WIDTH * backbone.base
        self.backbone = backbone
        self.arm16 = AttentionRefinement(width16, context)
        self.arm32 = AttentionRefinement(width32, context)
        self.conv_head32 = ConvX(context, context)
        self.conv_head16 = ConvX(context, context)
        self.conv_avg = ConvX(width32, context, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return, for normalised images, the backbone's map at stride 8 and the context at strides
        8 and 16."""
        x8, x16, x32 = self.backbone(x)
        deepest = self.arm32(x32) + self.conv_avg(_global_average(x32))
        context16 = self.conv_head32(_enlarge_to(x16, deepest))
        context8 = self.conv_head16(_enlarge_to(x8, self.arm16(x16) + context16))
        return x8, context8, context16


class FeatureFusion(nn.Module):
    """out = f * a + f, with f the mixed inputs and a in 0..1 one attention per channel."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        reduced = channels_out // ATTENTION_REDUCTION
        self.convblk = ConvX(channels_in, channels_out, kernel=1)
        self.conv1 = nn.Conv2d(channels_out, reduced, 1, bias=False)
        self.conv2 = nn.Conv2d(reduced, channels_out, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        features = self.convblk(torch.cat([spatial, context], dim=1))
        attention = self.conv2(self.conv1(_global_average(features)).relu()).sigmoid()
        return features * attention + features


class BiSeNet(Network):
    """STDC-BiSeNet; see `Network` for what it takes and gives.

    `heads` are the main one and, from the context path, an auxiliary one each at strides 8 and 16.
    """

    title: ClassVar[str] = "STDC-BiSeNet"
    head_weights: ClassVar[tuple[float, ...]] = (1.0, 1.0, 1.0)
    backbone_name: ClassVar[str] = "cp.backbone"
    head_names: ClassVar[tuple[str, ...]] = ("ffm", "conv_out", "conv_out16", "conv_out32")
    training_only: ClassVar[str] = r"conv_out(16|32|_sp8)\."
    folding_pairs: ClassVar[tuple[tuple[str, str], ...]] = (
        *FOLDING_PAIRS,
        ("conv_atten", "bn_atten"),
    )
    official_surplus: ClassVar[str] = rf"cp\.backbone\.{BACKBONE_SURPLUS}|{DETAIL_HEADS}"

    def __init__(self, num_classes: int = 19, backbone: str = "stdc1", base: int = 64):
        super().__init__(num_classes, backbone, base)
        context, fused = CONTEXT_WIDTH * base, FUSION_WIDTH * base
        self.cp = ContextPath(STDCNet(BACKBONES[backbone], base))
        self.ffm = FeatureFusion(STAGE_WIDTHS[0] * base + context, fused)
        self.conv_out = SegmentationHead(fused, MAIN_HEAD_WIDTH * base, num_classes)
        self.conv_out16 = SegmentationHead(context, AUX_HEAD_WIDTH * base, num_classes)
        self.conv_out32 = SegmentationHead(context, AUX_HEAD_WIDTH * base, num_classes)
        self._initialise_decoder()

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.cp(self._normalise(x))

    def _main_head(self, features: tuple[Tensor, ...]) -> Tensor:
        x8, context8, _ = features
        return self.conv_out(self.ffm(x8, context8))

    def _auxiliary_heads(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, context8, context16 = features
        return self.conv_out16(context8), self.conv_out32(context16)

    @classmethod
    def from_official(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return for_batch_norm(tensors, f"{cls.backbone_name}.")


def _global_average(x: Tensor) -> Tensor:
    """Average over all positions: [N, C, H, W] -> [N, C, 1, 1]."""
    return x.mean((2, 3), keepdim=True)


def _enlarge_to(target: Tensor, x: Tensor) -> Tensor:
    """Enlarge x [N, C, h, w] to the height and width of the target, nearest neighbour; a factor of
    2 would miss odd sizes by a pixel."""
    return F.interpolate(x, target.shape[-2:], mode="nearest")
