"""Define the segmentation networks of this project; `model/catalog.py` lists them."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.labels import CITYSCAPES
from model.stdcnet import STAGE_WIDTHS, ConvX, STDCNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHITE = 255

DETAIL_HEAD = "conv_out_sp8"
"""Name of the module that is the detail head, as in the official checkpoints."""

DETAIL_HEADS = r"conv_out_sp(2|4|8|16)\."
"""Pattern of the names in the official detail heads, of which we have that at stride 8."""


class Network(nn.Module):
    """Base of every segmentation network: an STDC backbone, a decoder, and segmentation heads.

    A network takes RGB images [N, 3, H, W] in 0..255, uint8 or floating, of any size from 64 pixels
    a side, and normalises them itself. In training mode a batch needs two images or more, because
    batch norm meets maps of one pixel.

    Args:
        num_classes: channels of the logits; the default is Cityscapes'.
        backbone: a key of `model.stdcnet.BACKBONES`.
        base: the unit of all widths, an even number; at 64 they are the paper's.

    Attributes:
        classes: what the channels of the logits stand for, of which whoever builds a network of
            others tells it.
        title: the network's name in tables.
        head_weights: factor of each head's cross-entropy in the loss, in the order of `heads`.
        backbone_name: name of the module that is the backbone.
        head_names: names of the modules that the paper trains at a rate of their own.
        training_only: pattern of the names of tensors that only training uses.
        folding_pairs: names under which a convolution and its norm lie in one module.
        official_surplus: pattern of the names of tensors that the authors' files have and this
            network does without.
    """

    title: ClassVar[str]
    head_weights: ClassVar[tuple[float, ...]]
    backbone_name: ClassVar[str]
    head_names: ClassVar[tuple[str, ...]]
    training_only: ClassVar[str]
    folding_pairs: ClassVar[tuple[tuple[str, str], ...]]
    official_surplus: ClassVar[str] = DETAIL_HEADS
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int = 19, backbone: str = "stdc1", base: int = 64):
        super().__init__()
        self.num_classes, self.backbone_kind, self.base = num_classes, backbone, base
        self.classes = CITYSCAPES
        # Not in the state dict: they are constants, and official checkpoints have no such names.
        self.register_buffer("mean", _per_channel(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", _per_channel(IMAGENET_STD), persistent=False)

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return, for an image, the backbone's map at stride 8 and then what the heads take."""
        raise NotImplementedError

    def _main_head(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return the logits of the main head."""
        raise NotImplementedError

    def _auxiliary_heads(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the logits of each auxiliary head."""
        raise NotImplementedError

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits of the main head, [N, num_classes, ceil(H / 8), ceil(W / 8)], and of each
        auxiliary head at a resolution of its own."""
        return self._heads(self._features(x))

    def main_logits(self, x: Tensor) -> Tensor:
        """Return logits of the main head alone, [N, num_classes, ceil(H / 8), ceil(W / 8)]."""
        return self._main_head(self._features(x))

    def heads_and_detail(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the `heads`, and logits of the detail [N, 1, ceil(H / 8), ceil(W / 8)]; None
        without a detail head."""
        features = self._features(x)
        detail = None if self.detail_head is None else self.detail_head(features[0])
        return self._heads(features), detail

    def _heads(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._main_head(features), *self._auxiliary_heads(features)

    def forward(self, x: Tensor) -> Tensor:
        """Return main logits at the input's size, [N, num_classes, H, W]."""
        logits = self.main_logits(x)
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)

    @property
    def backbone(self) -> STDCNet:
        backbone = self.get_submodule(self.backbone_name)
        assert isinstance(backbone, STDCNet)
        return backbone

    @property
    def detail_head(self) -> nn.Module | None:
        """The head that `add_detail_head` has added, if it has."""
        return getattr(self, DETAIL_HEAD, None)

    def add_detail_head(self) -> None:
        """Add the head of detail guidance with random weights; only training uses it."""
        head = SegmentationHead(STAGE_WIDTHS[0] * self.base, self.base, 1)
        _initialise(head)
        self.add_module(DETAIL_HEAD, head)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters whose learning rate `--head_lr_mult` multiplies."""
        detail = [self.detail_head] if self.detail_head else []
        modules = (*map(self.get_submodule, self.head_names), *detail)
        return chain.from_iterable(module.parameters() for module in modules)

    def deployed_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that the main logits depend on."""
        named = self.named_parameters()
        return (p for name, p in named if not re.match(self.training_only, name))

    @classmethod
    def from_official(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a file with the meaning that they have in this network."""
        return dict(tensors)

    def _normalise(self, x: Tensor) -> Tensor:
        # The buffers' type is float32 unless the whole network was cast, also under autocast,
        # which leaves sums and quotients in the type they have.
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def _initialise_decoder(self) -> None:
        """Draw the weights outside the backbone, which has drawn its own."""
        inside = set(self.backbone.modules())
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module not in inside:
                _initialise(module)


def _initialise(module: nn.Module) -> None:
    """Draw the weights of convolutions as STDC's paper does outside the backbone."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, a=1)


class SegmentationHead(nn.Module):
    """[N, C, H, W] -> logits [N, num_classes, H, W]."""

    def __init__(self, channels: int, mid_channels: int, num_classes: int):
        super().__init__()
        self.conv = ConvX(channels, mid_channels)
        self.conv_out = nn.Conv2d(mid_channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    """Turn ImageNet's statistics of 0..1 into those of 0..255, [3, 1, 1]."""
    return WHITE * torch.tensor(values).view(3, 1, 1)
