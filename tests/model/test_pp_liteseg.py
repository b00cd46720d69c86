"""PP-LiteSeg (Peng et al., 2022) against its paper, and its modules against plain numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from model.deployment.deployed import BinsByProduct
from model.pp_liteseg import PPLiteSeg, SimplePyramidPooling, UnifiedAttentionFusion

STDC = {"stdc1": 5_318_304, "stdc2": 9_348_768}
"""Parameters of the backbones without their classifiers."""


def conv(channels_in, channels_out, kernel=3):
    """Weights of a convolution without bias and of its batch norm."""
    return channels_in * channels_out * kernel**2 + 2 * channels_out


def fusion(low, high, out):
    return conv(low, high) + conv(4, 2) + conv(2, 1) + conv(high, out)


def head(channels, middle):
    return conv(channels, middle) + 19 * middle


@pytest.mark.parametrize(
    ("backbone", "widths"), [("stdc1", (32, 64, 128)), ("stdc2", (64, 96, 128))], ids=["T", "B"]
)
def test_the_decoder_has_the_papers_widths(backbone, widths):
    """Table 1: 32, 64, 128 channels of PP-LiteSeg-T, 64, 96, 128 of PP-LiteSeg-B."""
    d8, d16, d32 = widths
    pooling = 3 * conv(1024, d32, kernel=1) + conv(d32, d32)
    deployed = pooling + fusion(512, d32, d16) + fusion(256, d16, d8) + head(d8, d8)
    with torch.device("meta"):
        network = PPLiteSeg(backbone=backbone)
    count = sum(parameter.numel() for parameter in network.deployed_parameters())
    assert count == STDC[backbone] + deployed
    trained = head(d16, 64) + head(d32, 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == count + trained


@pytest.mark.parametrize("size", [(64, 64), (65, 67), (97, 131)])
def test_the_heads_are_at_strides_8_16_and_32(size):
    images = torch.zeros(2, 3, *size)
    for logits, stride in zip(PPLiteSeg(base=8).heads(images), (8, 16, 32), strict=True):
        assert logits.shape == (2, 19, *(-(-side // stride) for side in size))


def drawn(module):
    """The module in float64 and evaluation mode, with statistics unlike 0 and 1."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (part.bias, part.running_mean):
                nn.init.uniform_(tensor, -1, 1)
    return module.double().eval()


def plain_conv(weights, norm, x):
    """Convolution with zeros around x [C, H, W], batch norm; no activation."""
    weight = weights.weight.detach().numpy()
    side, (_, height, width) = weight.shape[-1], x.shape
    x = np.pad(x, ((0, 0), *[(side // 2, side // 2)] * 2))
    y = sum(
        np.einsum("oi,ihw->ohw", weight[:, :, i, j], x[:, i : i + height, j : j + width])
        for i in range(side)
        for j in range(side)
    )
    scale, shift, mean, var = (
        tensor.detach().numpy()[:, None, None]
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return scale * (y - mean) / np.sqrt(var + norm.eps) + shift


def plain_conv_x(module, x):
    return np.maximum(plain_conv(module.conv, module.bn, x), 0)


def plain_matrix(size, target):
    """Rows that enlarge a line bilinearly: pixel centres lie at (i + 1/2) size / target - 1/2."""
    matrix = np.zeros((target, size))
    for row in range(target):
        place = min(max((row + 0.5) * size / target - 0.5, 0), size - 1)
        low = min(int(place), size - 2) if size > 1 else 0
        matrix[row, low] += 1 - (place - low)
        matrix[row, min(low + 1, size - 1)] += place - low
    return matrix


def plain_enlarged(x, height, width):
    return plain_matrix(x.shape[1], height) @ x @ plain_matrix(x.shape[2], width).T


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (2, 3)])
def test_unified_attention_fusion_is_the_papers_equation(size):
    module = drawn(UnifiedAttentionFusion(5, 6, 4))
    rng = np.random.default_rng(0)
    low = rng.normal(size=(5, *size))
    high = rng.normal(size=(6, *(-(-side // 2) for side in size)))

    up, down = plain_enlarged(high, *size), plain_conv_x(module.conv_low, low)
    seen = np.stack([up.mean(0), up.max(0), down.mean(0), down.max(0)])
    first, (last, norm) = module.attention[0], module.attention[1]
    alpha = 1 / (1 + np.exp(-plain_conv(last, norm, plain_conv_x(first, seen))))
    expected = plain_conv_x(module.conv_out, alpha * up + (1 - alpha) * down)

    with torch.no_grad():
        found = module(torch.from_numpy(low)[None], torch.from_numpy(high)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def plain_bins(x, count):
    """Means of [C, H, W] over count x count bins; neighbours share the pixels on their border."""
    height, width = x.shape[1:]
    result = np.empty((len(x), count, count))
    for i in range(count):
        for j in range(count):
            rows = slice(i * height // count, -(-(i + 1) * height // count))
            columns = slice(j * width // count, -(-(j + 1) * width // count))
            result[:, i, j] = x[:, rows, columns].mean((1, 2))
    return result


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (16, 32), (7, 4)])
def test_pyramid_pooling_sums_the_contexts_of_1_4_and_16_bins(size):
    module = drawn(SimplePyramidPooling(6, 4))
    x = np.random.default_rng(0).normal(size=(6, *size))
    contexts = [
        plain_enlarged(plain_conv_x(level.conv, plain_bins(x, count)), *size)
        for level, count in zip(module.pools, (1, 2, 4), strict=True)
    ]
    with torch.no_grad():
        found = module(torch.from_numpy(x)[None])[0]
    expected = plain_conv_x(module.conv, sum(contexts))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 3), (2, 2), (5, 7), (16, 33)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_exported_form_of_the_pools_is_the_same(size, count):
    pool = nn.AdaptiveAvgPool2d(count)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(BinsByProduct(pool)(x), pool(x))
