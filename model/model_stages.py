"""STDC-BiSeNet (Fan et al., CVPR 2021): the STDC backbone, a context path with attention, the
fusion of both at stride 8, and three segmentation heads.

Modules carry the names of the official checkpoints. All widths are multiples of `base`; at the
paper's 64 they are the paper's.
"""

from collections.abc import Iterator
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.stdcnet import BACKBONES, STAGE_WIDTHS, ConvX, STDCNet

CONTEXT_WIDTH = 2
"""Channels of the context path, in units of `base`; likewise the next three."""
FUSION_WIDTH = 4
MAIN_HEAD_WIDTH = 4
AUX_HEAD_WIDTH = 1
ATTENTION_REDUCTION = 4

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHITE = 255

BACKBONE_PREFIX = "cp.backbone."
"""What the backbone's names begin with in the state dict of a `BiSeNet`."""


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
        """Normalised images -> the backbone's map at stride 8, the context at strides 8 and 16."""
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


class SegmentationHead(nn.Module):
    """[N, C, H, W] -> logits [N, num_classes, H, W]."""

    def __init__(self, channels: int, mid_channels: int, num_classes: int):
        super().__init__()
        self.conv = ConvX(channels, mid_channels)
        self.conv_out = nn.Conv2d(mid_channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """The segmentation network.

    It takes RGB images [N, 3, H, W] in 0..255, uint8 or floating, of any size from 64 pixels a
    side, and normalises them itself. In training mode a batch needs two images or more, because
    batch norm meets maps of one pixel.

    Args:
        num_classes: channels of the logits; the default is Cityscapes'.
        backbone: a key of `BACKBONES`.
        base: the unit of all widths, an even number.
    """

    def __init__(self, num_classes: int = 19, backbone: str = "stdc1", base: int = 64):
        super().__init__()
        context, fused = CONTEXT_WIDTH * base, FUSION_WIDTH * base
        self.cp = ContextPath(STDCNet(BACKBONES[backbone], base))
        self.ffm = FeatureFusion(STAGE_WIDTHS[0] * base + context, fused)
        self.conv_out = SegmentationHead(fused, MAIN_HEAD_WIDTH * base, num_classes)
        self.conv_out16 = SegmentationHead(context, AUX_HEAD_WIDTH * base, num_classes)
        self.conv_out32 = SegmentationHead(context, AUX_HEAD_WIDTH * base, num_classes)
        # Not in the state dict: they are constants, and official checkpoints have no such names.
        self.register_buffer("mean", _per_channel(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", _per_channel(IMAGENET_STD), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """The paper's choice outside the backbone, which has initialised itself."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith(BACKBONE_PREFIX):
                nn.init.kaiming_normal_(module.weight, a=1)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the main head at 1/8 of the input's size and of the auxiliary heads at 1/8 and
        1/16, sizes rounded up."""
        x8, context8, context16 = self.cp(self._normalise(x))
        main = self.conv_out(self.ffm(x8, context8))
        return main, self.conv_out16(context8), self.conv_out32(context16)

    def main_logits(self, x: Tensor) -> Tensor:
        """Logits of the main head alone, [N, num_classes, ceil(H / 8), ceil(W / 8)]."""
        x8, context8, _ = self.cp(self._normalise(x))
        return self.conv_out(self.ffm(x8, context8))

    def forward(self, x: Tensor) -> Tensor:
        """Main logits at the input's size, [N, num_classes, H, W]."""
        logits = self.main_logits(x)
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that the paper trains at ten times the learning rate."""
        modules = (self.ffm, self.conv_out, self.conv_out16, self.conv_out32)
        return chain.from_iterable(module.parameters() for module in modules)

    def _normalise(self, x: Tensor) -> Tensor:
        # The buffers' type is float32 unless the whole network was cast, also under autocast,
        # which leaves sums and quotients in the type they have.
        return (x.to(self.mean.dtype) - self.mean) / self.std


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    """ImageNet statistics of 0..1 as those of 0..255, [3, 1, 1]."""
    return WHITE * torch.tensor(values).view(3, 1, 1)


def _global_average(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 1, 1]."""
    return x.mean((2, 3), keepdim=True)


def _enlarge_to(target: Tensor, x: Tensor) -> Tensor:
    """x [N, C, h, w], nearest neighbour, at the height and width of the target; a factor of 2
    would miss odd sizes by a pixel."""
    return F.interpolate(x, target.shape[-2:], mode="nearest")
