import itertools

import pytest
import torch
import torch.nn.functional as F

from model.depthwise import DepthwiseWithFastGradient, HalvingDepthwise

KERNELS = (3, 4)


@pytest.mark.parametrize(
    ("size", "kernel"),
    [*itertools.product([(8, 12), (9, 12), (8, 13), (2, 5)], KERNELS), ((1, 5), 3)],
)
def test_the_depthwise_gradient_is_that_of_the_convolution(size, kernel):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(
        *(6, 1, kernel, kernel), generator=generator, dtype=torch.float64, requires_grad=True
    )
    plain = F.conv2d(x, weight, stride=2, padding=1, groups=6)
    ours = DepthwiseWithFastGradient.apply(x, weight)
    upstream = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    assert torch.equal(ours, plain)
    for slope, expected in zip(
        torch.autograd.grad(ours, (x, weight), upstream),
        torch.autograd.grad(plain, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_bfloat16_the_layer_takes_that_gradient_and_its_weights_keep_their_type(kernel):
    block = HalvingDepthwise(6, kernel)
    x = torch.randn(2, 6, 8, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
        assert DepthwiseWithFastGradient.__name__ in y.grad_fn.name()
        with torch.no_grad():
            assert torch.equal(block(x), y)
    assert DepthwiseWithFastGradient.__name__ not in block(x).grad_fn.name()
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    slopes = x.grad.clone(), block.weight.grad.clone()
    assert all(slope.dtype == torch.float32 for slope in slopes)
    exact = torch.autograd.grad(block(x).square().sum(), (x, block.weight))
    for slope, expected in zip(slopes, exact, strict=True):
        torch.testing.assert_close(slope, expected, rtol=0.05, atol=0.05)
