"""Every network of the table keeps the contract; facts of one network are in its own test file."""

import itertools

import pytest
import torch
from torch import nn

from model.catalog import NETWORKS, Design, design_of
from model.deployment.folding import folded
from model.stdcnet import BACKBONES

DESIGNS = [Design(*one, 8) for one in itertools.product(NETWORKS, BACKBONES)]
every_network = pytest.mark.parametrize(
    "design", DESIGNS, ids=lambda d: f"{d.network}-{d.backbone}"
)


def images(size=(64, 96), batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


@every_network
def test_a_network_is_built_again_from_its_design(design):
    network = design.build(5)
    assert design_of(network) == design
    again = design_of(network).build(5).state_dict()
    assert {n: t.shape for n, t in network.state_dict().items()} == {
        n: t.shape for n, t in again.items()
    }


@every_network
@pytest.mark.parametrize("size", [(64, 64), (65, 67), (97, 131), (70, 64)])
def test_the_main_head_is_at_an_eighth_whatever_the_size(design, size):
    network = design.build()
    heads = network.heads(images(size))
    assert len(heads) == len(network.head_weights)
    assert heads[0].shape == (2, 19, *(-(-side // 8) for side in size))
    assert all(head.shape[:2] == (2, 19) for head in heads)
    assert network(images(size)).shape == (2, 19, *size)


@every_network
def test_main_logits_are_the_first_head_without_what_only_training_uses(design):
    network = design.build().eval()
    main = network.heads(images())[0]
    assert torch.equal(network.main_logits(images()), main)
    deployed = {id(parameter) for parameter in network.deployed_parameters()}
    for parameter in network.parameters():
        if id(parameter) not in deployed:
            nn.init.constant_(parameter, torch.nan)
    assert torch.equal(network.main_logits(images()), main)
    assert count(network.deployed_parameters()) < count(network.parameters())


@every_network
def test_a_detail_head_sees_the_backbone_at_an_eighth_and_changes_nothing_else(design):
    torch.manual_seed(0)
    plain = design.build()
    torch.manual_seed(0)
    network = design.build()
    network.add_detail_head()
    heads, detail = network.heads_and_detail(images((65, 97)))
    assert detail.shape == (2, 1, 9, 13) and plain.heads_and_detail(images())[1] is None
    for logits, expected in zip(heads, plain.heads(images((65, 97))), strict=True):
        assert torch.equal(logits, expected)
    added = set(network.state_dict()) - set(plain.state_dict())
    assert all(name.startswith("conv_out_sp8.") for name in added)
    assert count(network.deployed_parameters()) == count(plain.deployed_parameters())
    learning = {id(parameter) for parameter in network.head_parameters()}
    assert {id(parameter) for parameter in network.conv_out_sp8.parameters()} <= learning
    network.eval().conv_out_sp8.register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    network.heads(images()), network(images()), folded(network)(images())


@every_network
def test_every_weight_learns_from_the_heads(design):
    network = design.build()
    sum(logits.square().mean() for logits in network.heads(images((64, 128)))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_network
def test_it_normalises_bytes_and_floats_with_imagenets_statistics(design):
    seen = []
    network = design.build()
    network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network.heads(images())
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    torch.testing.assert_close(seen[0], (images() / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert not {"mean", "std"} & set(network.state_dict())
    network.main_logits(images().float())
    with torch.autocast("cpu", torch.bfloat16):
        assert network.main_logits(images()).dtype == torch.bfloat16
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    assert seen[2].dtype == torch.float32


@every_network
def test_the_backbone_is_no_head(design):
    network = design.build()
    heads = {id(parameter) for parameter in network.head_parameters()}
    assert heads and not heads & {id(parameter) for parameter in network.backbone.parameters()}
    assert heads <= {id(parameter) for parameter in network.parameters()}


@every_network
def test_a_folded_network_has_no_norms_and_gives_the_same(design):
    torch.manual_seed(0)
    network = design.build().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    network.heads(images(batch=4))  # statistics unlike 0 and 1
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in result.modules())
    assert network.training and not result.training
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    network.eval()
    for ours, plain in zip(result.heads(images()), network.heads(images()), strict=True):
        torch.testing.assert_close(ours, plain)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            expected = result.heads(images())
        assert all(map(torch.equal, result.heads(images()), expected))
