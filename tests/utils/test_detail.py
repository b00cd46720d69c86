"""Detail guidance (Fan et al., CVPR 2021) against a naive form in numpy."""

import numpy as np
import pytest
import torch

from utils.detail import detail_loss, detail_target


def edges_at(label, stride):
    """Return where the Laplacian of a map, zero-padded, is above 0.1, at every stride-th pixel."""
    height, width = label.shape
    padded = np.pad(label.astype(np.float64), 1)
    rows, columns = -(-height // stride), -(-width // stride)
    found = np.zeros((rows, columns), bool)
    for row in range(rows):
        for column in range(columns):
            window = padded[row * stride :, column * stride :][:3, :3]
            found[row, column] = 9 * window[1, 1] - window.sum() > 0.1
    return found


def naive_target(label):
    """Edges at strides 1, 2 and 4, enlarged by the nearest pixel, that weigh more than 0.1."""
    height, width = label.shape
    fused = np.zeros(label.shape, np.float32)
    for stride, weight in ((1, 0.6), (2, 0.3), (4, 0.1)):
        found = edges_at(label, stride)
        rows = np.arange(height) * found.shape[0] // height
        columns = np.arange(width) * found.shape[1] // width
        fused += np.float32(weight) * found[rows][:, columns]
    return fused > np.float32(0.1)


def random_labels(seed, size=(2, 24, 36)):
    """Blocks of train ids, some of them ignored, with single pixels of others."""
    rng = np.random.default_rng(seed)
    count, height, width = size
    label = rng.choice([*range(19), 255], (count, height // 6 + 1, width // 6 + 1)).astype(np.uint8)
    label = label.repeat(6, 1).repeat(6, 2)[:, :height, :width]
    label[rng.random(size) < 0.02] = 7
    return label


@pytest.mark.parametrize("size", [(2, 24, 36), (1, 23, 37), (2, 64, 96)])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_the_target_is_that_of_the_naive_form(size, autocast):
    for seed in range(5):
        label = random_labels(seed, size)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            target = detail_target(torch.from_numpy(label))
        assert target.dtype == torch.float32 and target.shape == (size[0], 1, *size[1:])
        for ours, one in zip(target[:, 0], label, strict=True):
            assert np.array_equal(ours.numpy(), naive_target(one))
        assert 0.05 < target.mean() < 0.95


def test_an_edge_seen_at_stride_4_alone_is_none():
    """It weighs 0.1, which in float32 is not above 0.1."""
    assert not np.float32(0.1) * np.float32(1) > np.float32(0.1)
    label = np.zeros((32, 32), np.uint8)
    label[12, 12] = 5  # seen at strides 1, 2 and 4
    label[18, 18] = 5  # at strides 1 and 2
    label[21, 20] = 5  # at stride 1
    spread = np.zeros((32, 32), np.uint8)
    spread[12:17, 12:17] = 5
    seen = [edges_at(spread, stride).repeat(stride, 0).repeat(stride, 1) for stride in (1, 2, 4)]
    alone = seen[2] & ~seen[0] & ~seen[1]
    assert alone.any()
    for one in (label, spread):
        target = detail_target(torch.from_numpy(one)[None])[0, 0].numpy()
        assert np.array_equal(target, naive_target(one)) and target.any()
    assert not target[alone].any()


def test_an_image_of_one_class_has_detail_only_on_its_border():
    target = detail_target(torch.full((1, 16, 16), 3, dtype=torch.uint8))[0, 0]
    assert target[0].all() and target[:, 0].all() and not target[2:-2, 2:-2].any()
    assert not detail_target(torch.zeros(1, 16, 16, dtype=torch.uint8)).any(), "road is 0"


def test_the_loss_is_cross_entropy_plus_dice_of_each_image():
    label = torch.from_numpy(random_labels(0))
    logits = torch.randn(2, 1, 24, 36, generator=torch.Generator().manual_seed(0))
    p = 1 / (1 + np.exp(-logits[:, 0].double().numpy()))
    t = np.stack([naive_target(one) for one in label.numpy()])
    cross_entropy = -np.where(t, np.log(p), np.log(1 - p)).mean()
    overlap, total = (x.sum((1, 2)) for x in (p * t, p + t))
    expected = cross_entropy + np.mean(1 - (2 * overlap + 1) / (total + 1))
    assert detail_loss(logits, label).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_enlarges_the_logits_with_aligned_corners():
    label = torch.from_numpy(random_labels(1))
    small = torch.randn(2, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, (24, 36), mode="bilinear", align_corners=True)
    assert detail_loss(small, label) == pytest.approx(detail_loss(large, label).item(), rel=1e-6)
    assert detail_loss(small.bfloat16(), label).dtype == torch.float32
