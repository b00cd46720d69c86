"""Each row of the table of data sets by real commands, on small data in its real layout."""

import csv
import json

import pytest

import main
from datasets.toy_city import make_toy_city
from tests.support.helpers import TINY
from tests.support.layouts import (
    make_acdc,
    make_bdd100k,
    make_camvid,
    make_dark_zurich,
    make_synthia,
)

HOMES = {
    "ACDC": make_acdc,
    "Dark_Zurich": make_dark_zurich,
    "BDD100K": make_bdd100k,
    "CamVid": make_camvid,
}
COUNT = 2


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Toy City in the place of GTA5, and each data set in the folder where it is looked for."""
    folder = tmp_path_factory.mktemp("rows")
    make_toy_city(folder / "toy", train=4, val=2, size=(64, 96), seed=0)
    for home, make in HOMES.items():
        make(folder / home, COUNT)
    make_synthia(folder / "SYNTHIA", 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def command(action, *words):
    places = ("--save_model_path", "runs", "--cache_dir", "none", "--gta5_root", "toy/GTA5")
    size = (*TINY, "--source_resize", "64", "96")
    return main.main(["--action", action, *places, *size, *words])


@pytest.mark.parametrize(
    ("row", "title", "images", "scored"),
    [
        ("acdc", "ACDC", 4 * COUNT, "sky"),
        ("acdc_night", "ACDC night", COUNT, "sky"),
        ("dark_zurich", "Dark Zurich", COUNT, "road"),
        ("bdd100k", "BDD100K", COUNT, "bicycle"),
        ("camvid", "CamVid", COUNT, "bicycle"),
    ],
)
def test_a_target_is_checked_adapted_to_and_scored(here, row, title, images, scored):
    assert command("check_data", "--target", row) == 0
    assert command("train_fda", "--target", row, "--num_epochs", "1") == 0
    run = here / "runs" / f"fda01_gta5_to_{row}_sgd_noaug"
    record = json.loads((run / "scores.json").read_text())
    assert record["validation"]["domain"] == record["training"]["target_data_set"] == title
    assert record["training"]["target_images"] == images
    assert record["last"]["class_IoU"][scored] is not None


def test_a_target_with_labels_is_learned_from(here):
    assert command("train_target", "--target", "camvid", "--num_epochs", "1") == 0
    record = json.loads((here / "runs/target_camvid_sgd_noaug/scores.json").read_text())
    assert record["training"]["source_data_set"] == "CamVid"


def test_synthia_is_a_source_scored_over_16_and_13_classes_too(here, capsys):
    pair = ("--source", "synthia", "--target", "camvid")
    assert command("check_data", *pair) == 0
    assert command("train_source", "--source", "synthia", "--num_epochs", "1") == 0
    assert command("val_transfer", *pair, "--select", "last") == 0
    assert "mIoU of 16 classes %" in capsys.readouterr().out
    run = here / "runs/source_synthia_sgd_noaug"
    own = json.loads((run / "scores.json").read_text())
    assert {"16 classes", "13 classes"} <= own["last"]["subset_mIoU"].keys()
    assert command("report", "--runs", str(run), "--save_keyword", "report") == 0
    with (here / "runs/report/results.csv").open(newline="") as file:
        assert "mIoU of 13 classes %" in csv.DictReader(file).fieldnames
