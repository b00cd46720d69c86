import copy
import importlib
from itertools import chain

import pytest
import torch
from torch import nn

from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples
from datasets.samples import SampleDataset
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.forked import MAIN
from tests.support.helpers import make_cityscapes, picture, save
from trainings.scoring import batch_norm
from trainings.scoring.batch_norm import (
    mixed_batches,
    reestimate_statistics,
    shuffled,
    with_statistics_of,
)
from utils import processes
from utils.errors import UserError

CPU = torch.device("cpu")


def settings(root, **changes) -> Settings:
    return Settings(
        cityscapes_root=root,
        image_size=(64, 96),
        num_workers=0,
        precision="fp32",
        base_width=8,
        **changes,
    )


def images_of(samples: SampleDataset) -> torch.Tensor:
    return torch.stack([samples[0, index].image for index in range(len(samples))])


def first_norm(network: BiSeNet) -> tuple[nn.Module, nn.BatchNorm2d]:
    layer = network.cp.backbone.features[0]
    return layer.conv, layer.bn


def first_maps(network: BiSeNet, images: torch.Tensor) -> torch.Tensor:
    """Return the maps that reach the first norm."""
    return first_norm(network)[0]((images.float() - network.mean) / network.std)


def moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return maps.mean((0, 2, 3)), maps.transpose(0, 1).flatten(1).var(1)


