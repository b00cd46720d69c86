import pytest
import torch
import torch.nn.functional as F

from model.model_stages import BiSeNet
from model.stdcnet import PoolWithOwnGradient


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def images(size=(64, 96), batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)


def test_the_papers_network_without_its_classifier_has_8_425_248_parameters():
    assert parameters(BiSeNet()) == 8_425_248


def test_stdc2_is_deeper():
    net = BiSeNet(backbone="stdc2", base=8)
    assert len(net.cp.backbone.features) == 2 + 4 + 5 + 3
    assert parameters(net) > parameters(BiSeNet(base=8))
    assert net(images()).shape == (2, 19, 64, 96)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (65, 67), (97, 131), (70, 64)])
def test_heads_at_an_eighth_and_a_sixteenth(size):
    net = BiSeNet(base=8)
    main, aux16, aux32 = net.heads(images(size))
    eighth, sixteenth = (tuple(-(-side // s) for side in size) for s in (8, 16))
    assert main.shape == aux16.shape == (2, 19, *eighth)
    assert aux32.shape == (2, 19, *sixteenth)
    assert net(images(size)).shape == (2, 19, *size)


def test_head_parameters_are_fusion_and_heads():
    net = BiSeNet(base=8)
    heads = {id(p) for p in net.head_parameters()}
    for name, p in net.named_parameters():
        assert (id(p) in heads) == name.startswith(("ffm.", "conv_out")), name


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (8, 13), (1, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_pool_of_cuda_is_the_librarys_with_the_gradient_that_it_has_on_a_cpu(size, layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, *size, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    plain, ours = F.avg_pool2d(x, 3, 2, padding=1), PoolWithOwnGradient.apply(x)
    upstream = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    assert torch.equal(ours, plain)
    (slope,), (expected,) = (torch.autograd.grad(y, x, upstream) for y in (ours, plain))
    torch.testing.assert_close(slope, expected)
