"""The real commands, end to end on a tiny Toy City."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import ImageDraw

import main
from datasets.labels import CLASS_NAMES
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from model.weights.loading import load_network
from tests.support.forked import MAIN, quick_python
from tests.support.helpers import TINY, make_cityscapes, make_gta5, run_main
from tests.support.runs import ROOTS, make_toy
from trainings.engine import loop
from utils.disk.run_folder import BEST, LATEST

SECOND_ROW = "last_target_statistics"
AT_NO_SIZE = (
    *("--save_model_path", "runs", "--gta5_root", "toy/GTA5", "--cityscapes_root"),
    *("toy/Cityscapes", "--base_width", "8", "--num_workers", "0", "--precision", "fp32"),
)


AUGMENTED = ("--num_epochs", "2", "--aug_method", "C-S-HF")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A working directory with a Toy City, and one trained network."""
    folder = tmp_path_factory.mktemp("work")
    make_toy(folder, train=4, val=2, size=(72, 104))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert in_process(*AUGMENTED) == 0
    return folder


@pytest.fixture
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


def in_process(*words, action="train_simple_gta5"):
    common = ("--action", action, "--save_model_path", "runs", *ROOTS, *TINY)
    return main.main([*common, *map(str, words)])


def scores(run):
    return json.loads((run / "scores.json").read_text())


def test_a_run_leaves_its_files(here):
    run = here / "runs" / "simple_gta5_sgd_aug"
    record = scores(run)
    assert list(record["last"]["class_IoU"]) == list(CLASS_NAMES)
    assert record["last"]["epoch"] == 2
    assert record["best"]["mIoU"] >= record["last"]["mIoU"]
    assert record["validation"]["label_sizes"] == [[72, 104]]
    assert record["validation"]["image_size"] == [90, 120]
    assert record["mean_epoch_seconds"] > 0
    assert record["settings"]["aug_method"] == "C-S-HF"
    assert {"torch", "numpy"} <= set(record["versions"])
    assert record["threads"] == 1, "conftest.py asks for one"
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val/mIoU"]) == record["last"]["mIoU"]
    assert list((run / "tensorboard").iterdir())
    assert (run / "validation.png").read_bytes().startswith(b"\x89PNG")
    assert not load_network(BiSeNet(base=8), run / BEST).missing


def test_a_finished_run_prints_its_scores_and_another_is_refused(here, capsys):
    assert in_process(*AUGMENTED) == 0
    printed = capsys.readouterr().out
    assert "is finished" in printed and "mIoU for validation: 0." in printed
    assert in_process(*AUGMENTED, "--learning_rate", "0.5") == 2
    error = capsys.readouterr().err
    assert "--learning_rate was 0.01, is 0.5" in error and "Traceback" not in error


def test_another_action_or_other_data_are_refused_on_the_same_run(here, capsys):
    keyword = ("--save_keyword", "simple_gta5_sgd_aug", "--num_epochs", "2")
    augmented = (*keyword, "--aug_method", "C-S-HF")
    assert in_process(*augmented, action="train_simple_cityscapes") == 2
    assert "--action was 'train_simple_gta5'" in capsys.readouterr().err
    assert in_process(*augmented, "--gta5_root", str(make_gta5(here / "other"))) == 2
    assert "the images or their pseudo-labels" in capsys.readouterr().err


def test_a_run_s_settings_file_runs_it_again(here, capsys):
    run, again = here / "runs" / "simple_gta5_sgd_aug", here / "runs" / "again"
    words = ("--config_file", str(run / "settings.json"))
    assert main.main(words) == 0
    said = capsys.readouterr().out
    assert "is finished" in said and "note:" not in said
    assert main.main([*words, "--fda_beta", "0.2", "--ent_eta", "3"]) == 0
    said = capsys.readouterr().out
    assert "note: train_simple_gta5 makes no use of --ent_eta, --fda_beta" in said
    assert main.main([*words, "--save_keyword", "again"]) == 0
    assert scores(again)["last"] == scores(run)["last"]


