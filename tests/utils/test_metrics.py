import json
import math

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluation
from PIL import Image

from datasets.labels import CLASS_NAMES, IGNORE, NUM_CLASSES, TRAIN_ID_TO_LABEL_ID
from utils import metrics
from utils.metrics import ConfusionMatrix


def random_maps(count=3, size=(37, 53)):
    """Truth with ignored pixels and without some classes; a prediction right half of the time."""
    rng = np.random.default_rng(5)
    for _ in range(count):
        truth = rng.integers(0, 14, size)
        guess = rng.integers(0, 16, size)
        prediction = np.where(rng.random(size) < 0.5, truth, guess)
        truth[rng.random(size) < 0.2] = IGNORE
        yield truth.astype(np.uint8), prediction.astype(np.uint8)


@pytest.mark.parametrize("at_once", [100, 2**18])
def test_scores_equal_the_official_evaluation(tmp_path, monkeypatch, at_once):
    monkeypatch.setitem(metrics.AT_ONCE, "cpu", at_once)
    matrix, truths, predictions = ConfusionMatrix(), [], []
    for index, (truth, prediction) in enumerate(random_maps()):
        matrix.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        for paths, ids, kind in (
            (truths, truth, "gtFine_labelIds"),
            (predictions, prediction, "p"),
        ):
            paths.append(str(tmp_path / f"aachen_{index:06d}_000019_{kind}.png"))
            Image.fromarray(TRAIN_ID_TO_LABEL_ID[ids]).save(paths[-1])
    evaluation.args.evalInstLevelScore = False
    evaluation.args.quiet = True
    evaluation.args.JSONOutput = False
    official = evaluation.evaluateImgLists(predictions, truths, evaluation.args)
    ours = dict(zip(CLASS_NAMES, matrix.class_iou(), strict=True))
    for name, iou in ours.items():
        theirs = official["classScores"][name]
        assert (math.isnan(iou) and math.isnan(theirs)) or abs(iou - theirs) < 1e-9, name
    assert matrix.mean_iou() == pytest.approx(official["averageScoreClasses"], abs=1e-9)


def test_absent_classes_are_left_out_of_the_mean():
    matrix = ConfusionMatrix()
    truth = torch.tensor([[0, 0, 1, IGNORE]])
    matrix.update(torch.tensor([[0, 1, 1, 5]]), truth)
    iou = matrix.class_iou()
    assert iou[0] == 0.5 and iou[1] == 0.5
    assert np.isnan(iou[2:]).all()
    assert matrix.mean_iou() == 0.5
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)


def test_a_class_only_predicted_counts_as_zero():
    matrix = ConfusionMatrix()
    matrix.update(torch.tensor([0, 7]), torch.tensor([0, 0]))
    assert matrix.class_iou()[7] == 0
    assert matrix.mean_iou() == pytest.approx(0.25)


def test_nothing_valid_scores_nan():
    matrix = ConfusionMatrix()
    matrix.update(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), IGNORE))
    assert math.isnan(matrix.mean_iou()) and math.isnan(matrix.pixel_accuracy())


def test_the_matrix_is_one_over_the_split():
    whole, parts = ConfusionMatrix(), ConfusionMatrix()
    maps = list(random_maps())
    for truth, prediction in maps:
        parts.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    whole.update(*(torch.from_numpy(np.concatenate([pair[i] for pair in maps])) for i in (1, 0)))
    assert torch.equal(whole.counts, parts.counts)
    assert whole.counts.dtype == torch.int64
    assert whole.counts.shape == (NUM_CLASSES, NUM_CLASSES)
    json.dumps(whole.counts.tolist())
