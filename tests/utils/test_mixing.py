"""ClassMix, colour jitter, blur and masked blocks."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from datasets.labels import IGNORE, NUM_CLASSES
from utils.mixing import (
    block_side,
    blurred,
    chosen_classes,
    class_mix,
    jittered,
    masked,
    turned_hue,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count=2, size=(40, 56), seed=0):
    return torch.randint(0, 256, (count, 3, *size), generator=generator(seed), dtype=torch.uint8)


def labels_of(*classes: list[int], size=(40, 56)) -> torch.Tensor:
    """A label for each list, which holds every class of it somewhere, and ignored pixels."""
    found = []
    for number, ids in enumerate(classes):
        draw = torch.randint(0, len(ids) + 1, size, generator=generator(number))
        found.append(torch.tensor([*ids, IGNORE], dtype=torch.uint8)[draw])
    return torch.stack(found)


@pytest.mark.parametrize("ids", [[0], [0, 18], [3, 5, 7], [*range(6)], [*range(NUM_CLASSES)]])
def test_class_mix_takes_half_of_the_classes_rounded_up(ids):
    label = labels_of(ids, ids)
    for seed in range(10):
        chosen = chosen_classes(label, generator(seed))
        assert chosen.sum(1).tolist() == [math.ceil(len(ids) / 2)] * 2
        assert set(chosen.nonzero()[:, 1].tolist()) <= set(ids)


def test_class_mix_takes_every_class_equally_often():
    label = labels_of([1, 4, 9, 16]).expand(400, -1, -1)
    counts = chosen_classes(label, generator()).sum(0)
    assert counts[[1, 4, 9, 16]].sum() == counts.sum() == 800
    assert (counts[[1, 4, 9, 16]] - 200).abs().max() < 4 * math.sqrt(400 / 4)


def test_class_mix_moves_image_label_and_weight_together():
    source, target = images(seed=1), images(seed=2)
    label = labels_of([0, 5, 7], [2, 11])
    target_label = labels_of([13, 14], [13])
    mixed = class_mix(source, label, target, target_label, torch.tensor(0.25), generator())
    chosen = chosen_classes(label, generator())
    for number in range(2):
        pasted = torch.isin(label[number], chosen[number].nonzero()[:, 0])
        assert pasted.any() and not pasted.all()
        assert torch.equal(mixed.pasted[number], pasted)
        assert torch.equal(mixed.image[number][:, pasted], source[number][:, pasted])
        assert torch.equal(mixed.image[number][:, ~pasted], target[number][:, ~pasted])
        assert torch.equal(mixed.label[number][pasted], label[number][pasted])
        assert torch.equal(mixed.label[number][~pasted], target_label[number][~pasted])
        assert (mixed.weight[number][pasted] == 1).all()
        assert (mixed.weight[number][~pasted] == 0.25).all()


def test_a_source_label_without_a_class_mixes_nothing():
    ignored = torch.full((2, 40, 56), IGNORE, dtype=torch.uint8)
    target_label = labels_of([13], [14])
    weight = torch.rand(2, 40, 56)
    mixed = class_mix(images(), ignored, images(seed=3), target_label, weight, generator())
    assert torch.equal(mixed.image, images(seed=3))
    assert torch.equal(mixed.label, target_label)
    assert torch.equal(mixed.weight, weight)


def test_the_turned_hue_is_torchvisions():
    colors = images(size=(64, 64)).float() / 255
    colors[0, :, :8] = colors[0, :1, :8]  # greys have no hue
    for turns in (-0.2, -0.07, 0.0, 0.13, 0.5):
        torch.testing.assert_close(turned_hue(colors, turns), tv.adjust_hue(colors, turns))


def test_jitter_changes_four_batches_of_five_and_all_images_alike():
    image = images(1).expand(2, -1, -1, -1)
    found = [jittered(image, generator(seed)) for seed in range(200)]
    unchanged = sum(torch.equal(one, image.float()) for one in found)
    assert 20 <= unchanged <= 60
    for one in found:
        assert torch.equal(one[0], one[1]) and one.dtype == torch.float32
        assert one.min() >= 0 and one.max() <= 255
        assert (one - image).abs().mean() < 80, "brightness, contrast, saturation and hue by 0.2"


def test_blur_changes_half_of_the_batches_and_keeps_their_mean():
    image = images(2, (64, 64))
    found = [blurred(image, generator(seed)) for seed in range(100)]
    changed = [one for one in found if not torch.equal(one, image.float())]
    assert 35 <= len(changed) <= 65
    for one in changed:
        torch.testing.assert_close(one.mean(), image.float().mean(), rtol=0.01, atol=0)
        assert one.std() < image.float().std() + 1e-3
    assert min(one.std() for one in changed) < 0.5 * image.float().std(), "sigma up to 1.15"


def test_blur_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        reduced = [blurred(images(), generator(seed)) for seed in range(5)]
    for seed, one in enumerate(reduced):
        assert torch.equal(one, blurred(images(), generator(seed)))


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (8, 8), (5, 3)])
def test_blocks_of_any_image_are_masked_whole(size):
    image = images(8, size).float()
    fill = torch.tensor([123.5, 116.5, 103.5]).view(3, 1, 1)
    found = masked(image, fill, generator(), ratio=0.5, block=8)
    kept = (found == image).all(1)
    assert torch.equal(found, torch.where(kept[:, None], image, fill))
    for top in range(0, size[0], 8):
        for left in range(0, size[1], 8):
            block = kept[:, top : top + 8, left : left + 8].flatten(1)
            assert torch.equal(block.any(1), block.all(1))
    assert kept.any() and not kept.all()


def test_each_block_is_masked_with_the_ratios_probability():
    image = images(16, (128, 128)).float()
    for ratio in (0.0, 0.7):
        found = masked(image, torch.full((3, 1, 1), 0.5), generator(), ratio=ratio, block=8)
        blocks = 16 * 16 * 16
        share = (found != image).any(1)[:, ::8, ::8].sum() / blocks
        assert abs(share - ratio) <= 4 * math.sqrt(ratio * (1 - ratio) / blocks)


def test_a_block_covers_the_same_share_of_a_smaller_crop():
    sizes = {
        (512, 512): 32,
        (512, 1024): 32,
        (1024, 512): 32,
        (128, 256): 8,
        (64, 96): 4,
        (8, 8): 1,
    }
    assert {size: block_side(32, size) for size in sizes} == sizes


def test_the_same_generator_draws_the_same():
    def change(seed):
        own = generator(seed)
        label = labels_of([*range(8)], [*range(8)])
        mixed = class_mix(images(), label, images(seed=1), label, torch.tensor(0.5), own)
        image = blurred(jittered(mixed.image, own), own)
        return masked(image, torch.zeros(3, 1, 1), own, ratio=0.5, block=8)

    assert torch.equal(change(5), change(5))
    assert not torch.equal(change(5), change(6))