def test_a_run_of_stretched_pictures_does_not_go_on_with_others(here, capsys):
    """Releases before the rule about proportions stretched every picture, and recorded nothing."""
    words = ("--num_epochs", "1", "--image_size", "64", "64", "--save_keyword", "square")
    assert in_process(*words) == 0
    assert "pictures keep their proportions; training crops 64x64 of them" in (
        capsys.readouterr().out
    )
    run = here / "runs" / "square"
    assert scores(run)["validation"]["proportions"] == "kept"
    (run / "scores.json").unlink()
    assert in_process(*words) == 0
    (run / "scores.json").unlink()
    recorded = json.loads((run / "settings.json").read_text())
    assert recorded.pop("proportions") == "kept"
    (run / "settings.json").write_text(json.dumps(recorded))
    assert in_process(*words) == 2
    assert "pictures of other proportions, which older releases stretched, are others" in (
        capsys.readouterr().err
    )
    assert in_process(*words, "--validation_only") == 0
    assert "scored at 90x80, in proportion and scaled to cover it," in capsys.readouterr().out


def test_overwrite_starts_afresh_and_leaves_strange_files(here, capsys):
    run = here / "runs" / "afresh"
    assert in_process("--num_epochs", "1", "--save_keyword", "afresh") == 0
    (run / "notes.txt").write_text("mine")
    first = scores(run)["finished"]
    words = ("--num_epochs", "1", "--save_keyword", "afresh", "--learning_rate", "0.5")
    assert in_process(*words) == 2
    assert in_process(*words, "--overwrite") == 0
    assert scores(run)["settings"]["learning_rate"] == 0.5
    assert scores(run)["finished"] >= first and (run / "notes.txt").exists()


@pytest.mark.parametrize(
    ("action", "words", "code"),
    [
        ("train_simple_gta5", ("--warmup_steps", "9"), 2),
        ("train_simple_gta5", ("--score_target", "--cityscapes_root", "nowhere"), 1),
        ("train_dacs", ("--ema_decay", "0.9"), 2),
    ],
)
def test_what_cannot_be_trained_overwrites_nothing(here, action, words, code):
    keyword = ("--save_keyword", "kept", "--num_epochs", "1")
    assert in_process(*keyword, "--overwrite") == 0
    before = {path: path.read_bytes() for path in (here / "runs" / "kept").glob("*.*")}
    assert in_process(*keyword, *words, "--overwrite", action=action) == code
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_loss_that_is_not_finite_stops_the_run(here, capsys):
    words = ("--num_epochs", "2", "--learning_rate", "1e30", "--warmup_steps", "0")
    assert in_process(*words, "--save_keyword", "nan", "--log_every", "1") == 1
    error = capsys.readouterr().err
    assert re.search(r"error: loss (nan|inf), .* at step \d, on the images 0000\d, 0000\d;", error)
    remedy = "nothing has been saved yet: start again with a lower --learning_rate"
    assert error.endswith(f"; {remedy}\n") and not (here / "runs" / "nan" / LATEST).exists()


def test_averaged_weights_are_scored_and_saved_beside_the_trained_ones(here, capsys):
    words = ("--num_epochs", "2", "--save_keyword", "averaged", "--ema_decay", "0.5")
    assert in_process(*words, "--accumulate_steps", "2") == 0
    assert "1 steps of 4 images (2 passes x 2)" in capsys.readouterr().out
    run = here / "runs" / "averaged"
    record = scores(run)
    assert record["last_average"]["epoch"] == 2
    with (run / "history.csv").open() as file:
        (*_, row) = csv.DictReader(file)
    assert float(row["val/ema_mIoU"]) == record["last_average"]["mIoU"]
    assert in_process(*words, "--validation_only", "True", "--select", "ema") == 0
    scored = json.loads((run / "validation_gta5_averaged_ema.json").read_text())
    assert scored["mIoU"] == record["last_average"]["mIoU"]


def test_a_collapsed_discriminator_is_warned_about_once(here, monkeypatch, capsys):
    monkeypatch.setattr(loop, "train_step", collapsed(loop.train_step))
    words = ("--action", "train_ada", "--num_epochs", "3", "--save_model_path", "runs", *ROOTS)
    light = ("--discriminator", "light", "--save_keyword", "collapsed")
    assert main.main([*words, *TINY, *light]) == 0
    assert capsys.readouterr().out.count("warning: the discriminator has collapsed") == 1


def collapsed(train_step):
    """Training whose discriminator is always right."""
    perfect = {"disc_accuracy_source": torch.tensor(1.0), "disc_accuracy_target": torch.tensor(1.0)}
    return lambda *arguments: {**train_step(*arguments), **perfect}


