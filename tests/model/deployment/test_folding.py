import pytest
import torch
from torch import nn

from model.deployment.folding import folded
from model.model_stages import BiSeNet
from utils import processes
from utils.shared_norm import SharedBatchNorm2d, separated, synchronised


@pytest.mark.parametrize("backbone", ["stdc1", "stdc2"])
def test_a_folded_network_gives_the_same_without_norms(backbone):
    torch.manual_seed(0)
    network = BiSeNet(base=8, backbone=backbone).double()
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    network.heads(images)  # statistics unlike 0 and 1
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = folded(network)

    assert not any(isinstance(module, nn.BatchNorm2d) for module in result.modules())
    assert network.training and not result.training
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    network.eval()
    for ours, plain in zip(result.heads(images), network.heads(images), strict=True):
        torch.testing.assert_close(ours, plain)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            expected = result.heads(images)
        assert all(map(torch.equal, result.heads(images), expected))


def test_norms_of_several_processes_become_those_of_one_with_all_they_have_learnt(monkeypatch):
    network = BiSeNet(base=8)
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in map(network.get_submodule, norms):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    expected = network.eval().main_logits(image)
    assert not shared(synchronised(network)), "of one process"
    monkeypatch.setattr(processes, "count", lambda: 2)
    several = synchronised(network)
    assert shared(several) == norms
    for name, tensor in (*several.named_parameters(), *several.named_buffers()):
        assert tensor is tensors.pop(name), "an optimiser may have it already"
    assert not tensors
    own = separated(several)
    assert not shared(own) and shared(several) == norms
    for one in (several, own):
        assert torch.equal(one.main_logits(image), expected)
        torch.testing.assert_close(folded(one).main_logits(image), expected, rtol=1e-3, atol=1e-4)


def shared(network):
    return [n for n, m in network.named_modules() if isinstance(m, SharedBatchNorm2d)]
