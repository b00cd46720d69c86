"""The real command on pictures and videos of every kind, in process."""

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from PIL import Image

import main
from datasets import video
from datasets.inputs import PICTURES, find_pictures
from datasets.labels import CLASS_NAMES, LABEL_ID_TO_TRAIN_ID, PALETTE
from datasets.samples import SampleDataset
from model.model_stages import BiSeNet
from tests.support.data import cityscapes_files
from tests.support.helpers import claim_size, label_ids, picture, run_main, save
from trainings.application.predictions import KINDS
from trainings.application.segmenter import Segmenter, as_seen
from trainings.application.video import video_writer
from utils.background import Background
from utils.pictures.panels import overlay
from utils.transforms import Preparation

SIZE = (128, 192)  # of the pictures: twice --image_size
FLAGS = ("--num_workers", "0", "--precision", "fp32", "--save_model_path", "runs")
RUN = {"action": "train_fda", "backbone": "stdc1", "base_width": 8, "image_size": [64, 96]}
RUN_A = ("--load_model_path", "runs/a/best.pth")
STRANGE = ("with space", "ünïcödé 街", "new\nline", "100%d [x]")


def checkpoint(folder: Path, seed: int, width: int = 8) -> Path:
    """A network that sees many classes, in the folder of its run."""
    torch.manual_seed(seed)
    network = BiSeNet(base=width)
    network.conv_out.conv_out.weight.data *= 30
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "best.pth")
    (folder / "settings.json").write_text(json.dumps({**RUN, "base_width": width}))
    return folder / "best.pth"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the checkpoints of two runs, `a` and `b`."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        checkpoint(tmp_path / "runs" / name, seed)
    return tmp_path


def command(*words, network=RUN_A):
    return main.main(["--action", "predict", *FLAGS, *network, *map(str, words)])


def results(folder: Path) -> dict[str, Path]:
    """The files of results by kind and name, such as `color/a/1`."""
    return {
        path.relative_to(folder).as_posix().removesuffix(end): path
        for kind, end in KINDS.items()
        for path in (folder / kind).rglob(f"*{end}")
    }


def names(folder: Path) -> set[str]:
    """The names that have a result of every kind."""
    found = results(folder)
    by_kind = [{n.split("/", 1)[1] for n in found if n.startswith(f"{kind}/")} for kind in KINDS]
    assert all(one == by_kind[0] for one in by_kind)
    return by_kind[0]


