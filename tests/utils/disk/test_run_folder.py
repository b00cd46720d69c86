import errno
import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from main import FlatSettings as Settings
from trainings.scoring.runs import find_run
from trainings.scoring.trained import as_trained
from utils import event_files
from utils.disk.files import REPOSITORY
from utils.disk.lock import locked, owner
from utils.disk.run_folder import BEST, HISTORY, LATEST, PREVIOUS, SETTINGS, RunFolder
from utils.errors import UsageError, UserError

STEM, ACTION = "fda{fda_beta}", "train_fda"
INPUTS = {"data": "d", "weights": "w"}


def make_run(root, name, *, optimizer="sgd", aug_method="", beta=0.05, action=ACTION, file=BEST):
    settings = Settings(action=action, optimizer=optimizer, aug_method=aug_method, fda_beta=beta)
    run = RunFolder(root / name)
    run.write_json(SETTINGS, settings.to_json())
    run.write_text(file, "")
    return root / name


def search(root, *, beta=0.05, wanted=None, **changes):
    settings = Settings(save_model_path=root, fda_beta=beta, **changes)
    return find_run(settings, STEM, {"action": ACTION, **(wanted or {"fda_beta": beta})})


def test_the_only_match_by_beta_and_optimizer(tmp_path):
    wanted = make_run(tmp_path, "mine", aug_method="C-S-HF")
    make_run(tmp_path, "fda09_sgd_noaug", beta=0.09)
    make_run(tmp_path, "fda05_adam_noaug", optimizer="adam")
    make_run(tmp_path, "ssl_fda05_sgd_noaug", action="train_ssl_fda")
    make_run(tmp_path, "unscored", file=LATEST)
    assert search(tmp_path) == wanted


def test_a_run_of_another_action_is_called_so(tmp_path):
    other = make_run(tmp_path, "ssl05", action="train_ssl_fda")
    with pytest.raises(UsageError) as caught:
        search(tmp_path, save_keyword="ssl05")
    assert str(caught.value) == (
        f"argument --save_keyword: {other} is a run of train_ssl_fda, not of {ACTION}: name one of "
        f"those, or this one with --load_model_path {other / BEST}"
    )


def test_a_run_on_a_folder_is_found_by_any_path_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder(make_run(tmp_path / "runs", "mine"))
    run.write_json(SETTINGS, Settings(action=ACTION, target_root=Path("photos")).to_json())
    for path in ("photos", str(tmp_path / "photos"), "runs/../photos"):
        for keyword in ("", "mine"):
            settings = Settings(save_model_path=tmp_path / "runs", save_keyword=keyword)
            assert find_run(settings, STEM, {"action": ACTION, "target_root": path}) == run.path
    with pytest.raises(UserError, match="no best"):
        search(tmp_path / "runs", wanted={"target_root": "other"})


def test_equal_augmentation_is_preferred(tmp_path):
    make_run(tmp_path, "fda05_sgd_noaug")
    wanted = make_run(tmp_path, "jittered", aug_method="C-S")
    make_run(tmp_path, "flipped", aug_method="HF")
    assert search(tmp_path, aug_method="C-S") == wanted


def test_the_run_with_the_usual_name_is_taken_of_several_with_equal_augmentation(tmp_path):
    make_run(tmp_path, "another", aug_method="C-S")
    wanted = make_run(tmp_path, "fda05_sgd_aug", aug_method="C-S")
    assert search(tmp_path, aug_method="C-S") == wanted


def test_equal_augmentation_beats_the_usual_name(tmp_path):
    make_run(tmp_path, "fda05_sgd_aug", aug_method="C-S-HF")
    wanted = make_run(tmp_path, "perspective", aug_method="RP")
    assert search(tmp_path, aug_method="RP") == wanted


def test_nonorm_is_no_augmentation(tmp_path):
    wanted = make_run(tmp_path, "plain", aug_method="nonorm")  # as older runs have it
    make_run(tmp_path, "jittered", aug_method="C-S")
    assert search(tmp_path) == wanted