def test_every_norm_of_every_head_has_the_statistics_of_what_it_meets(tmp_path):
    """With one batch, evaluation with the new statistics equals training mode on that batch, but
    for the variance, whose unbiased estimate is kept."""
    now = settings(make_cityscapes(tmp_path, train=6))
    samples = unlabelled_samples(Role.TARGET, now)
    network = BiSeNet(base=8)
    network.add_detail_head()
    adapted = with_statistics_of(network, samples, now, CPU)
    inputs = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, arguments, name=name: inputs.__setitem__(name, arguments[0])
            )
    with torch.no_grad():
        network.train().heads_and_detail(images_of(samples))
    norms = dict(adapted.named_modules())
    assert len(inputs) == sum(isinstance(m, nn.BatchNorm2d) for m in norms.values())
    for name, maps in inputs.items():
        mean, variance = moments(maps)
        torch.testing.assert_close(norms[name].running_mean, mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(norms[name].running_var, variance, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [2, 5, 8])
def test_one_batch_of_all_images_gives_exactly_its_statistics(tmp_path, count):
    now = settings(make_cityscapes(tmp_path, train=count))
    samples = unlabelled_samples(Role.TARGET, now)
    network = BiSeNet(base=8)
    reestimate_statistics([network], samples, now, CPU)
    mean, variance = moments(first_maps(network, images_of(samples)))
    norm = first_norm(network)[1]
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_several_batches_give_the_mean_of_theirs(tmp_path, monkeypatch):
    """Seven images in batches of three at most: all are used, in three of them."""
    monkeypatch.setattr(batch_norm, "BATCH_SIZE", 3)
    now = settings(make_cityscapes(tmp_path, train=7))
    samples = unlabelled_samples(Role.TARGET, now)
    network = BiSeNet(base=8)
    reestimate_statistics([network], samples, now, CPU)
    maps = first_maps(network, images_of(samples)[shuffled(7)])
    parts = [moments(part) for part in maps.split([3, 2, 2])]
    mean, variance = (torch.stack(both).mean(0) for both in zip(*parts, strict=True))
    norm = first_norm(network)[1]
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked == 3


@pytest.mark.parametrize("count", [*range(2, 34), 2975])
def test_every_image_is_in_one_of_the_fewest_batches_of_nearly_one_size(count):
    batches = mixed_batches(count)
    sizes = [len(batch) for batch in batches]
    assert sorted(chain(*batches)) == list(range(count)) and list(chain(*batches)) == shuffled(
        count
    )
    assert len(sizes) == -(-count // 8)
    assert min(sizes) >= 2 and max(sizes) <= min(8, min(sizes) + 1)


def test_batches_mix_what_lies_side_by_side(tmp_path, monkeypatch):
    """A dark drive, then a bright one: batches in their order would not see the difference."""
    monkeypatch.setattr(batch_norm, "BATCH_SIZE", 4)
    now = settings(make_cityscapes(tmp_path, train=16))
    samples = unlabelled_samples(Role.TARGET, now)
    for place, files in enumerate(samples.files):
        save(picture(place) // 8 + (0 if place < 8 else 220), files.image)
    torch.manual_seed(0)
    network = BiSeNet(base=8)
    reestimate_statistics([network], samples, now, CPU)
    maps = first_maps(network, images_of(samples))
    _, of_all = moments(maps)
    in_order = torch.stack([moments(part)[1] for part in maps.split(4)]).mean(0)
    found = first_norm(network)[1].running_var
    assert (in_order < 0.2 * of_all).all() and (found > 0.5 * of_all).all()


def test_the_weights_are_untouched_and_the_batch_size_changes_nothing(tmp_path):
    root = make_cityscapes(tmp_path, train=4)
    network = BiSeNet(base=8)
    before = copy.deepcopy(network.state_dict())
    one, two = (
        with_statistics_of(network, unlabelled_samples(Role.TARGET, now), now, CPU).state_dict()
        for now in (settings(root, batch_size=2), settings(root, batch_size=8))
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), "the network itself"
        assert torch.equal(one[name], two[name])
        statistic = "running" in name or "num_batches" in name
        assert statistic or torch.equal(one[name], value)
    assert not torch.equal(
        one["ffm.convblk.bn.running_mean"], before["ffm.convblk.bn.running_mean"]
    )
    assert all(m.momentum == 0.1 for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_every_process_takes_the_statistics_of_the_first(tmp_path, monkeypatch):
    """To score one network, not one each that is equal up to rounding."""
    shared = []

    def with_first_state(network):
        shared.append(network)
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.fill_(7)  # as the first process has it

    monkeypatch.setattr(processes, "with_first_state", with_first_state)
    now = settings(make_cityscapes(tmp_path, train=2))
    samples = unlabelled_samples(Role.TARGET, now)
    adapted = with_statistics_of(BiSeNet(base=8), samples, now, CPU)
    assert shared == [adapted]
    assert (first_norm(adapted)[1].running_mean == 7).all()


def test_labels_are_not_read(tmp_path):
    root = make_cityscapes(tmp_path, train=2)
    for label in (root / "gtFine").glob("train/*/*"):
        label.unlink()
    now = settings(root)
    with_statistics_of(BiSeNet(base=8), unlabelled_samples(Role.TARGET, now), now, CPU)


def test_one_image_has_no_statistics(tmp_path):
    now = settings(make_cityscapes(tmp_path, train=1))
    with pytest.raises(UserError, match="need two of its training images or more, there is 1"):
        with_statistics_of(BiSeNet(base=8), unlabelled_samples(Role.TARGET, now), now, CPU)


def test_statistics_of_few_images_are_said_to_be_noisy(tmp_path, capsys):
    for images, noisy in ((3, True), (8, False)):
        now = settings(make_cityscapes(tmp_path / str(images), train=images))
        with_statistics_of(BiSeNet(base=8), unlabelled_samples(Role.TARGET, now), now, CPU)
        said = f"warning: batch-norm statistics of {images} images are noisy: 8 different ones"
        assert (said in capsys.readouterr().out) is noisy


def test_the_parts_that_the_benchmark_draws_are_whole_and_disjoint(monkeypatch):
    monkeypatch.syspath_prepend(MAIN.parent / "benchmarks")
    draws = importlib.import_module("few_statistics").draws
    assert draws(20, 8) == [range(0, 8), range(8, 16)]
    assert draws(64, 8) == [range(0, 8), range(8, 16), range(16, 24)]
    assert draws(64, 64) == [range(64)] and draws(12, 64) == []