def array(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def record(folder: Path) -> dict:
    return json.loads((folder / "predictions.json").read_text())


def test_one_bad_file_is_named_at_the_end_and_the_rest_is_done(here, capsys):
    for number, name in enumerate(("a/1.png", "b/1.png", "c/1.jpg", "c/1.png", "x.JPEG")):
        save(picture(number, SIZE), here / "in" / name)
    whole = (here / "in/a/1.png").read_bytes()
    (here / "in/a/0.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full(SIZE, 1000, np.uint16)).save(here / "in/deep.png")
    save(picture(0, (2, 64)), here / "in/line.png")
    save(picture(0), here / "in/.ipynb_checkpoints/1.png")
    (here / "in/notes.txt").write_text("mine")
    assert command("--input", "in", "--num_workers", "2") == 1
    out, err = capsys.readouterr()
    folder = here / "runs/predictions_a/in"
    assert names(folder) == {"a/1", "b/1", "c/1.jpg", "c/1.png", "x"}
    bad = {Path(one["path"]).name for one in record(folder)["bad"]}
    assert bad == {"0.png", "deep.png", "line.png"} and all(f"/{name} " in out for name in bad)
    assert "5 images in" in out and "images/s" in out and "3 files could not be read" in err


def test_every_format_that_is_listed_is_read(here, capsys):
    image = picture(0, SIZE)
    for suffix in PICTURES:
        exact = {"lossless": True} if suffix == ".webp" else {}
        (here / "in").mkdir(exist_ok=True)
        Image.fromarray(image).save(here / f"in/{suffix[1:]}{suffix}", **exact)
    assert command("--input", "in", "--output", "out") == 0
    maps = {suffix: array(results(here / "out")[f"train_ids/{suffix[1:]}"]) for suffix in PICTURES}
    for suffix in set(PICTURES) - {".jpg", ".jpeg"}:
        assert np.array_equal(maps[suffix], maps[".png"])


def test_what_is_no_picture_of_eight_bits_is_refused_whatever_its_name(here, capsys):
    save(np.full(SIZE, 1000, np.uint16), here / "in/deep.tif")
    (here / "in/deep.ppm").write_bytes(b"P5 96 64 65535\n" + bytes(2 * 64 * 96))
    Image.fromarray(picture(0, SIZE)).save(here / "in/script.tiff", "EPS")
    (here / "in/half.bmp").write_bytes(b"BM" + bytes(20))
    assert command("--input", "in") == 1
    out = capsys.readouterr().out
    assert out.count("bits a channel: save it with 8") == 2
    assert out.count("cannot be read") == 2 and "partner" not in out
    assert len(record(here / "runs/predictions_a/in")["bad"]) == 4


def test_results_belong_together_and_have_the_inputs_size(here):
    image = picture(0, (100, 171))
    save(image, here / "in.png")
    assert command("--input", "in.png", "--output", "out") == 0
    maps = {kind: array(results(here / "out")[f"{kind}/in"]) for kind in KINDS}
    train_ids = maps["train_ids"]
    assert train_ids.shape == (100, 171) and len(np.unique(train_ids)) > 3
    assert np.array_equal(LABEL_ID_TO_TRAIN_ID[maps["label_ids"]], train_ids)
    assert np.array_equal(maps["color"], PALETTE[train_ids])
    drawn = overlay(image, train_ids).astype(int)  # a JPEG is near
    assert np.abs(maps["overlay"] - drawn).mean() < 30
    assert np.abs(drawn - (image.astype(int) + PALETTE[train_ids]) / 2).max() <= 1


def make_cityscapes(root: Path) -> Path:
    """Labelled images of two cities, of twice the network's size."""
    for index, city in enumerate(("ulm", "ulm", "bonn")):
        name = f"{city}_{index:06d}_000019"
        save(picture(index, SIZE), root / f"leftImg8bit/val/{city}/{name}_leftImg8bit.png")
        save(label_ids(index, SIZE), root / f"gtFine/val/{city}/{name}_gtFine_labelIds.png")
    return root


def test_it_ends_with_a_contact_sheet(here, capsys):
    for number in range(3):
        save(picture(number, SIZE), here / "in" / f"{number}.png")
    assert command("--input", "in", "--output", "out") == 0
    assert "contact sheet: out/contact_sheet.png" in capsys.readouterr().out
    with Image.open("out/contact_sheet.png") as sheet:
        first = sheet.size
    (here / "out" / "contact_sheet.png").unlink()
    assert command("--input", "in", "--output", "out") == 0
    with Image.open("out/contact_sheet.png") as sheet:
        assert sheet.size == first


def test_overlays_may_stand_beside_their_pictures(here, capsys):
    image = np.full((*SIZE, 3), (40, 90, 200), np.uint8)
    save(image, here / "in" / "a.png")
    assert command("--input", "in", "--output", "out", "--side_by_side") == 0
    with Image.open("out/overlay/a_pred_overlay.jpg") as drawn:
        assert drawn.size == (2 * SIZE[1], SIZE[0])
        left = np.array(drawn)[:, : SIZE[1]].astype(int)
    assert np.abs(left - image).mean() < 3  # it is a JPEG
    with Image.open("out/color/a_pred_color.png") as color:
        assert color.size == SIZE[::-1]
    assert command("--input", "in", "--output", "out") == 2
    assert "side_by_side was True, is None" in capsys.readouterr().err


def test_the_official_evaluation_finds_the_results_and_agrees_with_validation(here, monkeypatch):
    """`getPrediction` finds the files by itself; the scores are those of `--validation_only`."""
    root = make_cityscapes(here / "Cityscapes")
    assert command("--input", root / "leftImg8bit/val", "--output", "out") == 0
    assert names(here / "out") == {
        "ulm/ulm_000000_000019",
        "ulm/ulm_000001_000019",
        "bonn/bonn_000002_000019",
    }
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(here / "out/label_ids"))
    arguments = official.args
    arguments.predictionPath = arguments.predictionWalk = None
    arguments.evalInstLevelScore = arguments.JSONOutput = False
    arguments.quiet = True
    truths = sorted(map(str, root.rglob("*_labelIds.png")))
    predictions = [official.getPrediction(arguments, truth) for truth in truths]
    theirs = official.evaluateImgLists(predictions, truths, arguments)
    words = ("--load_model_path", "runs/a/best.pth", "--validation_only", *FLAGS, "--base_width")
    words = ("--action", "train_simple_cityscapes", *words, "8", "--image_size", "64", "96")
    assert main.main([*words, "--cityscapes_root", str(root), "--save_keyword", "scores"]) == 0
    (path,) = (here / "runs/scores").glob("validation_*.json")
    ours = json.loads(path.read_text())
    assert ours["mIoU"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-9)
    assert sum(ours["class_IoU"][name] not in (None, 0) for name in CLASS_NAMES) > 3
    for name in CLASS_NAMES:
        if ours["class_IoU"][name] is not None:
            assert ours["class_IoU"][name] == pytest.approx(theirs["classScores"][name], abs=1e-9)


def test_a_cityscapes_image_is_seen_as_in_validation(tmp_path):
    files = cityscapes_files(make_cityscapes(tmp_path), "val")
    samples = SampleDataset(files, Preparation((64, 96), resizes_label=False))
    for index, one in enumerate(files):
        assert torch.equal(as_seen(array(one.image), (64, 96)), samples[0, index].image)


@pytest.mark.parametrize(
    ("size", "seen"), [((64, 96), (64, 96)), ((96, 70), (132, 96)), ((30, 41), (70, 96))]
)
def test_a_picture_keeps_its_proportions_and_covers_the_image_size(size, seen):
    assert as_seen(picture(0, size), (64, 96)).shape == (3, *seen)


def test_it_goes_on_where_it_stopped_and_does_nothing_twice(here, monkeypatch, capsys):
    for number in range(4):
        save(picture(number, SIZE), here / f"in/{number}.png")
    folder, segment, calls = here / "out", Segmenter.__call__, []

    def counting(self, *arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return segment(self, *arguments)

    monkeypatch.setattr(Segmenter, "__call__", counting)
    assert command("--input", "in", "--output", "out") == 130
    assert "goes on from there" in capsys.readouterr().err
    done = names(folder)
    assert done <= {"0", "1"} and "finished" not in record(folder)
    monkeypatch.setattr(Segmenter, "__call__", segment)
    assert command("--input", "in", "--output", "out") == 0
    assert f"{4 - len(done)} images in" in capsys.readouterr().out
    assert names(folder) == {"0", "1", "2", "3"}

    before = {path: path.stat().st_mtime_ns for path in results(folder).values()}
    assert command("--input", "in", "--output", "out") == 0
    assert {path: path.stat().st_mtime_ns for path in results(folder).values()} == before
    out = capsys.readouterr().out
    assert "4 images predicted before" in out and "best.pth: loaded" not in out

    results(folder)["overlay/1"].unlink()
    save(picture(9, SIZE), here / "in/2.png")  # a younger picture of the same name
    os.utime(here / "in/2.png", ns=(2 * 10**18, 2 * 10**18))
    assert command("--input", "in", "--output", "out") == 0
    assert "2 images in" in capsys.readouterr().out and len(results(folder)) == 16


def test_results_of_another_making_are_refused_unless_overwritten(here, capsys):
    save(picture(0, SIZE), here / "in/0.png")
    save(picture(0, SIZE), here / "other/0.png")
    (here / "out").mkdir()
    (here / "out/mine.txt").write_text("mine")
    assert command("--input", "in", "--output", "out") == 0
    first = array(results(here / "out")["train_ids/0"])
    b = ("--load_model_path", "runs/b/best.pth")
    for words, network, named in (
        (("--input", "in"), b, "made with "),
        (("--input", "in", "--image_size", "72", "96"), (), "image_size was [64, 96], is [72, 96]"),
        (("--input", "other"), (), "input was"),
    ):
        assert command("--output", "out", *words, network=network or RUN_A) == 2
        assert named in capsys.readouterr().err
    shutil.copytree(here / "runs/a", here / "runs/moved")
    moved = ("--load_model_path", "runs/moved/best.pth")
    assert command("--input", "in", "--output", "out", network=moved) == 0
    assert command("--input", "in", "--output", "out", "--overwrite", network=b) == 0
    assert not np.array_equal(array(results(here / "out")["train_ids/0"]), first)
    assert (here / "out/mine.txt").exists()
    (here / "out/predictions.json").unlink()
    assert command("--input", "in", "--output", "out", network=b) == 2
    assert "no predictions.json that says what made them" in capsys.readouterr().err


def test_a_record_of_something_else_is_another_making(here, capsys):
    save(picture(0, SIZE), here / "in.png")
    (here / "out").mkdir()
    (here / "out/predictions.json").write_text('{"model": "another tool\'s"}')
    assert command("--input", "in.png", "--output", "out") == 2
    assert "holds other predictions (input was None" in capsys.readouterr().err


def test_a_folder_above_gives_its_name_to_the_results(here, monkeypatch):
    save(picture(0, SIZE), here / "photos/0.png")
    (here / "link").symlink_to("photos")
    (here / "photos/deep").mkdir()
    monkeypatch.chdir(here / "photos/deep")
    runs = ("--save_model_path", "../../runs", "--save_keyword", "seen")
    network = ("--load_model_path", "../../runs/a/best.pth")
    for path in ("..", "../../link"):
        assert command("--input", path, *runs, network=network) == 0
    assert names(here / "runs/seen/photos") == names(here / "runs/seen/link") == {"0"}


def test_an_ensemble_and_what_a_command_lacks(here, capsys):
    save(picture(0, SIZE), here / "in.png")
    both = ("--mbt_checkpoints", "runs/a/best.pth", "runs/b/best.pth")
    assert command("--input", "in.png", network=both) == 0
    assert names(here / "runs/predictions_a_b/in") == {"in"}
    assert len(record(here / "runs/predictions_a_b/in")["checkpoints"]) == 2
    capsys.readouterr()
    for words, network, sentence in (
        (("--input", "in.png"), (), "needs a checkpoint"),
        (("--input", "in.png"), (), "found: runs/a/best.pth, runs/b/best.pth"),
        (("--input", "in.png"), (*both, "--load_model_path", "x"), "one network or an ensemble"),
        ((), both, "argument --input"),
    ):
        assert command(*words, network=network) == 2
        assert sentence in capsys.readouterr().err
    (here / "empty").mkdir()
    for path, sentence in (
        ("gone.png", "nothing at"),
        ("empty", "no pictures"),
        ("a/*", "no pict"),
    ):
        assert command("--input", path, network=both) == 1
        assert sentence in capsys.readouterr().err


def test_network_and_size_are_those_of_the_run_unless_given(here, capsys):
    """The run's settings say --base_width 8 and --image_size 64 96; the defaults are others."""
    save(picture(0, SIZE), here / "in.png")
    assert command("--input", "in.png") == 0
    out = capsys.readouterr().out
    kept = "pictures of other proportions keep theirs and are scaled to cover it"
    assert f"predicting at 64x96, as trained; {kept}" in out.splitlines() and "1 image in" in out
    assert "with the batch-norm statistics of the training" in out and "scored" not in out
    assert command("--input", "in.png", "--output", "larger", "--image_size", "96", "128") == 0
    assert f"predicting at 96x128; {kept}" in capsys.readouterr().out
    assert command("--input", "in.png", "--output", "out", "--base_width", "16") == 1
    assert "use --base_width 8" in capsys.readouterr().err
    (here / "runs/a/settings.json").write_text('{"image_size": 5, "backbone": "resnet"}')
    assert command("--input", "in.png", "--output", "out") == 1
    assert "a/settings.json is not as the training wrote it" in capsys.readouterr().err


def test_members_of_an_ensemble_may_have_widths_of_their_own(here):
    save(picture(0, SIZE), here / "in.png")
    both = ("--mbt_checkpoints", "runs/a/best.pth", "runs/wide/best.pth")
    checkpoint(here / "runs" / "wide", 2, width=16)
    assert command("--input", "in.png", "--output", "out", network=both) == 0


@pytest.mark.parametrize("action", ["predict", "export"])
def test_a_checkpoint_without_all_of_its_main_path_is_refused(here, capsys, action):
    save(picture(0, SIZE), here / "in.png")
    weights = torch.load(here / "runs/a/best.pth")
    del weights["ffm.conv1.weight"]
    torch.save(weights, here / "runs/a/best.pth")
    words = ("--input", "in.png") if action == "predict" else ("--output", "net.pt2")
    assert main.main(["--action", action, *FLAGS, *RUN_A, *words]) == 1
    assert "lacks 1 tensor of this network: ffm.conv1.weight" in capsys.readouterr().err
    assert not (here / "net.pt2").exists() and not list((here / "runs").glob("*/in/*/*"))


def test_a_pipe_as_checkpoint_is_refused_and_not_waited_for(here, capsys):
    save(picture(0, SIZE), here / "in.png")
    os.mkfifo(here / "pipe.pth")
    for action in ("predict", "export", "val_gta5_transfer"):
        words = ("--input", "in.png") if action == "predict" else ()
        named = ("--load_model_path", "pipe.pth", "--output", "net.pt2")
        assert main.main(["--action", action, *FLAGS, *named, *words]) == 1
        assert "pipe.pth is a pipe, a socket or a device" in capsys.readouterr().err, action


def test_a_command_that_cannot_work_leaves_no_folder(here, capsys):
    save(picture(0, SIZE), here / "in.png")
    (here / "empty").mkdir()
    (here / "bad.pth").write_bytes(b"no weights")
    before = sorted(here.rglob("*"))
    assert command("--input", "empty") == 1
    assert command("--input", "in.png", network=("--load_model_path", "bad.pth")) == 1
    assert command("--input", "https://example.org/a.png") == 2
    assert "addresses are not fetched: download it first" in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_target_statistics_are_those_of_cityscapes(here):
    root = make_cityscapes(here / "Cityscapes")
    shutil.copytree(root / "leftImg8bit/val", root / "leftImg8bit/train")
    save(picture(5, SIZE), here / "in.png")
    words = ("--input", "in.png", "--cityscapes_root", root)
    assert command(*words, "--output", "own") == 0
    assert command(*words, "--output", "target", "--bn_statistics", "target") == 0
    assert command(*words, "--output", "own", "--bn_statistics", "target") == 2
    own, target = (array(results(here / name)["train_ids/in"]) for name in ("own", "target"))
    assert not np.array_equal(own, target)
    assert record(here / "target")["statistics_of"] and not record(here / "own")["statistics_of"]


def test_strange_names_and_a_glob_that_is_a_name(here):
    for number, name in enumerate(STRANGE):
        save(picture(number, SIZE), here / f"in/{name}/{name}.png")
    assert command("--input", "in", "--output", "out") == 0
    assert names(here / "out") == {f"{name}/{name}" for name in STRANGE}
    name = "in/100%d [x]/100%d [x].png"
    assert command("--input", name, "--output", "one") == 0
    assert names(here / "one") == {"100%d [x]"}


@pytest.mark.slow
def test_a_bad_file_of_a_name_that_is_no_text(here):
    save(picture(0, SIZE), here / "in/0.png")
    try:
        (here / "in" / os.fsdecode(b"\xff\n.png")).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes text only")
    done = run_main("--action", "predict", *FLAGS, *RUN_A, "--input", "in", cwd=here)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "\\udcff\\n.png cannot be read" in done.stdout
    assert names(here / "runs/predictions_a/in") == {"0"}


def test_a_glob_finds_what_it_matches_in_linked_folders_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a/1.png", "in/a/b/2.png", "in/a/3.jpg", "elsewhere/4.png"):
        save(picture(0, (8, 8)), tmp_path / name)
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/a/dir.png").mkdir()

    def found(path):
        return [picture.name for picture in find_pictures(Path(path))]

    assert found("in") == ["a/1", "a/3", "a/b/2", "link/4"]
    assert found("in/**/*.png") == ["a/1", "a/b/2", "link/4"]
    assert found("in/a/[12].*") == ["1"]
    assert found("in/a/1.png") == ["1"]
    save(picture(0, (8, 8)), tmp_path / "in/out/color/5.png")
    (tmp_path / "in/out/predictions.json").write_text("{}")
    assert found("in") == ["a/1", "a/3", "a/b/2", "link/4"]
    assert found("in/**/*.png") == ["a/1", "a/b/2", "link/4"]
    assert found("in/out/color/*.png") == ["5"]  # named, they are inputs


def test_links_that_lead_up_or_around_list_no_picture_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a/1.png", "in/b/2.png"):
        save(picture(0, (8, 8)), tmp_path / name)
    for link, target in (("up", ".."), ("self", "."), ("a/b", "../b"), ("b/a", "../a")):
        (tmp_path / "in" / link).symlink_to(target)

    def found(path):
        return [picture.name for picture in find_pictures(Path(path))]

    for path in ("in", "in/**/*.png", "in/**"):
        assert found(path) == ["a/1", "b/2"]
    assert "left out (folders listed under another name, and links that lead up): 4, such as" in (
        capsys.readouterr().err
    )
    assert found("in/a/**/*.png") == ["1", "b/2"]
    assert found("i?/**/[1-9].png") == ["in/a/1", "in/b/2"]


def test_pictures_that_cannot_be_read_are_named_and_hidden_files_and_videos_counted(here, capsys):
    save(picture(0, SIZE), here / "in/0.png")
    save(picture(0, SIZE), here / "in/gif.gif")
    (here / "in/phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    for name in ("._0.png", "._1.png", "clip.mp4", ".DS_Store", "notes.txt"):
        (here / "in" / name).write_bytes(b"Mac OS X")
    assert command("--input", "in") == 1
    out, err = capsys.readouterr()
    bad = {Path(one["path"]).name for one in record(here / "runs/predictions_a/in")["bad"]}
    assert bad == {"gif.gif", "phone.HEIC"} and "2 files could not be read" in err
    assert out.count("WEBP): save it as PNG or JPEG, or remove it") == 2
    assert f"left out (hidden files): 2, such as {here}/in/._0.png\n" in err
    assert f"left out (videos, which --input takes one by one): 1, such as {here}/in/cl" in err
    assert names(here / "runs/predictions_a/in") == {"0"}
    assert command("--input", "in/phone.HEIC") == 1
    assert "phone.HEIC cannot be read as a picture" in capsys.readouterr().out


def test_a_picture_that_is_too_large_is_named_and_a_large_one_is_no_warning(
    here, capsys, recwarn, monkeypatch
):
    save(picture(0, SIZE), here / "in/0.png")
    save(picture(0, SIZE), here / "in/1.png")
    claim_size(here / "in/1.png", 20_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE[0] * SIZE[1] - 1)  # PIL warns from there on
    assert command("--input", "in") == 1
    assert "(it has more than 0 million pixels): make it smaller, or cut" in capsys.readouterr().out
    assert names(here / "runs/predictions_a/in") == {"0"}
    assert not [one for one in recwarn if "Bomb" in one.category.__name__]


def test_a_phones_picture_is_predicted_as_it_is_shown(here):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright = picture(0, SIZE)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    turned.save(here / "turned.png", exif=exif)
    save(upright, here / "upright.png")
    for name in ("turned", "upright"):
        assert command("--input", f"{name}.png", "--output", name) == 0
    first, second = (results(here / name) for name in ("turned", "upright"))
    assert np.array_equal(array(first["train_ids/turned"]), array(second["train_ids/upright"]))


def test_an_error_in_a_thread_is_raised_and_the_order_is_kept():
    seen = []
    with Background(1) as background:
        for number in range(50):
            background.submit(seen.append, number)
            assert number + 1 - len(seen) <= 2
    assert seen == list(range(50))
    with pytest.raises(ZeroDivisionError), Background(2) as background:
        background.submit(lambda: 1 / 0)


def test_a_place_that_cannot_be_written_is_said(here, capsys):
    save(picture(0, SIZE), here / "in/0.png")
    (here / "out").write_text("a file")
    assert command("--input", "in", "--output", "out") == 1
    assert "another --output" in capsys.readouterr().err


def test_without_pyav_a_video_needs_it(here, monkeypatch, capsys):
    (here / "v.mp4").write_bytes(b"")
    monkeypatch.setattr(video, "av", None)
    assert command("--input", "v.mp4") == 1
    assert "videos need PyAV: pip install av" in capsys.readouterr().err
    save(picture(0, SIZE), here / "in.png")
    assert command("--input", "in.png") == 0


def make_video(path: Path, frames: int, size=SIZE, rotation: int = 0) -> list[np.ndarray]:
    """Slowly changing frames at 12.5 a second."""
    av = pytest.importorskip("av")
    small = [picture(number // 5, (4, 6)) for number in range(frames)]
    images = [np.kron(one, np.ones((size[0] // 4, size[1] // 6, 1), np.uint8)) for one in small]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25, 2))
        (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return images


def decoded(path: Path) -> list[np.ndarray]:
    with video.VideoReader(path) as reader:
        return list(reader)


def test_a_video_becomes_two_of_its_size_and_rate(here, capsys):
    make_video(here / "v.mp4", 12)
    assert command("--input", "v.mp4", "--output", "out") == 0
    assert "12 frames in" in capsys.readouterr().out
    save(decoded(here / "v.mp4")[7], here / "frame.png")
    assert command("--input", "frame.png", "--output", "frame") == 0
    for kind in ("color", "overlay"):
        path = here / f"out/v_pred_{kind}.mp4"
        with video.VideoReader(path) as reader:
            assert reader.rate == Fraction(25, 2) and reader.length == 12
            frame = list(reader)[7].astype(int)
        single = array(results(here / "frame")[f"{kind}/frame"])
        assert frame.shape == single.shape == (*SIZE, 3)
        assert np.abs(frame - single).mean() < 20
    assert command("--input", "v.mp4", "--output", "out") == 0
    assert "is finished" in capsys.readouterr().out
    assert sorted(path.suffix for path in (here / "out").glob("*v*")) == [".mp4", ".mp4"]


def test_a_video_that_is_cut_off_is_predicted_up_to_there(here, capsys):
    make_video(here / "v.mkv", 40)
    content = (here / "v.mkv").read_bytes()
    (here / "v.mkv").write_bytes(content[: len(content) * 2 // 3])
    command("--input", "v.mkv", "--output", "out")
    assert 5 < len(decoded(here / "out/v_pred_color.mp4")) < 40
    (here / "no.mp4").write_bytes(content[:100])
    assert command("--input", "no.mp4", "--output", "no") == 1
    assert "no.mp4 cannot be read as a video" in capsys.readouterr().err


def test_an_error_in_the_middle_of_a_video_is_said_each_time(here, monkeypatch, capsys):
    av = pytest.importorskip("av")
    make_video(here / "v.mp4", 8)
    iterate = video.VideoReader.__iter__

    def failing(self):
        class Container:
            def __init__(self, container):
                self.close = container.close
                self.decode = lambda stream: failing_after(container.decode(stream))

        def failing_after(frames):
            yield from (frame for frame, _ in zip(frames, range(5), strict=False))
            raise av.error.InvalidDataError(1, "damaged")

        self._container = Container(self._container)
        return iterate(self)

    monkeypatch.setattr(video.VideoReader, "__iter__", failing)
    assert command("--input", "v.mp4", "--output", "out") == 1
    assert "cannot be decoded after frame 5" in capsys.readouterr().out
    assert command("--input", "v.mp4", "--output", "out") == 1
    monkeypatch.setattr(video.VideoReader, "__iter__", iterate)
    assert len(decoded(here / "out/v_pred_color.mp4")) == 5


def test_a_stopped_video_leaves_nothing_half(here, monkeypatch):
    make_video(here / "v.mp4", 8)

    def stopped(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, "__call__", stopped)
    assert command("--input", "v.mp4", "--output", "out") == 130
    assert not list((here / "out").glob("*_pred_*")) and not list((here / "out").glob(".*.tmp"))


def test_a_phones_video_is_turned_as_players_turn_it(tmp_path):
    for rotation in (90, 180, -90):
        images = make_video(tmp_path / "v.mp4", 2, rotation=rotation)
        frame = decoded(tmp_path / "v.mp4")[0].astype(int)
        shown = np.rot90(images[0], rotation // 90)
        assert frame.shape == shown.shape and np.abs(frame - shown).mean() < 20


def test_an_old_pyav_that_does_not_tell_how_a_video_is_turned_is_enough(tmp_path):
    images = make_video(tmp_path / "v.mp4", 1)

    class Frame:
        def to_ndarray(self, **_):
            return images[0]

    class Container:
        def decode(self, _):
            return [Frame()]

    reader = video.VideoReader(tmp_path / "v.mp4")
    reader._container.close()
    reader._container = Container()
    assert np.array_equal(next(iter(reader)), images[0])


def test_a_video_of_odd_sides_keeps_them(tmp_path):
    pytest.importorskip("av")
    image = np.full((65, 97, 3), 90, np.uint8)
    with video_writer(tmp_path / "v.mp4", (65, 97), Fraction(30000, 1001)) as write:
        for _ in range(3):
            write(image)
    frames = decoded(tmp_path / "v.mp4")
    assert len(frames) == 3 and frames[0].shape == (65, 97, 3)
    assert np.abs(frames[0].astype(int) - 90).max() < 6


def test_results_do_not_go_among_the_inputs(here, capsys):
    save(picture(0), here / "photos" / "a.png")
    assert command("--input", "photos", "--output", "photos") == 2
    assert "name one of its own" in capsys.readouterr().err