def test_another_network_is_no_candidate(tmp_path):
    make_run(tmp_path, "wide")
    with pytest.raises(UserError, match="no best"):
        search(tmp_path, base_width=32)
    with pytest.raises(UserError, match="no best"):
        search(tmp_path, backbone="stdc2")


def test_several_candidates_are_listed(tmp_path):
    for name, codes in (("one", "C"), ("two", "S")):
        make_run(tmp_path, name, aug_method=codes)
    with pytest.raises(UserError, match=r"2 runs .*--fda_beta 0\.05 --optimizer sgd \(one, two\)"):
        search(tmp_path)


def test_a_keyword_names_exactly_one_run(tmp_path):
    make_run(tmp_path, "one")
    wanted = make_run(tmp_path, "two")
    assert search(tmp_path, save_keyword="two") == wanted
    with pytest.raises(UserError, match="--save_keyword typo"):
        search(tmp_path, save_keyword="typo")


def test_a_keyword_finds_its_run_whatever_the_optimizer_and_the_network(tmp_path):
    wanted = make_run(tmp_path, "mine", optimizer="adam")
    assert search(tmp_path, save_keyword="mine", base_width=8) == wanted
    with pytest.raises(UserError, match=r"no best\.pth in .* --fda_beta 0\.09 --save_keyword mine"):
        search(tmp_path, beta=0.09, save_keyword="mine")


def test_a_missing_run_names_the_place_and_the_command(tmp_path):
    sentence = r"no best\.pth in .* made by --action train_fda --fda_beta 0\.01 --optimizer sgd"
    with pytest.raises(UserError, match=sentence):
        search(tmp_path, beta=0.01)


def test_the_advised_command_works_as_it_is_typed(tmp_path):
    given = {"gta5_root": Path("my data/GTA5"), "aug_method": "C-S-HF", "base_width": 16}
    with pytest.raises(UserError) as error:
        search(tmp_path, **given, given=frozenset(given))
    advised = "--gta5_root 'my data/GTA5' --aug_method C-S-HF --base_width 16"
    assert advised in str(error.value)


def test_the_last_weights_can_be_selected(tmp_path):
    make_run(tmp_path, "best_only")
    wanted = make_run(tmp_path, "both", file=LATEST)
    assert search(tmp_path, select="last") == wanted


def test_a_flag_younger_than_the_run_does_not_refuse_it(tmp_path):
    """Runs from before a flag existed go on, unless it is given another value."""
    now = Settings()
    old = {name: value for name, value in now.to_json().items() if name != "ent_eta"}
    run = RunFolder(tmp_path)
    run.write_json(SETTINGS, {**old, "data": "d"})
    run.write_text(LATEST, "")
    assert not run.finished(now, INPUTS, adaptation=["ent_eta"])
    with pytest.raises(UserError, match=r"--ent_eta was 2\.0, is 3\.0"):
        run.finished(Settings(ent_eta=3.0), INPUTS, adaptation=["ent_eta"])


