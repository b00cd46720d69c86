import pytest
import torch
from torch import nn

from model.deployment.folding import folded
from model.model_stages import BiSeNet
from model.pp_liteseg import PPLiteSeg
from utils import processes
from utils.shared_norm import SharedBatchNorm2d, separated, synchronised


def test_norms_of_several_processes_become_those_of_one_with_all_they_have_learnt(monkeypatch):
    torch.manual_seed(0)
    network = BiSeNet(base=8)
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in map(network.get_submodule, norms):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
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


@pytest.mark.parametrize("network", [BiSeNet, PPLiteSeg])
def test_a_folded_network_is_folded_once_and_the_network_of_a_training_stays(network):
    trained = network(base=8)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    once = folded(trained)
    assert trained.training and not once.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in once.modules())
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, before.pop(name))
    assert not before
    assert folded(once) is once
