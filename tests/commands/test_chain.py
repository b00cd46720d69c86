"""The users' commands run in their order, from another working directory, with only the flags that
make them small. test_notebook.py runs them as processes of their own."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import main
from datasets.labels import CLASS_NAMES, IGNORE, NUM_CLASSES
from tests.support.helpers import TINY
from tests.support.runs import make_toy

TRAIN = ("--num_epochs", "1", "--optimizer", "adam", "--learning_rate", "0.001")
AUGMENTED = ("--aug_method", "C-S-HF")
BETAS = ("0.01", "0.05", "0.09")

TARGET_ROW = (
    *("--optimizer", "adam", *AUGMENTED, "--validation_only", "True"),
    *("--bn_statistics", "target", "--select", "last"),
)

COMMANDS = {
    "1.A": ("train_simple_cityscapes", *TRAIN),
    "1.B": ("train_simple_gta5", *TRAIN),
    "1.C": ("val_gta5_transfer", "--optimizer", "adam"),
    "1.D": ("train_simple_gta5", *TRAIN, *AUGMENTED),
    "1.D shift": ("val_gta5_transfer", "--optimizer", "adam", *AUGMENTED),
    "2": ("train_ada", *TRAIN, *AUGMENTED),
    **{f"3.A {beta}": ("train_fda", *TRAIN, *AUGMENTED, "--fda_beta", beta) for beta in BETAS},
    "3.B": ("val_mbt", "--optimizer", "adam"),
    "3.C labels": ("generate_pseudo_labels", "--optimizer", "adam", "--aug_method", "nonorm"),
    **{f"3.C {b}": ("train_ssl_fda", *TRAIN, *AUGMENTED, "--fda_beta", b) for b in BETAS},
    "3.C mbt": ("val_mbt", "--optimizer", "adam", "--ssl_round", "1"),
    "3.C labels again": ("generate_pseudo_labels", "--optimizer", "adam", "--ssl_round", "2"),
    "3.C second round": ("train_ssl_fda", *TRAIN, "--ssl_round", "2"),
    "only": ("train_ada", "--optimizer", "adam", *AUGMENTED, "--validation_only", "True"),
    "only, adapted": ("train_ada", *TARGET_ROW),
    "mbt of the last": ("val_mbt", "--optimizer", "adam", "--select", "last"),
    "pictures": ("visualize", "--optimizer", "adam"),
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The folder they ran in, with their outputs."""
    folder = tmp_path_factory.mktemp("chain")
    make_toy(folder, train=4, val=3, size=(72, 104))
    for name in ("GTA5", "Cityscapes"):
        (folder / "toy" / name).rename(folder / name)
    outputs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step, command in COMMANDS.items():
            code, outputs[step], errors = run(*command)
            assert code == 0, f"{step}: {errors[-2000:]}"
            if step == "only":
                assert "epoch" not in errors, "it has trained"
    return folder / "runs", outputs


