import pytest
import torch
from torch import nn

from model.discriminator import SOURCE, TARGET, Discriminator

KINDS = ("conv", "light")


def convolutions(net):
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)]


def probabilities(size=(64, 96), classes=19):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, classes, *size, generator=generator).softmax(1)


def test_the_papers_domain_labels():
    assert (SOURCE, TARGET) == (0, 1)


@pytest.mark.parametrize(("kind", "count"), [("conv", 2_781_121), ("light", 207_809)])
def test_number_of_parameters(kind, count):
    assert sum(p.numel() for p in Discriminator(kind=kind).parameters()) == count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (70, 127), (128, 256)])
def test_one_logit_a_patch_of_32_pixels(size, kind):
    net = Discriminator(num_classes=5, kind=kind, base=4)
    logits = net(probabilities(size, classes=5))
    assert logits.shape == (2, 1, size[0] // 32, size[1] // 32)


def test_five_convolutions_of_stride_2():
    convs = convolutions(Discriminator())
    assert [c.in_channels for c in convs] == [19, 64, 128, 256, 512]
    assert [c.out_channels for c in convs] == [64, 128, 256, 512, 1]
    for conv in convs:
        assert (conv.kernel_size, conv.stride, conv.padding) == ((4, 4), (2, 2), (1, 1))
        assert conv.groups == 1


def test_light_separates_the_three_middle_ones():
    first, *middle, last = convolutions(Discriminator(kind="light"))
    assert (first.in_channels, first.out_channels, first.groups) == (19, 64, 1)
    assert (last.in_channels, last.out_channels, last.groups) == (512, 1, 1)
    for depthwise, pointwise, width in zip(middle[::2], middle[1::2], (64, 128, 256), strict=True):
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == width
        assert (depthwise.kernel_size, depthwise.stride) == ((4, 4), (2, 2))
        assert (pointwise.kernel_size, pointwise.stride) == ((1, 1), (1, 1))
        assert (pointwise.in_channels, pointwise.out_channels) == (width, 2 * width)


@pytest.mark.parametrize("kind", KINDS)
def test_leaky_relu_between_them_and_nothing_else(kind):
    layers = list(Discriminator(kind=kind).layers)
    assert len(layers) == 9
    for activation in layers[1::2]:
        assert isinstance(activation, nn.LeakyReLU) and activation.negative_slope == 0.2
    leaves = [m for layer in layers[::2] for m in layer.modules() if not list(m.children())]
    assert all(isinstance(leaf, nn.Conv2d) for leaf in leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_and_the_input_get_a_gradient(kind):
    net = Discriminator(kind=kind, base=4)
    x = probabilities().requires_grad_()
    net(x).square().mean().backward()
    assert x.grad.abs().sum() > 0
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
