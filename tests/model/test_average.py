import copy

import pytest
import torch
from torch import nn

from model.average import MovingAverage
from model.model_stages import BiSeNet

IMAGE = torch.randint(
    0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


class Owner(nn.Module):
    """A method, as far as its children go."""

    def __init__(self, decay=0.75, **options):
        super().__init__()
        self.network = BiSeNet(base=8)
        self.teacher = MovingAverage(self.network, decay, **options)


def moved(network):
    """Let the network look as after another step."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.add_(1) if tensor.dtype == torch.int64 else tensor.mul_(1.25)
    return network


def test_the_first_update_copies_and_the_next_ones_blend():
    owner = Owner(decay=0.75)
    first = copy.deepcopy(moved(owner.network)).state_dict()
    owner.teacher.update(owner.network)
    second = moved(owner.network).state_dict()
    owner.teacher.update(owner.network)
    assert owner.teacher.updates == 2
    for name, value in owner.teacher.module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 0, "counters belong to the copy"
        else:
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name])


def test_training_its_owner_leaves_it_in_evaluation_mode_without_a_gradient():
    owner = Owner().train()
    assert owner.network.training and not any(m.training for m in owner.teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in owner.teacher.parameters())
    assert all(parameter.requires_grad for parameter in owner.network.parameters())
    assert not owner.teacher.module.main_logits(IMAGE).requires_grad


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_it_normalises_with_its_own_or_with_the_batchs_statistics(batch_statistics):
    torch.manual_seed(0)
    owner = Owner(batch_statistics=batch_statistics).train()
    before = copy.deepcopy(owner.teacher.module.state_dict())
    logits = owner.teacher.module.main_logits(IMAGE)
    expected = copy.deepcopy(owner.network).train(batch_statistics).main_logits(IMAGE)
    assert torch.equal(logits, expected)
    for name, value in owner.teacher.module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), name


def test_it_goes_on_from_its_owners_state():
    owner, other = Owner(), Owner()
    owner.teacher.update(owner.network)
    other.load_state_dict(owner.state_dict())
    for one in (owner, other):
        one.teacher.update(moved(one.network))
    assert other.teacher.updates == 2
    for name, value in owner.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