def test_a_setting_that_the_method_does_not_use_does_not_refuse_it(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(Settings(), INPUTS)
    run.write_text(LATEST, "")
    other = Settings(fda_beta=0.09, discriminator="light", aug_probability=0.9)
    assert not run.finished(other, INPUTS, adaptation=["adv_weight"])
    with pytest.raises(UserError, match="--adv_weight was"):
        run.finished(Settings(adv_weight=1.0), INPUTS, adaptation=["adv_weight"])
    with pytest.raises(UserError, match="--aug_probability was"):
        run.finished(Settings(aug_method="C", aug_probability=0.9), INPUTS)


def test_flags_that_change_no_result_do_not_refuse_a_run(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(Settings(), INPUTS)
    run.write_text(LATEST, "")
    other = Settings(num_workers=7, log_every=3, debug=True, checkpoint_minutes=1.0, device="cpu")
    assert not run.finished(other, INPUTS)


def test_other_inputs_refuse_it_and_lost_ones_do_not(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(Settings(), INPUTS)
    run.write_text(LATEST, "")
    assert not run.finished(Settings(), {**INPUTS, "weights": None})
    run.begin(Settings(), {**INPUTS, "weights": None})
    assert run.read_json(SETTINGS)["weights"] == "w"
    with pytest.raises(UserError, match="the weights it starts from are others"):
        run.finished(Settings(), {**INPUTS, "weights": "x"})
    with pytest.raises(UserError, match="the images or their pseudo-labels are others"):
        run.finished(Settings(), {**INPUTS, "data": "x"})


def test_files_of_an_earlier_network_are_removed_with_it(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(Settings(), INPUTS)
    mine = ("notes.txt", "mine.png")
    drawn = ("validation.png", "validation_cityscapes.json", "latest.pth", "scores.json")
    for name in (*mine, *drawn):
        run.write_text(name, "")
    RunFolder(tmp_path / "pictures").write_text("worst.png", "")
    run.begin(Settings(overwrite=True), INPUTS)
    assert {path.name for path in tmp_path.iterdir()} == {*mine, "settings.json", "pictures"}
    assert not list((tmp_path / "pictures").iterdir())


def test_what_keeps_a_run_from_being_found_is_said(tmp_path):
    make_run(tmp_path, "mine", optimizer="adam")
    with pytest.raises(UserError, match=r"\(mine is of --optimizer adam\)"):
        search(tmp_path)
    with pytest.raises(UserError, match=r"mine is of --optimizer adam --base_width 64"):
        search(tmp_path, base_width=8)


def test_a_run_whose_folder_has_gone_is_not_made_anew(tmp_path):
    """An unmounted drive leaves an empty folder behind, on the local disk."""
    run = RunFolder(tmp_path / "run")
    run.begin(Settings(), INPUTS)
    run.save_latest({"step": 1})
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match="has gone"):
        run.save_latest({"step": 2})
    assert not run.path.exists()


def test_the_checkpoint_before_the_latest_is_kept(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(Settings(), INPUTS)
    for step in (1, 2, 3):
        run.save_latest({"step": step})
    assert [run.load_checkpoint(name)["step"] for name in (LATEST, PREVIOUS)] == [3, 2]


def test_a_disk_that_is_full_harms_no_checkpoint(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.begin(Settings(), INPUTS)
    run.save_latest({"step": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            run.save_latest({"step": 2})
    assert run.load_latest()["step"] == 1
    assert {path.name for path in run.path.iterdir()} == {SETTINGS, LATEST}


@pytest.mark.slow
def test_a_second_process_is_kept_out_and_the_lock_ends_with_its_owner(tmp_path):
    run = RunFolder(tmp_path / "run")
    holding = (
        "import sys, time; from pathlib import Path; from utils.disk.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(run.path)!r})).alone():\n print('mine', flush=True)\n"
        " time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", holding], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert owner.stdout.readline() == b"mine\n"
    with pytest.raises(UserError, match=f"process {owner.pid} on"), run.alone():
        pass
    owner.kill()
    owner.communicate()
    with run.alone():
        pass


def test_a_drive_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", without)
    with RunFolder(tmp_path / "run").alone():
        pass


def test_a_folder_that_cannot_be_written_is_said_before_training(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(UserError, match="Read-only file system"), run.alone():
        pass


@pytest.mark.parametrize("content", ["", "[]", "null", "3", "[" * 100_000])
def test_settings_that_are_none_are_a_sentence(tmp_path, content):
    run = RunFolder(tmp_path)
    run.begin(Settings(), INPUTS)
    run.write_text(LATEST, "")
    run.write_text(SETTINGS, content)
    with pytest.raises(UserError, match=r"cannot be read.*bring it back"):
        run.finished(Settings(), INPUTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", "big"),
        ("image_size", [64]),
        ("image_size", [64, "96"]),
        ("image_size", [1, 1]),
        ("image_size", None),
        ("base_width", 7),
        ("base_width", "8"),
        ("base_width", True),
        ("backbone", "resnet"),
        ("backbone", ["stdc1"]),
        ("aug_method", "X"),
        ("aug_method", {"C": 1}),
        ("learning_rate", "fast"),
        ("eval_scales", 0.5),
        ("seed", 0.5),
        ("action", None),
        ("backbone", ...),
        ("image_size", ...),
    ],
)
def test_settings_that_were_edited_are_a_sentence(tmp_path, name, value):
    """`...` stands for a name that was taken out."""
    values = {**Settings(action=ACTION, fda_beta=0.05).to_json(), name: value}
    folder = make_run(tmp_path, "fda05_sgd_noaug", file=LATEST)
    (folder / SETTINGS).write_text(json.dumps({n: v for n, v in values.items() if v is not ...}))
    sentence = rf"settings\.json is not as the training wrote it \({name} is .*\): bring it back"
    for read in (
        lambda: RunFolder(folder).finished(Settings(), INPUTS),
        lambda: search(tmp_path, select="last"),
        lambda: as_trained(Settings(), folder / BEST),
    ):
        with pytest.raises(UserError, match=sentence):
            read()


def test_other_settings_do_not_stop_a_search(tmp_path, capfd):
    wanted = make_run(tmp_path, "mine")
    other = make_run(tmp_path, "notes")
    (other / SETTINGS).write_text('{"note": 1}')
    damaged = make_run(tmp_path, "damaged")
    (damaged / SETTINGS).write_text("{")
    assert search(tmp_path) == wanted
    said = capfd.readouterr()
    for folder in (other, damaged):
        assert f"passed over: {folder / SETTINGS}" in said.out + said.err


def test_settings_of_every_flag_are_read_back(tmp_path):
    changed = Settings(
        action=ACTION,
        image_size=(64, 96),
        source_resize=(80, 120),
        eval_scales=(0.5, 1.0),
        seeds=(1,),
    )
    for settings in (Settings(), changed):
        RunFolder(tmp_path).write_json(SETTINGS, {**settings.to_json(), **INPUTS})
        assert RunFolder(tmp_path).read_settings(settings) == {**settings.to_json(), **INPUTS}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1,2\n",
        b"epoch,step,loss,train_seconds\n1,4,0.5\n",
        b"epoch,step,loss,train_seconds\n1,4,0.5,2,9\n",
        b"epoch,step,loss,train_seconds\n1,4,,2\n",
        b"epoch,step,loss,train_seconds\n1,4,low,2\n",
        b"epoch;step;loss;train_seconds\n1;4;0,5;2\n",
        b"\xff\xfe\x00",
        b'epoch,loss,train_seconds\n"' + b"1" * 200_000,
    ],
)
def test_a_history_that_was_edited_is_a_sentence(tmp_path, content):
    (tmp_path / HISTORY).write_bytes(content)
    with pytest.raises(
        UserError, match=r"history\.csv is not as the training wrote it .*remove it"
    ):
        RunFolder(tmp_path).read_history()


def test_a_history_is_read_back(tmp_path):
    """The loss of an epoch in which float16 overflowed was written as inf."""
    row = {"epoch": 1, "loss": 0.5, "train_seconds": 2.0}
    overflowed = {**row, "epoch": 2, "loss": float("inf"), "val/mIoU": float("nan")}
    RunFolder(tmp_path).write_history([row, overflowed])
    first, second = RunFolder(tmp_path).read_history()
    assert (first["epoch"], first["val/mIoU"], second["val/mIoU"]) == ("1", "", "nan")
    assert second["loss"] == "inf"


@pytest.mark.parametrize("name", [SETTINGS, HISTORY, LATEST])
def test_a_pipe_in_a_run_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    run = RunFolder(tmp_path)
    reads = {HISTORY: run.read_history, LATEST: run.load_latest}
    read = {SETTINGS: lambda: run.read_settings(Settings()), **reads}[name]
    with pytest.raises(UserError, match=f"{name} is a pipe, a socket or a device"):
        read()


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused_in_a_line(tmp_path):
    run = RunFolder(tmp_path)
    torch.save({"a": Harmful(tmp_path / "ran")}, tmp_path / LATEST)
    with pytest.raises(UserError, match="objects that could run code") as caught:
        run.load_latest()
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_a_checkpoint_names_its_format_and_a_newer_one_is_no_damage(tmp_path):
    run = RunFolder(tmp_path)
    run.save_latest({"step": 1})
    run.save_latest({"step": 2})
    assert run.load_latest() == {"format_version": 1, "step": 2}
    torch.save({"step": 3, "format_version": 2}, tmp_path / LATEST)
    with pytest.raises(UserError, match=r"latest\.pth has checkpoint format 2.* newer release"):
        run.load_latest()  # not the one before it
    torch.save({"step": 3}, tmp_path / LATEST)
    assert run.load_latest() == {"step": 3}


def test_a_packed_checkpoint_is_refused_unpacked(tmp_path):
    """It may become a thousand times as large."""
    run = RunFolder(tmp_path)
    run.save_checkpoint(BEST, {"a": torch.zeros(100_000)})
    with (
        zipfile.ZipFile(tmp_path / BEST) as plain,
        zipfile.ZipFile(tmp_path / LATEST, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(UserError, match="packed"):
        run.load_checkpoint(LATEST)


def test_more_epochs_are_refused_with_the_reason(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(Settings(num_epochs=2), INPUTS)
    run.write_text(LATEST, "")
    with pytest.raises(UserError, match="--num_epochs was 2, is 3; the learning rate follows"):
        run.finished(Settings(num_epochs=3), INPUTS)


def test_a_fresh_run_never_falls_back_on_the_one_it_overwrote(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(Settings(), INPUTS)
    for step in (1, 2):
        run.save_latest({"step": step})
    run.begin(Settings(overwrite=True), INPUTS)
    assert not run.has(LATEST) and not run.has(PREVIOUS)


def test_a_full_disk_as_torch_reports_it(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"latest\.pth cannot be written.*free space"):
        RunFolder(tmp_path).save_checkpoint(LATEST, {})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(Settings(), INPUTS)
    half = (".latest.pth.123.tmp", "color/a/.new\nline.png.5.tmp")
    foreign = (".mine.tmp", "other/.latest.pth.7.tmp", "color/.mine.tmp", "color/1.5.tmp")
    for name in (*half, *foreign):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(b"half")
    with run.alone(below=("color", "absent")):
        left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*.tmp")}
        assert left == set(foreign) and run.has(SETTINGS)


def test_a_folder_that_has_gone_is_not_made_anew_by_any_file(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(Settings(), INPUTS)
    shutil.rmtree(run.path)
    for write in (lambda: run.save_checkpoint(BEST, {}), lambda: run.write_history([{"a": 1}])):
        with pytest.raises(UserError, match="has gone"):
            write()
    assert not run.path.exists()


def test_a_lock_names_the_latest_owner_alone(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", wait=False) as mine:
            assert mine
    assert owner(tmp_path / "lock").count("process") == 1


def test_a_lock_needs_no_room_on_the_disk(tmp_path):
    """Linux has a file that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "lock").symlink_to("/dev/full")
    with locked(tmp_path / "lock", wait=False) as mine:
        assert mine


def test_an_attempts_curves_take_the_place_of_a_killed_ones(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    run = RunFolder(tmp_path)
    run.board.scalars({"a": 0.0}, 7)
    run.board.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = loader.EventFileLoader(str(file)).Load()
    assert [event.step for event in events if event.HasField("session_log")] == [7]


def test_the_hook_of_failed_threads_is_replaced_only_while_events_are_written(tmp_path):
    before = threading.excepthook
    importlib.reload(event_files)
    assert threading.excepthook is before
    run = RunFolder(tmp_path)
    run.board.scalars({"a": 0.0}, 1)
    assert threading.excepthook is not before
    run.board.close()
    assert threading.excepthook is before


def test_a_lost_event_file_costs_a_warning(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    run.board.scalars({"a": 0.0}, 1)
    (tmp_path / "run" / "tensorboard").rename(tmp_path / "gone")
    for step in range(2, 40):
        run.board.scalars({"a": 0.0}, step)
    run.board.show("b", np.zeros((8, 8, 3), np.uint8), 40)
    run.board.close()
    told = capsys.readouterr()
    assert told.out.count("warning:") == 1 and "run/tensorboard cannot be written (No" in told.out
    assert told.err == "" and not (tmp_path / "run" / "tensorboard").exists()
