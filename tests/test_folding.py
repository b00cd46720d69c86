import copy

import pytest
import torch
from torch import nn

from model.folding import folded
from model.model_stages import BiSeNet
from utils import processes
from utils.processes import separated, synchronised


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


def test_norms_of_several_processes_become_those_of_one_with_all_they_have_learnt():
    network = BiSeNet(base=8)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var)
    several = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network)).eval()
    assert any(isinstance(m, nn.SyncBatchNorm) for m in several.modules())
    own = separated(several)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in own.modules())
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    assert torch.equal(own.main_logits(image), network.eval().main_logits(image))
    for one in (several, own):
        torch.testing.assert_close(
            folded(one).main_logits(image), own.main_logits(image), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_norms_see_the_batches_of_all_processes_on_gpus_alone(device, monkeypatch):
    network = BiSeNet(base=8)
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    parameters = dict(network.named_parameters())
    assert synchronised(network, torch.device("cuda")) is network  # of one process
    monkeypatch.setattr(processes, "count", lambda: 2)
    result = synchronised(network, torch.device(device))
    synced = [n for n, m in result.named_modules() if isinstance(m, nn.SyncBatchNorm)]
    assert synced == (norms if device == "cuda" else [])
    for name, parameter in result.named_parameters():
        assert parameter is parameters.pop(name), "an optimiser may have it already"
    assert not parameters and (device == "cuda" or result is network)