def test_a_target_of_one_image_trains_without_the_row_of_its_statistics(tmp_path, monkeypatch):
    make_gta5(tmp_path / "toy/GTA5")
    make_cityscapes(tmp_path / "toy/Cityscapes", train=1)
    monkeypatch.chdir(tmp_path)
    words = ("--action", "train_fda", "--num_epochs", "1", "--save_model_path", "runs", *ROOTS)
    assert main.main([*words, *TINY]) == 0
    assert SECOND_ROW not in scores(tmp_path / "runs" / "fda01_sgd_noaug")


def test_out_of_memory_names_the_flags_that_lower_it(here, monkeypatch, capsys):
    def run_out(*arguments):
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(loop, "train_step", run_out)
    assert in_process("--num_epochs", "1", "--save_keyword", "large") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("main.py: error: out of memory: lower --batch_size")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/file"),
            1,
            "main.py: error: /data/file: No space left on device: make room, and give the same "
            "command again",
        ),
        (PermissionError(errno.EACCES, "Denied", "/data"), 1, "main.py: error: /data: Denied"),
    ],
)
def test_nothing_is_said_to_be_kept_where_nothing_was_saved(
    monkeypatch, capsys, error, code, sentence
):
    def fail(settings):
        raise error

    action = main.ACTIONS["check_data"]
    monkeypatch.setitem(main.ACTIONS, "check_data", action._replace(run=fail))
    assert main.main(["--action", "check_data"]) == code
    assert capsys.readouterr().err == f"{sentence}\n"


