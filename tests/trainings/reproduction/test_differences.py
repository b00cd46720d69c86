import numpy as np
import pytest
import torch

from trainings.reproduction.differences import Difference, paired_difference
from trainings.reproduction.tables import difference_cell
from utils.metrics import ConfusionMatrix


def trainings(count, images=7, classes=19, *, seed=0):
    """Confusion counts of several trainings; classes from the 15th on are nowhere."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (count, images, classes, classes), dtype=np.int32)
    counts[..., 15:, :] = counts[..., 15:] = 0
    return list(counts)


def miou(counts):
    matrix = ConfusionMatrix()
    matrix.counts += counts
    return matrix.mean_iou()


def slowly(method, other, draws, seed):
    """Image for image, seed for seed, draw for draw."""
    rng = np.random.default_rng(seed)
    images, seeds = len(method[0]), len(method)
    of_images = rng.multinomial(images, [1 / images] * images, size=draws)
    of_seeds = rng.multinomial(max(1, seeds - 1), [1 / seeds] * seeds, size=draws)
    differences = []
    for times, chosen in zip(of_images, of_seeds, strict=True):
        found = []
        for pair in zip(method, other, strict=True):
            scores = []
            for counts in pair:
                total = np.zeros(counts.shape[1:], np.int64)
                for image, often in zip(counts, times, strict=True):
                    for _ in range(often):
                        total += image
                scores.append(miou(torch.from_numpy(total)))
            found.append(scores[0] - scores[1])
        differences.append(np.mean(np.repeat(found, chosen)))
    return np.percentile(differences, [2.5, 97.5])


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_it_is_the_slow_form(seeds):
    method, other = trainings(seeds, seed=1), trainings(seeds, seed=2)
    fast = paired_difference(method, other, draws=50, seed=3)
    assert fast[1:3] == pytest.approx(slowly(method, other, draws=50, seed=3), abs=1e-12)


def test_what_differs_with_the_seed_is_not_clear():
    """The same on every image: better by 10 points with two seeds, worse by 8 with the third."""
    right = np.stack([np.diag(np.full(19, 100, np.int32))] * 40)
    wrong = np.roll(right, 1, axis=2)

    def training(share):
        return ((1 - share) * right + share * wrong).round().astype(np.int32)

    method, other = [training(s) for s in (0.4, 0.4, 0.5)], [training(s) for s in (0.5, 0.5, 0.42)]
    assert not paired_difference(method, other).clear
    assert paired_difference(method[:1], other[:1]).clear
    assert paired_difference(method[:2], other[:2]).clear, "both seeds agree"


def test_the_value_is_the_difference_of_the_scores():
    method, other = trainings(3, seed=1), trainings(3, seed=2)
    means = [
        np.mean([miou(torch.from_numpy(c.sum(0, dtype=np.int64))) for c in several])
        for several in (method, other)
    ]
    difference = paired_difference(method, other)
    assert difference.value == pytest.approx(means[0] - means[1], abs=1e-12)
    assert difference.low <= difference.value <= difference.high


def test_equal_predictions_differ_by_nothing():
    same = trainings(2)
    assert paired_difference(same, same) == Difference(0, 0, 0, len(same[0]))
    assert not paired_difference(same, same).clear


def test_what_is_better_on_every_image_is_clear_and_what_is_better_on_one_is_not():
    right = np.stack([np.diag(np.full(19, 100, np.int32))] * 10)
    wrong = np.roll(right, 1, axis=2)
    assert paired_difference([right], [(right + wrong) // 2]).clear
    few = paired_difference([right[:2]], [(right + wrong)[:2] // 2])
    assert few.low > 0 and not few.clear, "two images tell nothing"
    mixed = right.copy()
    mixed[0] = wrong[0]
    difference = paired_difference([right], [mixed])
    assert difference.value > 0 and difference.low == 0 and not difference.clear


def test_it_repeats():
    method, other = trainings(1, seed=1), trainings(1, seed=2)
    assert paired_difference(method, other) == paired_difference(method, other)


def test_a_bold_difference_shows_on_which_side_of_0_its_interval_lies():
    assert difference_cell(Difference(-0.013, -0.027, -0.0002, 32)) == "**-1.3** [-2.70, -0.02]"
    assert difference_cell(Difference(-0.0001, -0.01, 0.01, 32)) == "+0.0 [-1.00, +1.00]"
    assert difference_cell(Difference(0.013, 0.01, 0.02, 2)) == "+1.3 [+1.00, +2.00]"
