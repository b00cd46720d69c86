"""A table of own classes is used by every command, from the training to the exported file."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets.pseudo_labels import ENDING
from model.catalog import Design
from tests.support.helpers import save
from trainings.application import benchmark_speed

IDS, COLORS = [3, 40, 200, 7], [(10, 11, 12), (255, 0, 255), (70, 130, 180), (0, 255, 0)]
NAMES = ["lawn", "kerb", "sky", "hedge"]
TABLE = "id,name,colour\n3,lawn,#0a0b0c\n40,kerb,255 0 255\n200,sky,70 130 180\n7,hedge,#00ff00\n"
TINY = (*("--base_width", "8", "--image_size", "64", "96", "--source_resize", "64", "96"),)
PAIR = ("--source", "./mine", "--target", "./cam")
RUN = (*PAIR, *TINY, "--batch_size", "2", "--num_epochs", "1", "--precision", "fp32")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Two folders of labelled photos, a table, and a run of DACS on them."""
    folder = tmp_path_factory.mktemp("own classes")
    rng = np.random.default_rng(0)
    for name in ("mine", "cam"):
        for number in range(10):
            classes = np.kron(rng.integers(0, 4, (4, 6)), np.ones((16, 16), int))
            image = np.array(COLORS, np.uint8)[classes]
            save(image, folder / name / "images" / f"photo {number}.png")
            label = np.array(IDS, np.uint8)[classes]
            label[:2] = 99
            save(label, folder / name / "labels" / f"photo {number}.png")
    (folder / "classes.csv").write_text(TABLE + "99,ignored,\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command("train_dacs", *RUN, "--classes", "classes.csv", "--save_keyword", "own") == 0
        yield folder


def command(action, *words):
    common = ("--action", action, "--save_model_path", "runs", "--cache_dir", "none")
    return main.main([*common, "--num_workers", "0", *map(str, words)])


BEST = "runs/own/best.pth"


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


def test_the_table_is_in_the_run_and_its_scores_are_of_its_classes(here):
    recorded = json.loads((here / "runs/own/settings.json").read_text())["class_table"]
    assert recorded.splitlines()[1] == "3,lawn,#0a0b0c"
    assert torch.load(here / BEST)["class_table"] == recorded
    scores = json.loads((here / "runs/own/scores.json").read_text())
    assert list(scores["last"]["class_IoU"]) == NAMES


def test_a_run_continues_without_the_flag_and_not_with_another_table(here, capsys):
    assert command("train_dacs", *RUN, "--save_keyword", "own") == 0
    assert "is finished" in capsys.readouterr().out
    (here / "other.csv").write_text(TABLE.replace("hedge", "wall") + "99,ignored,\n")
    other = ("--save_keyword", "own", "--classes", "other.csv")
    assert command("train_dacs", *RUN, *other) == 2
    assert "the classes (--classes) are others" in capsys.readouterr().err


def test_predictions_have_the_ids_and_colours_of_the_table(here):
    words = ("--load_model_path", BEST, "--input", "cam/images", "--output", "masks")
    assert command("predict", *words) == 0
    ids = pixels(here / "masks/label_ids/photo 0_pred_labelIds.png")
    places = pixels(here / "masks/train_ids/photo 0_pred_labelTrainIds.png")
    assert (ids == np.array(IDS, np.uint8)[places]).all()
    color = pixels(here / "masks/color/photo 0_pred_color.png")
    assert (color == np.array(COLORS, np.uint8)[places]).all()


def test_a_report_names_the_classes_of_the_table(here, capsys):
    assert command("report", "--runs", "runs/own") == 0, capsys.readouterr().err
    written = "".join(path.read_text() for path in (here / "runs").glob("**/results.*"))
    assert all(name in written for name in NAMES) and "sidewalk" not in written


def test_a_lonely_checkpoint_is_exported_with_its_classes(here):
    (here / "alone").mkdir()
    (here / "alone/best.pth").write_bytes((here / BEST).read_bytes())
    words = ("--load_model_path", "alone/best.pth", "--output", "network.pt2")
    assert command("export", *words, *TINY[:-3], *PAIR) == 0
    extra = {"metadata.json": ""}
    torch.export.load(here / "network.pt2", extra_files=extra)
    told = json.loads(extra["metadata.json"])
    assert json.loads(told["class_names"]) == NAMES and json.loads(told["class_ids"]) == IDS


def test_pseudo_labels_and_pictures_are_of_the_classes(here):
    labels = ("--load_model_path", BEST, "--soft", "--pseudo_label_path", "labels")
    assert command("generate_pseudo_labels", *PAIR, *labels) == 0
    assert len([*(here / "labels").rglob(f"*{ENDING}")]) == 8
    flags = ("--pseudo_label_path", "labels", "--save_keyword", "student")
    assert command("train_distill", *RUN, *flags, "--classes", "classes.csv") == 0
    assert command("visualize", *PAIR, "--load_model_path", BEST) == 0


def test_the_benchmark_takes_the_classes_of_a_checkpoint(here, monkeypatch):
    monkeypatch.setattr(benchmark_speed, "SECONDS", 0.0)
    words = ("--backends", "eager", "--precisions", "fp32", *TINY[:5])
    assert command("benchmark", "--load_model_path", BEST, *words) == 0


def test_a_checkpoint_of_other_classes_is_not_scored_and_starts_a_training(here, capsys):
    network = Design(base_width=8).build()
    torch.save(network.state_dict(), here / "official.pth")
    start = ("--load_model_path", "official.pth", "--save_keyword", "started")
    assert command("train_source", *RUN, *start, "--classes", "classes.csv") == 0
    assert "left out what is of the 19 other classes" in capsys.readouterr().out
    assert command("val_transfer", *PAIR, "--load_model_path", BEST, "--classes", "other.csv") == 1
    error = capsys.readouterr().err
    assert "has 4 classes and not the 4 that are asked for (different: hedge, wall)" in error
    words = ("--load_model_path", "official.pth", "--classes", "classes.csv", *TINY)
    assert command("val_transfer", *PAIR, *words) == 1
    assert "it is of 19 classes and not of 4" in capsys.readouterr().err


def test_labels_outside_the_table_end_the_run_before_it_begins(here, capsys):
    (here / "few.csv").write_text("id,name,colour\n3,lawn,#000000\n40,kerb,#ffffff\n")
    flags = ("--classes", "few.csv", "--save_keyword", "few")
    assert command("train_source", *RUN, *flags, "--overwrite") == 1
    assert "give each value a row in the file of --classes" in capsys.readouterr().err
    assert not (here / "runs/few").exists() or not any((here / "runs/few").glob("*.pth"))