def in_a_shell(folder, redirection, *words, before="", python=None):
    """Run a command with its streams as a shell redirects them."""
    command = f"{python or quick_python()} {shlex.join([str(MAIN), *map(str, words)])}"
    return subprocess.run(
        ["bash", "-c", f"{before} {command} {redirection}; exit ${{PIPESTATUS[0]}}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def test_a_command_whose_reader_leaves_exits_quietly(tmp_path):
    done = in_a_shell(tmp_path, "| true", "--help", "all", python=sys.executable)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_training_whose_reader_leaves_goes_on(here):
    words = ("--action", "train_simple_gta5", "--save_model_path", "runs", *ROOTS, *TINY)
    done = in_a_shell(here, "| head -1", *words, "--num_epochs", "1", "--save_keyword", "unread")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert "standard output: Broken pipe; the command goes on without it" in done.stderr
    assert "Traceback" not in done.stderr and scores(here / "runs" / "unread")["last"]


def test_a_log_of_both_streams_is_in_order(tmp_path):
    words = ("--action", "check_data", "--seed", "1", "--seed", "2", "--gta5_root", "none")
    done = in_a_shell(tmp_path, "2>&1 | cat", *words, "--cityscapes_root", "none")
    lines = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert lines.index("note") < lines.index("check") < lines.index("main.py")
    assert lines[-1] == "main.py" and done.returncode == 1


@pytest.mark.parametrize("topic", ["", "all"])
def test_help_for_a_full_disk_ends_in_a_sentence(tmp_path, topic):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    done = in_a_shell(tmp_path, ">/dev/full", "--help", topic)
    sentence = "main.py: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_table_for_a_full_disk_ends_in_a_sentence(here):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    words = ("--action", "check_data", "--save_model_path", "runs", *ROOTS, "--num_workers", "0")
    done = in_a_shell(here, ">/dev/full", *words)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "main.py: error: standard output: No space left on device" in done.stderr


TOY = ("--action", "make_toy_data", "--toy_train", "2", "--toy_val", "1", "--toy_size", "64", "96")


def test_standard_output_and_error_may_be_closed(tmp_path):
    done = in_a_shell(tmp_path, ">&- 2>&-", *TOY, python=sys.executable)
    assert done.returncode == 0 and (tmp_path / "toy_city" / "GTA5").exists()


def test_a_disk_that_takes_no_more_is_named(tmp_path):
    done = in_a_shell(tmp_path, "", *TOY, before="ulimit -f 2;", python=sys.executable)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "main.py: error: toy_city/GTA5/images/00001.png: File too large" in done.stderr


def test_debug_shows_the_traceback(here, capsys):
    assert in_process("--batch_size", "1", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_one_epoch_saves_its_weights(here):
    words = ("--num_epochs", "1", "--optimizer", "adam")
    assert in_process(*words, action="train_simple_cityscapes") == 0
    run = here / "runs" / "simple_cityscapes_adam_noaug"
    for name in (LATEST, BEST):
        assert not load_network(BiSeNet(base=8), run / name).missing
    assert scores(run)["validation"]["domain"] == "Cityscapes"


def test_the_transfer_finds_the_run_whatever_its_augmentation(here):
    folder = here / "alone" / "simple_gta5_sgd_aug"
    shutil.copytree(here / "runs" / "simple_gta5_sgd_aug", folder)
    common = ("--action", "val_gta5_transfer", "--save_model_path", "runs", *ROOTS, *TINY)
    done = run_main(*common, "--save_model_path", "alone", cwd=here)
    assert done.returncode == 0, done.stderr
    given_twice, *lines = done.stdout.splitlines()
    assert given_twice.startswith("note: --save_model_path is given more than once")
    assert "simple_gta5_sgd_aug/best.pth: loaded 245, missing 0, unexpected 0" in lines[1]
    assert lines[2] == "scored at 64x96 with the batch-norm statistics of the training"
    assert [line.split(":")[0] for line in lines[3:6]] == [
        "precision per pixel for test",
        "mIoU for validation",
        "mIoU per class",
    ]
    record = json.loads((folder / "validation_cityscapes.json").read_text())
    assert record["validation"]["images"] == 2
    assert (folder / "validation_cityscapes.png").exists()


def test_an_explicit_augmentation_that_no_run_has_is_warned_of(here, capsys):
    source = here / "runs" / "simple_gta5_sgd_aug"
    shutil.copytree(source, here / "other" / "simple_gta5_sgd_aug", dirs_exist_ok=True)
    common = ("--action", "val_gta5_transfer", *AT_NO_SIZE, "--save_model_path", "other")
    for words, warned in (((), False), (("--aug_method", "nonorm"), True)):
        assert main.main([*common, *words]) == 0
        _, line, *_ = capsys.readouterr().out.splitlines()  # after a note on --save_model_path
        start = "warning: no run of train_simple_gta5 has augmentation none; instead, other/simple"
        assert line.startswith(start) == warned and "trained with augmentation C-S-HF" in line


def test_the_transfer_of_a_run_of_another_action_does_not_ask_to_train_it(here, capsys):
    run = here / "runs" / "of_ada"
    run.mkdir(exist_ok=True)
    (run / "settings.json").write_text(json.dumps(Settings(action="train_ada").to_json()))
    assert in_process("--save_keyword", "of_ada", action="val_gta5_transfer") == 2
    error = capsys.readouterr().err
    assert "runs/of_ada is a run of train_ada, not of train_simple_gta5" in error
    assert "run that command" not in error
    (run / "settings.json").write_text("{}")
    assert in_process("--save_keyword", "of_ada", action="val_gta5_transfer") == 1
    error = capsys.readouterr().err
    assert "of_ada/settings.json is not as the training" in error and "that command" not in error
    shutil.rmtree(run)


def test_validation_only_scores_what_the_run_scored(here):
    assert in_process(*AUGMENTED, "--validation_only", "True") == 0
    run = here / "runs" / "simple_gta5_sgd_aug"
    record = json.loads((run / "validation_gta5.json").read_text())
    assert record["mIoU"] == scores(run)["best"]["mIoU"]
    named = ("--validation_only", "True", "--load_model_path", run / LATEST)
    assert in_process(*AUGMENTED, *named) == 0
    record = json.loads((run / "validation_gta5_simple_gta5_sgd_aug_latest.json").read_text())
    assert record["mIoU"] == scores(run)["last"]["mIoU"]


def test_a_run_is_scored_at_its_own_size_unless_the_command_gives_another(here, capsys):
    run = here / "runs" / "simple_gta5_sgd_aug"
    common = (*AT_NO_SIZE, "--aug_method", "C-S-HF")

    def size_of(name, *words):
        assert main.main([*words, *common]) == 0
        height, width = json.loads((run / name).read_text())["validation"]["image_size"]
        out = capsys.readouterr().out
        assert f"scored at {height}x{width}" in out
        assert ("| accuracy % | mIoU % |" in out) == ("val_gta5_transfer" in words)
        return height, width

    transfer = ("--action", "val_gta5_transfer")
    plain = run / "validation_cityscapes.json"
    assert size_of(plain.name, *transfer) == (64, 96)
    assert size_of(plain.name, *transfer, "--image_size", "64", "96") == (64, 96)
    before = plain.read_text()
    larger = ("--image_size", "96", "128")
    assert size_of("validation_cityscapes_96x128.json", *transfer, *larger) == (96, 128)
    assert (run / "validation_cityscapes_96x128_target_statistics.json").exists()
    assert plain.read_text() == before

    own = ("--action", "train_simple_gta5", "--validation_only", "True")
    assert size_of("validation_gta5.json", *own) == (90, 120)
    before = (run / "validation_gta5.json").read_text()
    assert size_of("validation_gta5_135x160.json", *own, *larger) == (135, 160)
    resized = ("--source_resize", "600", "1100")
    assert size_of("validation_gta5_600x1100.json", *own, *resized) == (600, 1100)
    assert (run / "validation_gta5.json").read_text() == before


def test_training_from_a_checkpoint_does_not_read_the_pretrained_file(here, capsys):
    best = here / "runs" / "simple_gta5_sgd_aug" / BEST
    weights = ("--load_model_path", best, "--pretrain_path", "not/there.tar")
    assert in_process(*AUGMENTED, "--save_keyword", "tuned", *weights) == 0
    assert "loaded 245, missing 0, unexpected 0" in capsys.readouterr().out


BAD = {
    "missing folder": (["--gta5_root", "nowhere"], 1, "--gta5_root nowhere: there is nothing at"),
    "one image a batch": (["--batch_size", "1"], 2, "argument --batch_size: batch norm"),
    "fewer than a batch": (["--batch_size", "50"], 1, "4 images, fewer than a batch of 50"),
    "missing weights": (["--pretrain_path", "none.tar"], 1, "--pretrain_path none.tar: there is"),
    "not a checkpoint": (
        ["--load_model_path", "toy/toy_city.json"],
        1,
        "is not a readable PyTorch checkpoint",
    ),
    "other width": (
        ["--load_model_path", "runs/simple_gta5_sgd_aug/best.pth", "--base_width", "16"],
        1,
        "a checkpoint of another network",
    ),
    "no GPU": (["--device", "cuda"], 2, "argument --device"),
    "fp16 on a CPU": (["--precision", "fp16", "--device", "cpu"], 2, "argument --precision"),
    "another run": (
        ["--validation_only", "True", "--save_keyword", "typo"],
        1,
        "no best.pth in runs/typo: train it with --action train_simple_gta5",
    ),
    "endless warm-up": (
        ["--num_epochs", "1", "--warmup_steps", "2"],
        2,
        "argument --warmup_steps: 2 is not below",
    ),
    "no run": (["--validation_only", "True", "--optimizer", "rmsprop"], 1, "--action train_simple"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(here, capsys, case):
    words, code, sentence = BAD[case]
    assert in_process("--save_keyword", "bad", *words) == code
    error = capsys.readouterr().err.strip()
    assert error.startswith("main.py: error: ") and sentence in error
    assert len(error.splitlines()) == 1


def test_broken_data_is_one_sentence_in_training_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_gta5(tmp_path / "toy/GTA5")
    make_cityscapes(tmp_path / "toy/Cityscapes")
    (tmp_path / "toy/GTA5/labels/00001.png").write_bytes(b"")
    assert in_process("--num_epochs", "1", "--num_workers", "1") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("main.py: error: ") and "00001.png cannot be read" in error


def test_an_unknown_action_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        main.main(["--action", "train_everything"])
    assert "train_simple_gta5" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["train_ada", "train_fda"])
def test_every_method_trains_in_bfloat16(here, action, capsys):
    words = ("--num_epochs", "1", "--precision", "bf16", "--save_keyword", f"bf16_{action}")
    assert in_process(*words, action=action) == 0
    assert "on cpu in bfloat16" in capsys.readouterr().out
    assert scores(here / "runs" / f"bf16_{action}")["precision"] == "bfloat16"


def test_pictures_and_the_check_of_data_say_that_they_are_of_toy_city(here, monkeypatch, capsys):
    titles = []
    write = ImageDraw.ImageDraw.text

    def text(draw, place, words, *style):
        titles.append(words)
        write(draw, place, words, *style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    assert in_process("--num_epochs", "1", "--save_keyword", "titled") == 0
    assert "titled, epoch 1: Toy City, synthetic look, 1 validation image" in titles
    words = ("--save_model_path", "runs", "--num_workers", "0", "--image_size", "64", "96")
    main.main(["--action", "check_data", *ROOTS, *words, "--batch_size", "2"])
    assert "GTA5: Toy City, synthetic look\n" in capsys.readouterr().out
    record = json.loads((here / "runs" / "check_data" / "check_data.json").read_text())
    assert record["names"]["Cityscapes"] == "Toy City, real look"
