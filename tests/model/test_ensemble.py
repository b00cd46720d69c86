import torch
from torch import nn

from model.ensemble import mean_probabilities
from model.model_stages import BiSeNet


class Constant(nn.Module):
    """A network that says the same of every pixel, in bfloat16 as under autocast."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.bfloat16)

    def main_logits(self, x):
        height, width = (side // 8 for side in x.shape[-2:])
        return self.logits.view(1, -1, 1, 1).expand(len(x), -1, height, width)


def images(size=(64, 96)):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)


def small_networks():
    return [BiSeNet(num_classes=5, base=8).eval() for _ in range(3)]


def mean_of(networks):
    return mean_probabilities([network.main_logits(images()) for network in networks])


def test_it_averages_probabilities_not_logits():
    """One network is all but certain of class 0, two lean to class 1: the mean of the logits
    follows the one, the mean of the probabilities the two."""
    networks = [Constant(8, 0), Constant(0, 2), Constant(0, 2)]
    mean_logits = torch.stack([net.main_logits(images()) for net in networks]).mean(0)
    assert (mean_logits.argmax(1) == 0).all()
    probabilities = mean_of(networks)
    assert (probabilities.argmax(1) == 1).all()
    expected = (torch.tensor([[8.0, 0], [0, 2], [0, 2]]).softmax(1)).mean(0)
    torch.testing.assert_close(probabilities[0, :, 0, 0], expected)


def test_probabilities_are_the_mean_of_the_members_at_an_eighth_and_sum_to_1():
    networks = small_networks()
    logits = [network.main_logits(images()) for network in networks]
    probabilities = mean_of(networks)
    assert probabilities.shape == (2, 5, 8, 12)
    torch.testing.assert_close(probabilities, sum(one.softmax(1) for one in logits) / 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 8, 12))


def test_probabilities_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert mean_of(small_networks()).dtype == torch.float32
    torch.testing.assert_close(mean_of([Constant(1, 2, 3)]).sum(1), torch.ones(2, 8, 12))


def test_one_network_is_its_own_ensemble():
    (network,) = networks = small_networks()[:1]
    probabilities = network.main_logits(images()).softmax(1)
    torch.testing.assert_close(mean_of(networks), probabilities)
