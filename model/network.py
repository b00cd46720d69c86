"""What a segmentation network of this project is; `model/catalog.py` lists them."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.stdcnet import STDCNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHITE = 255

NOTHING = r"(?!)"
"""Pattern that no name matches."""


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
    official_surplus: ClassVar[str] = NOTHING

    def __init__(self, num_classes: int = 19, backbone: str = "stdc1", base: int = 64):
        super().__init__()
        self.num_classes, self.backbone_kind, self.base = num_classes, backbone, base
        # Not in the state dict: they are constants, and official checkpoints have no such names.
        self.register_buffer("mean", _per_channel(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", _per_channel(IMAGENET_STD), persistent=False)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits of the main head, [N, num_classes, ceil(H / 8), ceil(W / 8)], and of each
        auxiliary head at a resolution of its own."""
        raise NotImplementedError

    def main_logits(self, x: Tensor) -> Tensor:
        """Return logits of the main head alone, [N, num_classes, ceil(H / 8), ceil(W / 8)]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return main logits at the input's size, [N, num_classes, H, W]."""
        logits = self.main_logits(x)
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)

    @property
    def backbone(self) -> STDCNet:
        backbone = self.get_submodule(self.backbone_name)
        assert isinstance(backbone, STDCNet)
        return backbone

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters whose learning rate `--head_lr_mult` multiplies."""
        modules = map(self.get_submodule, self.head_names)
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
        """Draw the weights outside the backbone, which has initialised itself, as STDC's paper."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith(f"{self.backbone_name}."):
                nn.init.kaiming_normal_(module.weight, a=1)


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    """ImageNet statistics of 0..1 as those of 0..255, [3, 1, 1]."""
    return WHITE * torch.tensor(values).view(3, 1, 1)