def run(*words):
    """Return a command's exit code, its output and its errors."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        code = main.main(["--action", *words, "--save_model_path", "runs", *TINY])
    return code, output.getvalue(), errors.getvalue()


def read(path):
    return json.loads(path.read_text())


def test_every_training_has_its_folder(chain):
    runs, _ = chain
    digits = ("01", "05", "09")
    trained = {path.parent.name for path in runs.glob("*/scores.json")}
    assert trained == {
        "simple_cityscapes_adam_noaug",
        "simple_gta5_adam_noaug",
        "simple_gta5_adam_aug",
        "ada_adam_aug",
        *(f"fda{beta}_adam_aug" for beta in digits),
        *(f"ssl_fda{beta}_adam_aug" for beta in digits),
        "ssl2_fda01_adam_noaug",
    }


def test_a_training_with_a_target_ends_with_both_rows(chain):
    runs, outputs = chain
    for name in ("ada_adam_aug", "fda05_adam_aug", "ssl_fda09_adam_aug"):
        scores = read(runs / name / "scores.json")
        assert list(scores["last_target_statistics"]["class_IoU"]) == list(CLASS_NAMES)
        assert scores["last_target_statistics"] != scores["last"]
        assert scores["training"]["target"] == "Cityscapes"
    assert outputs["2"].count("mIoU for validation") == 2
    assert "last_target_statistics" not in read(runs / "simple_gta5_adam_aug" / "scores.json")


def test_the_shift_is_scored_with_both_statistics(chain):
    runs, outputs = chain
    assert outputs["1.C"].count("mIoU for validation") == 2
    for run in ("simple_gta5_adam_noaug", "simple_gta5_adam_aug"):
        both = [
            read(runs / run / f"validation_cityscapes{end}.json")
            for end in ("", "_target_statistics")
        ]
        assert [one["bn_statistics"] for one in both] == ["training", "target"]
        assert both[0]["mIoU"] != both[1]["mIoU"]


def test_the_discriminator_is_logged(chain):
    runs, _ = chain
    with (runs / "ada_adam_aug" / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    names = ("adv_target", "disc_source", "disc_target")
    assert all(float(row[name]) > 0 for name in names)
    accuracies = ("disc_accuracy_source", "disc_accuracy_target")
    assert all(0 <= float(row[name]) <= 1 for name in accuracies)
    parts = [float(row[name]) for name in ("seg_source", *names)]
    assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-5)


def test_mbt_scores_each_member_as_it_scored_itself_and_the_ensemble(chain):
    runs, outputs = chain
    record = read(runs / "mbt_adam_aug" / "validation_cityscapes.json")
    assert [member["checkpoint"] for member in record["members"]] == [
        f"runs/fda{beta}_adam_aug/best.pth" for beta in ("01", "05", "09")
    ]
    for member in record["members"]:
        own = read(runs.parent / member["checkpoint"].replace("best.pth", "scores.json"))
        assert member["mIoU"] == own["best"]["mIoU"]
    assert outputs["3.B"].count("mIoU for validation") == 4
    assert (runs / "mbt_adam_aug" / "validation_cityscapes.png").exists()
    second = read(runs / "mbt_ssl_adam_aug" / "validation_cityscapes.json")
    assert "ssl_fda05_adam_aug" in second["members"][1]["checkpoint"]


def test_pseudo_labels_lie_by_their_images_names(chain):
    runs, _ = chain
    for folder, members in (
        ("pseudo_labels_adam", ["fda01", "fda05", "fda09"]),
        ("pseudo_labels_adam_round2", ["ssl_fda01", "ssl_fda05", "ssl_fda09"]),
    ):
        images = sorted((runs.parent / "Cityscapes" / "leftImg8bit" / "train").glob("*/*.png"))
        for image in images:
            name = image.name.replace("_leftImg8bit", "_pseudo_labelTrainIds")
            label = np.array(Image.open(runs / folder / "train" / image.parent.name / name))
            assert label.shape == (64, 96)
            assert set(np.unique(label)) <= {*range(NUM_CLASSES), IGNORE}
        assert len(images) == 4 == len(list((runs / folder).glob("train/*/*")))
        paths = [c["path"] for c in read(runs / folder / "summary.json")["checkpoints"]]
        assert paths == [f"{member}_adam_aug/best.pth" for member in members]
    assert not list((runs.parent / "Cityscapes").rglob("*pseudo*"))


def test_validation_only_scores_without_training(chain):
    runs, _ = chain
    record = read(runs / "ada_adam_aug" / "validation_cityscapes.json")
    assert record["mIoU"] == read(runs / "ada_adam_aug" / "scores.json")["best"]["mIoU"]


def test_the_target_row_is_what_the_training_reported(chain):
    runs, _ = chain
    name = "validation_cityscapes_ada_adam_aug_latest_target_statistics.json"
    record = read(runs / "ada_adam_aug" / name)
    reported = read(runs / "ada_adam_aug" / "scores.json")["last_target_statistics"]
    assert record["mIoU"] == pytest.approx(reported["mIoU"], abs=1e-6)
    assert record["bn_statistics"] == "target"


def test_an_ensemble_of_the_last_weights_leaves_the_other_scores_alone(chain):
    runs, _ = chain
    names = {path.name for path in (runs / "mbt_adam_aug").glob("*.json")}
    assert names == {"validation_cityscapes.json", "validation_cityscapes_last.json"}


def test_visualize_draws_every_run_and_all_side_by_side(chain):
    runs, outputs = chain
    kinds = ["best.png", "fixed.png", "random.png", "worst.png"]
    for run in ("simple_gta5_adam_aug", "ada_adam_aug", "ssl2_fda01_adam_noaug", "mbt_adam_aug"):
        assert sorted(path.name for path in (runs / run / "pictures").iterdir()) == kinds
    sheet = Image.open(runs / "visualize_adam_noaug" / "pictures" / "comparison.png")
    assert min(sheet.size) > 400
    assert "side by side" in outputs["pictures"]


def test_self_training_is_refused_once_its_labels_are_stale(chain, monkeypatch):
    """FDA trained afresh: a finished run still prints its scores, another is not begun."""
    runs, _ = chain
    monkeypatch.chdir(runs.parent)
    code, _, _ = run(*COMMANDS["3.A 0.05"], "--seed", "5", "--overwrite")
    assert code == 0
    code, printed, _ = run(*COMMANDS["3.C 0.01"])
    assert code == 0 and "is finished" in printed
    another = (*COMMANDS["3.C 0.01"], "--save_keyword", "another")
    code, _, errors = run(*another)
    assert code == 1
    (sentence,) = errors.strip().splitlines()
    assert "fda05_adam_aug/best.pth has changed since" in sentence
    assert "--accept_pseudo_labels True" in sentence
    code, _, _ = run(*another, "--accept_pseudo_labels", "True")
    assert code == 0


def test_a_run_does_not_go_on_with_other_pseudo_labels(chain, monkeypatch):
    runs, _ = chain
    monkeypatch.chdir(runs.parent)
    code, _, errors = run(*COMMANDS["3.C labels"])
    assert code == 2 and "another making (fda" in errors
    code, _, _ = run(*COMMANDS["3.C labels"], "--overwrite")
    assert code == 0
    code, _, errors = run(*COMMANDS["3.C 0.01"])
    assert code == 2 and "the images or their pseudo-labels" in errors
