import math

import pytest
import torch
from tqdm import tqdm

from datasets import synthia
from datasets.catalog import scored_subsets
from datasets.labels import CITYSCAPES
from datasets.samples import SampleDataset
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.data import gta5_files
from tests.support.helpers import make_gta5
from trainings import val
from trainings.val import (
    Evaluation,
    class_table,
    evaluate,
    print_scores,
    scored_on,
    scores_table,
)
from utils.metrics import ConfusionMatrix
from utils.transforms import Preparation
from utils.upsampling import upsample

SETTINGS = Settings(precision="fp32", batch_size=3, num_workers=0)
CPU = torch.device("cpu")


@pytest.fixture
def samples(tmp_path):
    files = gta5_files(make_gta5(tmp_path), "train", 0.2)
    return SampleDataset(files, Preparation((64, 96), resizes_label=False))


def test_logits_are_compared_at_the_labels_own_resolution(samples):
    torch.manual_seed(0)
    network, matrix = BiSeNet(base=8).eval(), ConfusionMatrix()
    for index in range(len(samples)):
        image, label, _ = samples[0, index]
        with torch.no_grad():
            logits = network.main_logits(image[None])
        matrix.update(upsample(logits, (72, 104)).argmax(1)[0], label)
    evaluation = evaluate(network.train(), samples, SETTINGS, CPU)
    assert torch.equal(evaluation.matrix.counts, matrix.counts)
    assert evaluation.label_sizes == {(72, 104)} and len(evaluation.image_accuracy) == 8
    assert network.training


def test_a_few_rows_are_kept_even_without_a_progress_bar(samples, monkeypatch):
    monkeypatch.setattr(val, "progress", lambda *_, **__: tqdm(disable=True))
    evaluation = evaluate(BiSeNet(base=8), samples, SETTINGS, CPU)
    assert [row.name for row in evaluation.rows] == ["00001", "00003", "00006", "00008"]
    assert all(row.truth.shape == row.prediction.shape == (72, 104) for row in evaluation.rows)


def test_an_absent_class_says_so():
    table = class_table({"road": 0.5, "train": math.nan, "bus": None})
    assert "road  50.0 %" in table and table.count("absent") == 2


def test_a_table_has_percent_with_two_decimals_to_the_right():
    scores = {"a": (0.98765, 0.05), "the longer": (1.0, math.nan), "c": (None, None)}
    rows = [
        (title, {"pixel_accuracy": accuracy, "mIoU": miou, "class_IoU": {}})
        for title, (accuracy, miou) in scores.items()
    ]
    validation = {"domain": "Cityscapes", "data_set": "Toy City, real look", "images": 1}
    assert scores_table(rows, validation).splitlines() == [
        "| Toy City, real look, 1 validation image | accuracy % | mIoU % |",
        "|-----------------------------------------|-----------:|-------:|",
        "| a                                       |      98.77 |   5.00 |",
        "| the longer                              |     100.00 |    nan |",
        "| c                                       |        nan |    nan |",
    ]


def scored(*pixels):
    """Scores of one image, whose pixels are pairs of a truth and a prediction."""
    evaluation = Evaluation.empty()
    label, prediction = torch.tensor(pixels, dtype=torch.uint8).T.contiguous()
    evaluation.update("a", prediction, label)
    return evaluation.scores()


def test_the_scores_say_over_how_many_classes_the_mean_goes(capsys):
    """IoU 1/2, 1 and 0: a class that is in no label counts, as in the official evaluation."""
    scores = scored((0, 0), (0, 5), (1, 1), (255, 7))
    assert (scores["mIoU"], scores["classes"], scores["classes_in_no_label"]) == (0.5, 3, 1)
    print_scores(scores)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "mIoU for validation: 0.500" and lines[2].startswith("mIoU per class: [0.5")
    assert lines[3] == "mIoU is the mean over 3 classes; 1 of them with no labelled pixel, so IoU 0"
    print_scores(scored((3, 3)))
    assert "mIoU is the mean over 1 class\n" in capsys.readouterr().out


def test_a_table_warns_of_means_over_different_classes():
    validation = {"domain": "Cityscapes", "data_set": "Cityscapes", "images": 1}
    both, one, other = scored((0, 0), (1, 1)), scored((0, 0)), scored((2, 2))
    warning = "warning: these mIoU are means over different classes ({} of them): compare IoU per"
    assert warning.format("1 to 2") in scores_table([("a", both), ("b", one)], validation)
    assert warning.format("1") in scores_table([("a", one), ("b", other)], validation)
    assert "warning" not in scores_table([("a", both), ("b", both)], validation)


def test_a_record_without_its_data_set_claims_none():
    """Records were written so until the data set was part of them."""
    words = scored_on({"domain": "Cityscapes", "images": 500})
    assert words == (
        "data in the layout of Cityscapes (which is not recorded), 500 validation images"
    )


def test_the_mean_over_fewer_classes_stands_beside_that_of_all(capsys):
    """SYNTHIA's 16 and 13 classes (Tsai et al., CVPR 2018): of road 1/2, wall 1 and train 0 the
    first leaves out train, the second wall, too."""
    road, wall, train = (CITYSCAPES.names.index(name) for name in ("road", "wall", "train"))
    evaluation = Evaluation.empty(CITYSCAPES, synthia.SUBSETS)
    pairs = [(road, road), (road, train), (wall, wall)]
    label, prediction = torch.tensor(pairs, dtype=torch.uint8).T.contiguous()
    evaluation.update("a", prediction, label)
    scores = evaluation.scores()
    assert scores["mIoU"] == 0.5
    assert scores["subset_mIoU"] == {"16 classes": 0.75, "13 classes": 0.5}
    print_scores(scores)
    assert "mIoU of 16 classes: 0.750\nmIoU of 13 classes: 0.500\n" in capsys.readouterr().out
    validation = {"domain": "Cityscapes", "data_set": "Cityscapes", "images": 1}
    head, _, row = scores_table([("a", scores)], validation).splitlines()
    assert [cell.strip() for cell in head.split("|")][3:6] == [
        *("mIoU %", "mIoU of 16 classes %", "mIoU of 13 classes %"),
    ]
    assert [cell.strip() for cell in row.split("|")][3:6] == ["50.00", "75.00", "50.00"]
    assert "subset_mIoU" not in scored((0, 0))


@pytest.mark.parametrize(
    "source, target, counts",
    [("synthia", "cityscapes", [16, 13]), ("gta5", "camvid", [11]), ("gta5", "cityscapes", [])],
)
def test_a_row_says_which_classes_are_scored_beside_all(source, target, counts):
    subsets = scored_subsets(Settings(source=source, target=target))
    assert [len(one.names) for one in subsets] == counts
    assert all({*one.names} < {*CITYSCAPES.names} for one in subsets)
