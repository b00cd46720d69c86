"""The domain discriminator of adversarial adaptation (Tsai et al., CVPR 2018, "AdaptSegNet")."""

from collections.abc import Callable

from torch import Tensor, nn

from model.depthwise import HalvingDepthwise

SOURCE, TARGET = 0.0, 1.0
"""Labels of a patch in the discriminator's binary cross-entropy."""

WIDTHS = (1, 2, 4, 8)
"""Channels after the first four convolutions, in units of `base`."""

KERNEL = 4
LEAK = 0.2


class Discriminator(nn.Module):
    """Five convolutions that each halve the map, with LeakyReLU between and no normalisation.

    It takes class probabilities [N, C, H, W] at the size of the image, from 32 pixels a side, and
    returns one logit a patch, [N, 1, H // 32, W // 32]: above 0 is `TARGET`.

    Args:
        num_classes: channels of the probabilities.
        kind: a key of `KINDS`.
        base: the unit of all widths.
    """

    def __init__(self, num_classes: int = 19, kind: str = "conv", base: int = 64):
        super().__init__()
        first, *middle = (width * base for width in WIDTHS)
        layers: list[nn.Module] = [_halve(num_classes, first)]
        for width in middle:
            layers += [nn.LeakyReLU(LEAK, inplace=True), KINDS[kind](width // 2, width)]
        self.layers = nn.Sequential(
            *layers, nn.LeakyReLU(LEAK, inplace=True), _halve(middle[-1], 1)
        )

    def forward(self, probabilities: Tensor) -> Tensor:
        return self.layers(probabilities)


def _halve(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, KERNEL, stride=2, padding=1)


def _halve_separably(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a depthwise convolution, then a pointwise one, whose bias serves both."""
    depthwise = HalvingDepthwise(channels_in, KERNEL)
    return nn.Sequential(depthwise, nn.Conv2d(channels_in, channels_out, 1))


KINDS: dict[str, Callable[[int, int], nn.Module]] = {"conv": _halve, "light": _halve_separably}
"""The three middle convolutions: plain, or depthwise-separable."""
