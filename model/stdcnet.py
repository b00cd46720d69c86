"""The STDC backbones (Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR
2021), without the ImageNet classifier, so that every parameter takes part in segmentation.

Modules carry the names of the official checkpoints: `features.N`, `conv_list.N.{conv,bn}`,
`avd_layer.N`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from model.depthwise import HalvingDepthwise

BACKBONES = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
"""Blocks in the stages at strides 8, 16 and 32: STDCNet813 and STDCNet1446."""

STAGE_WIDTHS = (4, 8, 16)
"""Channels of those stages, in units of `base`."""

FOLDING_PAIRS = (("conv", "bn"), ("0", "1"))
"""Names under which a convolution and its norm lie in one module of the backbone."""


class ConvX(nn.Module):
    """Convolution without bias, batch norm, ReLU; the size becomes ceil(size / stride)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class CatBlock(nn.Module):
    """Short-term dense concatenation (section 3.1): [N, C_in, H, W] -> [N, C_out, H/s, W/s].

    Four convolutions in a row give 1/2, 1/4, 1/8 and 1/8 of the output's channels. At stride 2 the
    first one's output is halved in size twice: by a depthwise convolution for the next convolution,
    by average pooling for the concatenation.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        half, quarter, eighth = channels_out // 2, channels_out // 4, channels_out // 8
        self.conv_list = nn.ModuleList(
            [
                ConvX(channels_in, half, kernel=1),
                ConvX(half, quarter),
                ConvX(quarter, eighth),
                ConvX(eighth, eighth),
            ]
        )
        self.avd_layer = _depthwise(half) if stride == 2 else nn.Identity()
        self.skip = HalvingPool() if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_list[0](x)
        x = self.avd_layer(first)
        outputs = [self.skip(first)]
        for conv in self.conv_list[1:]:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def _depthwise(channels: int) -> nn.Sequential:
    return nn.Sequential(HalvingDepthwise(channels), nn.BatchNorm2d(channels))


class HalvingPool(nn.AvgPool2d):
    """Average pooling over 3x3 at stride 2, padding counted; on CUDA with a gradient of its own.

    Until the middle of 2026, torch's own CUDA gradient was wrong with padding and channels last
    (https://github.com/pytorch/pytorch/issues/188344).
    """

    def __init__(self) -> None:
        super().__init__(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cuda" and x.requires_grad:
            return PoolWithOwnGradient.apply(x)
        return super().forward(x)


class PoolWithOwnGradient(Function):
    """Average pooling of x [N, C, H, W] over 3x3 at stride 2 with padding 1, which is counted.

    Along each axis, every other line of x lies in one window, and the lines between lie in two. In
    half precision the gradient is rounded after each axis, to 0.3 % in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[-2:]
        return F.avg_pool2d(x, 3, 2, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        slope = upstream.permute(0, 2, 3, 1) / 9
        for axis, size in enumerate(ctx.size, 1):
            of_two = slope.clone()
            of_two.narrow(axis, 0, slope.shape[axis] - 1).add_(
                slope.narrow(axis, 1, slope.shape[axis] - 1)
            )
            lines = torch.stack((slope, of_two), axis + 1).flatten(axis, axis + 1)
            slope = lines.narrow(axis, 0, size)
        return slope.permute(0, 3, 1, 2)


class STDCNet(nn.Module):
    """The feature extractor.

    Args:
        blocks: blocks per stage, a value of `BACKBONES`.
        base: the unit of all widths, an even number; the paper's is 64.
    """

    def __init__(self, blocks: tuple[int, int, int] = BACKBONES["stdc1"], base: int = 64):
        super().__init__()
        assert base % 2 == 0, "the narrowest convolutions have base / 2 channels"
        self.base = base
        layers: list[nn.Module] = [ConvX(3, base // 2, stride=2), ConvX(base // 2, base, stride=2)]
        channels = base
        self.stage_ends = []
        for count, width in zip(blocks, STAGE_WIDTHS, strict=True):
            for position in range(count):
                layers.append(CatBlock(channels, width * base, stride=2 if position == 0 else 1))
                channels = width * base
            self.stage_ends.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return, for normalised images [N, 3, H, W], maps at 1/8, 1/16 and 1/32 of the size
        (rounded up) with 4, 8 and 16 times `base` channels."""
        stages = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.stage_ends:
                stages.append(x)
        x8, x16, x32 = stages
        return x8, x16, x32
