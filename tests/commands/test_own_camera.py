"""The commands of docs/own_camera.md, from photos without labels to predictions."""

import csv
import json
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets.toy_city import draw_scene, make_toy_city
from tests.support.helpers import TINY, save
from tests.support.layouts import make_dark_zurich
from tests.support.runs import OFTEN, assert_same, signalled
from utils.disk.run_folder import LATEST, RunFolder

pytest.importorskip("av")
import av

from trainings.application import benchmark_speed
from trainings.application.video import video_writer

SIZE = (64, 96)
WORDS = ("--save_model_path", "runs", "--cache_dir", "cache", "--gta5_root", "toy/GTA5", *TINY)
PHOTOS, VIDEO = "my dashcam", "drives/my drive.mp4"
TRAIN = ("train_dacs", "--target", PHOTOS, "--num_epochs", "2")
RUN = "dacs_gta5_to_my_dashcam_sgd_noaug"


def frame(number, size=SIZE):
    return draw_scene((3, number), size, "camera").image


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Toy City as the source, a folder of six photos, and a video of a street."""
    folder = tmp_path_factory.mktemp("camera")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_toy_city(folder / "toy", train=8, val=2, size=SIZE, seed=0)
        for number in range(6):
            size, suffix = ((80, 100), "png") if number % 2 else (SIZE, "jpg")
            path = folder / PHOTOS / f"day {number % 3}" / f"IMG {number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame(number, size)).save(path)
        (folder / "drives").mkdir()
        with video_writer(folder / VIDEO, SIZE, Fraction(10)) as write:
            for number in range(12):
                write(frame(number))
        assert command(*TRAIN) == 0
        yield folder


def command(action, *words):
    return main.main(["--action", action, *WORDS, *words])


def test_training_keeps_the_last_weights_and_shows_the_target(here):
    run = here / "runs" / RUN
    assert not (run / "best.pth").exists()
    assert (run / LATEST).exists() and (run / "ema.pth").exists() and (run / "target.png").exists()
    scores = json.loads((run / "scores.json").read_text())
    assert scores["best"] is None and scores["selection"].startswith("no best epoch is kept")
    assert scores["validation"]["domain"] == "GTA5"
    assert scores["training"]["target_data_set"] == PHOTOS
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        shares = [float(row[name]) for name in row if name.startswith("target_share/")]
        assert len(shares) == 19 and sum(shares) == pytest.approx(1)
        for name in ("confidence", "entropy", "agreement", "class_difference"):
            assert 0 <= float(row[f"target/{name}"]) <= 1


def test_what_reads_checkpoints_takes_the_last_ones(here, capsys):
    for action, *more in (("visualize",), ("train_dacs", "--validation_only")):
        assert command(action, "--target", PHOTOS, *more) == 0
        assert f"{RUN}/{LATEST}" in capsys.readouterr().out
    pictures = {path.name for path in (here / "runs" / RUN / "pictures").iterdir()}
    assert {"fixed_latest.png", "random_latest.png", "spread_latest.png"} <= pictures
    words = ("--select", "best", "--validation_only")
    assert command("train_dacs", "--target", PHOTOS, *words) == 1
    assert "no best.pth in" in capsys.readouterr().err


def test_the_report_draws_the_photos_beside_the_source_only_network(here, capsys):
    looks = ("--target", PHOTOS, "--watch_target")
    assert command("train_source", *looks, "--num_epochs", "2", "--save_keyword", "alone") == 0
    assert (here / "runs" / "alone" / "target.png").exists()
    runs = [str(here / "runs" / name) for name in (RUN, "alone")]
    assert command("report", "--runs", *runs) == 0
    folder = here / "runs" / "report"
    assert (folder / "predictions_sgd_my_dashcam.png").exists()
    page = (folder / "results.html").read_text()
    _, _, data = page.partition('id="viewer-data">')
    (shown,) = json.loads(data.partition("</script>")[0])["sets"]
    names = [method["name"] for method in shown["methods"]]
    assert names == ["Source-only", "Source-only, target statistics", "DACS"]
    assert (shown["left"], shown["right"]) == (0, 2)
    assert len(shown["images"]) == 6 and not any(one["truth"] for one in shown["images"])
    assert "Indicators on my dashcam, after the last epoch" in page
    table = (folder / "results.md").read_text().partition("## Without labels: my dashcam")[2]
    assert "\n| Source-only |" in table and "\n| DACS        |" in table


def test_the_network_predicts_a_video_is_exported_and_measured(here, monkeypatch):
    checkpoint = f"runs/{RUN}/{LATEST}"
    target = ("--target", PHOTOS, "--bn_statistics", "target")
    words = ("--load_model_path", checkpoint, "--input", VIDEO, "--output", "out", *target)
    assert command("predict", *words) == 0
    assert list((here / "out").rglob("*.mp4"))
    words = ("--load_model_path", checkpoint, "--output", "network.pt2")
    assert command("export", *words, "--target", PHOTOS) == 0
    assert (here / "network.pt2").exists()
    monkeypatch.setattr(benchmark_speed, "SECONDS", 0.0)
    words = ("--load_model_path", checkpoint, "--backends", "eager", "--precisions", "fp32")
    assert command("benchmark", *words) == 0
    (measured,) = json.loads((here / "runs/benchmark/benchmark.json").read_text())["inference"]
    assert measured["fps"] > 0


def test_check_data_says_what_the_photos_are_good_for(here, capsys):
    save(frame(0), here / PHOTOS / "again.png")
    try:
        assert command("check_data", "--target", PHOTOS) == 0
    finally:
        (here / PHOTOS / "again.png").unlink()
    out = capsys.readouterr().out
    assert "7 images (4 png, 3 jpg), 1 of them nearly the same as another" in out
    assert "6 different ones are too few (8 are advised) for target statistics" in out


@pytest.mark.parametrize("target", [PHOTOS, VIDEO])
def test_a_stopped_training_ends_bit_for_bit_like_one_that_ran_through(here, target):
    words = ("--action", "train_fda", *WORDS, "--target", target, "--num_epochs", "2", *OFTEN)
    words = (*words, "--frame_step", "2", "--log_every", "1")
    name = Path(target).stem.replace(" ", "_")
    code, out = signalled(
        here, signal.SIGINT, b"after epoch 1", *words, "--save_keyword", f"{name}_stopped"
    )
    assert code == 130 and "stopped after step" in out
    for keyword in ("stopped", "whole"):
        assert main.main([*words, "--save_keyword", f"{name}_{keyword}"]) == 0
    states = [
        RunFolder(here / "runs" / f"{name}_{keyword}").load_checkpoint(LATEST)
        for keyword in ("stopped", "whole")
    ]
    for state in states:
        state.pop("seconds")
        for row in state["history"]:
            for timed in ("train_seconds", "images_per_second"):
                row.pop(timed)
    assert_same(*states)


def test_frames_of_a_video_are_decoded_once(here, capsys):
    words = ("train_ada", "--target", "drives", "--frame_step", "5", "--num_epochs", "1")
    assert command(*words) == 0
    assert "3 target images (drives)" in capsys.readouterr().out
    frames = sorted((here / "cache" / "frames").glob("*/*.png"))
    times = [path.stat().st_mtime_ns for path in frames]
    assert command(*words, "--overwrite") == 0
    assert times == [path.stat().st_mtime_ns for path in frames]


@pytest.fixture(scope="module")
def wrong(here):
    """Data of every kind that no training takes."""
    (here / "empty").mkdir()
    (here / "broken.mp4").write_bytes(b"no video")
    with av.open(str(here / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 44100
        file.mux([*stream.encode(silence), *stream.encode()])
    save(frame(0), here / "one photo" / "a.png")
    for number in range(6):
        save(frame(number), here / "wrong labels" / "images" / f"photo {number}.png")
        label = np.full(SIZE, 77 if number == 5 else 0, np.uint8)
        save(label, here / "wrong labels" / "labels" / f"photo {number}.png")


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("--target", "nowhere"), 2, "is none of the data sets"),
        (("--target", "city_scapes"), 2, "did you mean cityscapes?"),
        (("--target", "no/where"), 1, "--target_root no/where: there is nothing at"),
        (("--target", PHOTOS, "--target_root", "x"), 2, "leave --target_root out"),
        (("--target", "folder"), 2, "give the path of the folder"),
        (("--source", PHOTOS), 1, "has no labels of its train split"),
        (("--target", "empty"), 1, "holds no images"),
        (("--target", "broken.mp4"), 1, "broken.mp4 cannot be read as a video (Invalid data"),
        (("--target", "sound.mp4"), 1, "sound.mp4 holds no frames, only sound or text: replace it"),
        (("--target", VIDEO, "--frame_step", "50"), 1, "holds 1 image (.bmp, .jpeg"),
        (("--target", VIDEO, "--frame_step", "50"), 1, "with a lower --frame_step"),
        (("--target", "one photo"), 1, "holds 1 image (.bmp, .jpeg"),
        (("--target", "my dashcm"), 2, "did you mean my dashcam?"),
        (("--target", VIDEO, "--cache_dir", "none"), 1, "are kept in a cache"),
        (("--source", "dark_zurich", "--source_root", "empty"), 1, "no labels of its train split"),
        (("--source", "synthia", "--source_root", "empty"), 1, "empty holds RGB/ and GT/LABELS/"),
        (("--target", "bdd100k", "--target_root", "empty"), 1, "unpack the train split of BDD100K"),
        (
            ("--target", PHOTOS, "--source", "wrong labels"),
            1,
            "photo 5.png should hold train ids (0 to 18, 255) but",
        ),
    ],
)
@pytest.mark.usefixtures("wrong")
def test_a_wrong_source_or_target_gets_one_sentence(here, capsys, words, code, problem):
    frames = [*(here / "cache" / "frames").glob("*")]
    try:
        found = command("train_ada", *words, "--save_keyword", "wrong")
    except SystemExit as left:
        found = left.code
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert found == code and problem in said
    assert not (here / "runs" / "wrong").exists()
    new = {*(here / "cache" / "frames").glob("*")}.difference(frames)
    assert all((folder / "done").exists() for folder in new)


def test_actions_named_after_the_usual_data_are_for_them_alone(here, capsys):
    assert command("train_simple_gta5", "--source", "synthia") == 2
    assert "train_simple_gta5 is for gta5; use --action train_source" in capsys.readouterr().err
    assert command("val_gta5_transfer", "--target", PHOTOS) == 2


def test_methods_are_compared_on_a_target_that_has_labels_to_score_alone(here, capsys):
    assert command("reproduce", "--target", PHOTOS, "--dry_run") == 1
    error = capsys.readouterr().err
    assert f"{PHOTOS} has no labels of its val split" in error and "train_dacs" in error
    make_dark_zurich(here / "Dark_Zurich")
    words = ("--target", "dark_zurich", "--optimizer", "sgd", "--dry_run")
    assert command("reproduce", *words) == 0
    out = capsys.readouterr().out
    assert "no labels to train on: Supervised on the target\n" in out
    assert "| source_gta5_sgd_noaug" in out.replace("sgd/seed0/", "") and "target_dark" not in out
    assert not (here / "runs" / "reproduce_gta5_to_dark_zurich").exists()


def test_a_training_without_any_validation_split_ends_well(here, capsys):
    words = ("--source_root", "toy/GTA5", "--gta5_val_fraction", "0", "--num_epochs", "1")
    assert command("train_source", *words) == 0
    assert "no validation split has labels, so nothing is scored" in capsys.readouterr().out
    run = here / "runs" / "source_gta5_sgd_noaug"
    assert (run / LATEST).exists() and not (run / "best.pth").exists()
    assert command("train_source", *words) == 0
    assert "is finished" in capsys.readouterr().out
    transfer = ("--source_root", "toy/GTA5", "--target_root", "toy/Cityscapes")
    assert command("val_transfer", *transfer) == 0
    record = json.loads((run / f"validation_cityscapes_{run.name}_latest.json").read_text())
    assert record["validation"]["domain"] == "Cityscapes"


def test_indicators_of_a_labelled_target_are_there_when_asked_for(here):
    words = ("--cityscapes_root", "toy/Cityscapes", "--num_epochs", "1", "--watch_target")
    assert command("train_fda", *words, "--save_keyword", "watched") == 0
    run = here / "runs" / "watched"
    assert (run / "best.pth").exists() and (run / "target.png").exists()
    row = next(csv.DictReader((run / "history.csv").open(newline="")))
    assert {"val/mIoU", "target/entropy"} <= row.keys() and "target/agreement" not in row


def test_confidence_and_entropy_of_a_known_map():
    from trainings.engine.target import _sums

    logits = torch.zeros(1, 19, 2, 2)
    logits[0, 3, 0, 0] = 100.0  # one pixel sure of class 3, three that are not
    pixels, confidence, entropy, agreed, *counts = _sums(logits, logits.roll(1, 1)).tolist()
    assert pixels == 4 and np.isclose(confidence, 1 + 3 / 19)
    assert np.isclose(entropy, 3, atol=1e-5) and agreed == 3
    assert counts[3] == 1 and counts[0] == 3


def command_without_data(action, *words):
    where = ("--save_model_path", "runs", "--cache_dir", "cache", "--device", "cpu")
    return main.main(["--action", action, *where, *words, "--num_workers", "0"])


def test_the_data_of_the_run_are_taken_where_a_command_names_none(here, capsys):
    named, line = ("--load_model_path", f"runs/{RUN}/{LATEST}"), "data as in the run: "
    target = ("--bn_statistics", "target")
    for action, *words in (
        ("predict", *target, "--input", VIDEO, "--output", "by_run"),
        ("export", *target, "--output", "by_run.pt2"),
        ("visualize",),
        ("generate_pseudo_labels", "--soft", "--pseudo_label_path", "by_run_labels"),
    ):
        assert command_without_data(action, *named, *words) == 0
        said = capsys.readouterr().out
        assert said.count(line) == 1 and "--target 'my dashcam'" in said
        assert "--gta5_root toy/GTA5" in said
    labels = [*(here / "by_run_labels" / "train").rglob("*.png")]
    assert any("IMG 0" in path.name for path in labels)

    output = ("--input", VIDEO, "--output", "by_flags", *target)
    words = ("--cityscapes_root", "toy/Cityscapes")
    assert command_without_data("predict", *named, *words, *output) == 0
    assert command_without_data("predict", *named, "--input", VIDEO, "--output", "plain") == 0
    assert line not in capsys.readouterr().out
    assert command_without_data("val_transfer", *named) == 1
    assert "--cityscapes_root Cityscapes: there is nothing" in capsys.readouterr().err
    (here / PHOTOS).rename(here / "away")
    try:
        assert command_without_data("predict", *named, *output[:-2], *target, "--overwrite") == 1
    finally:
        (here / "away").rename(here / PHOTOS)
    printed = capsys.readouterr()
    assert line not in printed.out and "--cityscapes_root Cityscapes: there is" in printed.err


def test_an_ensemble_is_not_loaded_for_a_target_without_labels_to_score(here, capsys):
    members = ("--mbt_checkpoints", *[f"runs/{RUN}/{LATEST}"] * 3)
    assert command("val_mbt", "--target", PHOTOS, *members) == 1
    printed = capsys.readouterr()
    assert "loaded" not in printed.out
    assert "has no labels of its val split" in printed.err and "val/labels/" in printed.err


def labelled_photos(folder, numbers):
    """A folder of photos without labels to train on, and of labelled ones to score on."""
    save(frame(0), folder / "train" / "images" / "a.png")
    save(frame(1), folder / "train" / "images" / "b.png")
    for number in numbers:
        save(frame(number), folder / "val" / "images" / f"{number}.png")
        save(np.zeros(SIZE, np.uint8), folder / "val" / "labels" / f"{number}.png")


def test_scores_of_a_named_checkpoint_go_into_its_run_and_replace_no_others(here, capsys):
    labelled_photos(here / "mix", (3, 4))
    labelled_photos(here / "night" / "mix", (4, 5))
    run, others = here / "runs" / RUN, {*(here / "runs").iterdir()}
    named = ("--load_model_path", f"runs/{RUN}/{LATEST}")
    for action, *words in (("val_transfer",), ("train_dacs", "--validation_only")):
        assert command(action, "--target", "mix", *named, *words) == 0
    assert {*(here / "runs").iterdir()} == others
    name = f"validation_mix_{RUN}_latest"
    before = (run / f"{name}.json").read_text()
    assert json.loads(before)["validation"]["images"] == 2
    assert (run / f"{name}.png").exists() and (run / f"{name}_target_statistics.json").exists()

    for _ in range(2):
        assert command("val_transfer", "--target", "night/mix", *named) == 0
    (other,) = (
        set(run.glob(f"{name}_*.json"))
        - {run / f"{name}_target_statistics.json"}
        - {*run.glob(f"{name}_target_statistics_*.json")}
    )
    assert json.loads(other.read_text())["settings"]["target_root"] == "night/mix"
    assert (run / f"{name}.json").read_text() == before

    keyword = ("--save_keyword", "elsewhere")
    assert command("val_transfer", "--target", "mix", *named, *keyword) == 0
    assert (here / "runs" / "elsewhere" / f"{name}.json").exists()
    (here / "alone").mkdir()
    (here / "alone" / "net.pth").write_bytes((run / LATEST).read_bytes())
    alone = ("--load_model_path", "alone/net.pth", "--save_keyword", "elsewhere")
    assert command("val_transfer", "--target", "mix", *alone) == 0
    assert (here / "runs" / "elsewhere" / "validation_mix_alone_net.json").exists()


def test_a_network_of_the_source_is_scored_on_the_target_that_is_named(here, capsys):
    for split in ("train", "val"):
        save(frame(0), here / "labelled" / split / "images" / "a.png")
        save(np.zeros(SIZE, np.uint8), here / "labelled" / split / "labels" / "a.png")
    words = ("--source_root", "toy/GTA5", "--target", "labelled", "--score_target")
    assert command("train_source", *words, "--num_epochs", "1", "--save_keyword", "gap") == 0
    printed = capsys.readouterr()
    assert "mIoU on the target (labelled" in printed.out and "--target" not in printed.err
    with (here / "runs" / "gap" / "history.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["target/mIoU"]) >= 0
