"""Trainings are stopped, and meet faults and bad numbers, at exact steps of real commands."""

import itertools
import json
import math
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import main
from datasets.labels import CITYSCAPES
from datasets.samples import Batch, Sample
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support import forked
from tests.support.helpers import TINY, make_cityscapes, make_gta5
from tests.support.runs import TIMES, assert_same, content
from trainings.engine import loop, scorer, validation
from trainings.engine import run as training
from trainings.engine.health import Health, Waits
from utils.disk.run_folder import BEST, LATEST, PREVIOUS, SCORES, SETTINGS, RunFolder
from utils.errors import UserError
from utils.signals import Stop, Stopped, held_back, ignore_interrupts

STEPS = 4
"""Of an epoch."""

EVERY_STEP = ("--checkpoint_minutes", "0.0000001")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both data sets, and a run of two epochs that nothing disturbed, `whole`."""
    folder = tmp_path_factory.mktemp("loop")
    make_gta5(folder / "GTA5")
    make_cityscapes(folder / "Cityscapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("whole") == 0
    return folder


@pytest.fixture(autouse=True)
def here(data, monkeypatch):
    monkeypatch.chdir(data)
    return data / "runs"


def command(name, *more, action="train_simple_gta5", epochs="2", recipe=TINY):
    chosen = ("--action", action, "--save_model_path", "runs", "--save_keyword", name)
    return [*chosen, "--num_epochs", epochs, *recipe, *more]


def run(name, *more, **options):
    return main.main(command(name, *more, **options))


def disturbed(monkeypatch, name, disturb, *more, **options):
    """The exit code of a run in which `disturb` is called before each step with the state."""
    step = loop.train_step

    def with_disturbance(state, parts, precision):
        after = disturb(state)
        terms = step(state, parts, precision)
        return after(state, terms) if after else terms

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", with_disturbance)
        return run(name, *more, **options)


def saved(here, name, file=LATEST):
    return RunFolder(here / name).load_checkpoint(file)


def sends(signum, *steps, times=1):
    def disturb(state):
        if state.step + 1 in steps:
            for _ in range(times):
                os.kill(os.getpid(), signum)

    return disturb


def test_the_time_of_saving_is_none_of_the_training(here, monkeypatch):
    now, save, passed = time.perf_counter, RunFolder.save_latest, [0.0]

    def save_for_an_hour(folder, state):
        passed[0] += 3600.0
        return save(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: now() + passed[0])
        patch.setattr(RunFolder, "save_latest", save_for_an_hour)
        assert run("saved_slowly", *EVERY_STEP) == 0
    assert passed[0] >= 3600.0 * STEPS
    assert all(row["train_seconds"] < 3600.0 for row in saved(here, "saved_slowly")["history"])


@pytest.mark.slow
@pytest.mark.parametrize("step, signum", [(STEPS, signal.SIGINT), (STEPS + 2, signal.SIGTERM)])
def test_a_signal_in_a_step_stops_after_it_and_the_run_goes_on_alike(
    here, monkeypatch, signum, step, capsys
):
    """Also after an epoch's last step, before its row; the row counts the time before the stop."""
    name, before = f"stopped_{signum}_{step}", signal.getsignal(signum)
    slow = sends(signum, step)
    assert disturbed(monkeypatch, name, lambda s: (time.sleep(0.05), slow(s))[1]) == 128 + signum
    assert signal.getsignal(signum) is before
    assert saved(here, name)["step"] == step
    assert f"stopped after step {step} of {2 * STEPS}" in capsys.readouterr().out
    assert run(name) == 0
    rows = saved(here, name)["history"]
    slept = 0.05 * (step - STEPS if step > STEPS else step)
    assert rows[(step - 1) // STEPS]["train_seconds"] >= slept
    expected = saved(here, "whole")["history"]
    for row, other in zip(rows, expected, strict=True):
        assert {k: v for k, v in row.items() if k not in TIMES} == {
            k: v for k, v in other.items() if k not in TIMES
        }
    assert_same(content(here / name), content(here / "whole"))


def test_a_signal_after_the_last_step_stops_what_would_follow():
    with pytest.raises(Stopped), Stop():
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_does_not_reach_a_worker_that_has_just_been_forked():
    with Stop() as stop, stop.immediately(), held_back():
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGINT)
            ignore_interrupts(0)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7


def test_a_second_signal_leaves_at_once_and_the_checkpoint_stays_whole(here, monkeypatch):
    twice = sends(signal.SIGINT, STEPS + 2, times=2)
    assert disturbed(monkeypatch, "twice", twice) == 130
    assert saved(here, "twice")["step"] == STEPS
    assert run("twice") == 0
    assert_same(content(here / "twice"), content(here / "whole"))


@pytest.mark.parametrize("where", ["row", "validation"])
def test_a_validation_is_not_waited_for(here, monkeypatch, where):
    validated = []

    def validate(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        validated.append(1)

    def row(self, before=loop.Training._row):
        os.kill(os.getpid(), signal.SIGTERM)
        return before(self)

    name = f"validating_{where}"
    with monkeypatch.context() as patch:
        patch.setattr(scorer, "evaluate", validate)
        if where == "row":
            patch.setattr(loop.Training, "_row", row)
        assert run(name) == 128 + signal.SIGTERM
    assert not validated and saved(here, name)["step"] == STEPS
    assert run(name) == 0
    assert_same(content(here / name), content(here / "whole"))


class Killed(Exception):
    pass


def kill(*_, **__):
    raise Killed


def test_at_most_checkpoint_minutes_are_lost(here, monkeypatch):
    with pytest.raises(Killed):
        disturbed(
            monkeypatch, "often", lambda s: kill() if s.step == STEPS + 2 else None, *EVERY_STEP
        )
    assert saved(here, "often")["step"] == STEPS + 2


def history(here, name):
    return [(row["epoch"], row["step"]) for row in RunFolder(here / name).read_history()]


def train_for(name, *length):
    words = ("--action", "train_simple_gta5", "--save_model_path", "runs", "--save_keyword", name)
    return main.main([*words, *length, *TINY])


def test_a_length_in_steps_is_the_same_training(here):
    assert train_for("steps", "--num_steps", str(2 * STEPS)) == 0
    assert_same(content(here / "steps"), content(here / "whole"))
    assert history(here, "steps") == history(here, "whole") == [("1", "4"), ("2", "8")]


@pytest.mark.slow
def test_validations_are_scored_on_the_target_and_change_no_weight(here):
    assert run("validated_often", "--score_target", "True") == 0
    assert run("validated_once", "--validation_step", "2") == 0
    often, once = saved(here, "validated_often"), saved(here, "validated_once")
    assert [row["target/mIoU"] >= 0 for row in often["history"]] == [True, True]
    assert [row.get("val/mIoU") is not None for row in once["history"]] == [False, True]
    for part in ("method", "optimizers"):
        assert_same(often[part], once[part])


@pytest.mark.slow
def test_rounds_in_steps_validate_save_and_go_on_alike(here, monkeypatch, capsys):
    """Rounds have 3 steps in a training of an epoch and three quarters, killed in the second
    round."""
    length = ("--num_steps", "7", "--validation_steps", "3", "--checkpoint_steps", "2")
    assert train_for("rounds", *length) == 0
    assert history(here, "rounds") == [("0.75", "3"), ("1.5", "6"), ("1.75", "7")]
    scored = json.loads((here / "rounds" / SCORES).read_text())["last"]
    assert scored["epoch"] == 1.75 and all(
        row["val/mIoU"] for row in saved(here, "rounds")["history"]
    )
    step = loop.train_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda s, *p: kill() if s.step == 5 else step(s, *p))
        with pytest.raises(Killed):
            train_for("killed_round", *length)
    assert saved(here, "killed_round")["step"] == 4
    assert train_for("killed_round", *length) == 0
    assert "after round 1 of 3 and 4 of 7 steps" in capsys.readouterr().out
    assert_same(content(here / "killed_round"), content(here / "rounds"))


@pytest.mark.slow
def test_rare_class_sampling_goes_on_alike(here, monkeypatch, capsys):
    rare = ("--rare_class_temperature", "0.1")
    assert run("rare_classes", *rare) == 0
    out = capsys.readouterr().out
    assert out.count("classes drawn by rare class sampling, in %: road ") == 2
    assert (
        saved(here, "rare_classes")["history"][0]["loss"]
        != saved(here, "whole")["history"][0]["loss"]
    )
    assert disturbed(monkeypatch, "rare_stopped", sends(signal.SIGINT, STEPS + 1), *rare) == 130
    assert run("rare_stopped", *rare) == 0
    assert_same(content(here / "rare_stopped"), content(here / "rare_classes"))


def test_a_training_can_start_from_the_best_weights(here, monkeypatch):
    """However rarely it is saved, the state does not fall behind best.pth."""
    rarely = ("--checkpoint_step", "100")
    with pytest.raises(Killed):
        disturbed(monkeypatch, "rare", lambda s: kill() if s.step == STEPS else None, *rarely)
    assert saved(here, "rare", BEST)["scores"]["epoch"] == len(saved(here, "rare")["history"]) == 1


def test_killed_before_its_scores_were_written_it_writes_the_same(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "finish", kill)
        with pytest.raises(Killed):
            run("unscored")
    assert run("unscored") == 0
    assert_same(content(here / "unscored"), content(here / "whole"))


def test_a_finished_run_that_lost_its_state_is_kept_until_it_is_overwritten(here, capsys):
    assert run("lost", epochs="1") == 0
    best = (here / "lost" / BEST).read_bytes()

    def again(*words):
        for name in (LATEST, PREVIOUS):
            (here / "lost" / name).unlink(missing_ok=True)
        code = run("lost", *words, epochs="1")
        return code, *capsys.readouterr()

    code, out, _ = again()
    assert code == 0 and "is finished" in out and "mIoU for validation: " in out
    code, _, error = again("--learning_rate", "0.5")
    assert code == 2 and "holds another run (--learning_rate was" in error
    (here / "lost" / SCORES).write_text('{"last": {"class_IoU": 3}}')
    code, _, error = again()
    assert code == 1 and "holds no scores: bring it back, or train afresh" in error
    (here / "lost" / SCORES).unlink()
    code, _, error = again()
    assert code == 2 and "bring latest.pth back, choose another --save_keyword, or" in error
    assert (here / "lost" / BEST).read_bytes() == best
    code, *_ = again("--overwrite")
    assert code == 0 and (here / "lost" / LATEST).exists()


@pytest.mark.slow
def test_killed_as_its_first_best_weights_appear_a_run_goes_on_alike(here):
    process = forked.Command((forked.MAIN, *command("first_best")), cwd=here.parent)
    try:
        deadline = time.monotonic() + 120
        while not (here / "first_best" / BEST).exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert run("first_best") == 0
    assert_same(content(here / "first_best"), content(here / "whole"))


def test_a_training_from_a_backbone_alone_says_what_is_random(here, capsys):
    weights = BiSeNet(base=8).state_dict()
    backbone = {name: t for name, t in weights.items() if name.startswith("cp.backbone.")}
    torch.save(backbone, here / "backbone.pth")
    assert run("begun", "--load_model_path", "runs/backbone.pth", epochs="1") == 0
    out = capsys.readouterr().out
    assert "missing: cp.arm16.conv.conv.weight, " in out
    assert "; what is missing starts from random weights" in out


def test_the_first_of_equal_scores_is_best(here, monkeypatch):
    monkeypatch.setattr(validation, "panel", lambda *_, **__: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(validation, "print_scores", lambda scores: None)
    evaluation = SimpleNamespace(
        rows=[],
        classes=CITYSCAPES,
        scores=lambda: {"mIoU": 0.5, "pixel_accuracy": 0.5, "class_IoU": {}},
    )
    network = torch.nn.Linear(1, 1)
    network.classes = CITYSCAPES
    state = SimpleNamespace(best=None, step=1, epoch=0, method=SimpleNamespace(network=network))
    scorer = SimpleNamespace(on="data")
    for epoch in (1, 2):
        state.epoch = epoch
        validation.record_validation(
            evaluation, state, RunFolder(here / "equal"), validation.Validation(scorer)
        )
    assert state.best["epoch"] == 1 and state.last["epoch"] == 2


def test_going_on_in_another_precision_is_said(here, monkeypatch, capsys):
    auto = ("--precision", "auto")
    for step, instructions in ((2, []), (4, ["amx_bf16"])):
        monkeypatch.setattr("utils.utils.bf16_instructions", lambda found=instructions: found)
        code = disturbed(monkeypatch, "moved", sends(signal.SIGINT, step), *auto)
        assert code == 130
    assert "until now in float32, from here in bfloat16" in capsys.readouterr().out


def test_numbers_that_go_bad_before_a_checkpoint_ask_to_start_again(here, monkeypatch, capsys):
    assert disturbed(monkeypatch, "bad", spoiled(1), "--precision", "bf16") == 1
    error = capsys.readouterr().err
    assert "nothing has been saved yet: start again with --precision fp32, or with a" in error


@pytest.mark.slow
def test_a_run_whose_numbers_went_bad_goes_on_in_fp32(here, monkeypatch, capsys):
    """As its message says; it is said and recorded, and the finished run is that of both words."""
    bf16, fp32 = ("--precision", "bf16"), ("--precision", "fp32")
    bad = (*EVERY_STEP, *bf16)
    assert disturbed(monkeypatch, "mended", spoiled(STEPS + 2), *bad) == 1
    error = capsys.readouterr().err
    assert "kept: the same command with --precision fp32 goes on from it" in error
    assert run("mended", *fp32) == 0
    out = capsys.readouterr().out
    assert "until now in bfloat16, from here in float32" in out and f"{STEPS + 1} of" in out
    assert [row["precision"] for row in RunFolder(here / "mended").read_history()] == [
        "bfloat16",
        "float32",
    ]
    scores = RunFolder(here / "mended").read_json(SCORES)
    assert (scores["precision"], scores["tf32"]) == ("float32", False)
    settings = RunFolder(here / "mended").read_json(SETTINGS)
    assert settings["precision"] == "fp32" and settings["precisions_used"] == ["bf16", "fp32"]
    for words in (bf16, fp32):
        assert run("mended", *words) == 0
        assert "is finished" in capsys.readouterr().out
    assert run("mended", "--precision", "auto") == 2
    assert "--precision was 'fp32', is 'auto'" in capsys.readouterr().err
    again = ("--config_file", str(here / "mended" / SETTINGS), "--save_keyword", "again")
    assert main.main([*again, "--num_epochs", "1"]) == 0


def test_a_forgotten_precision_does_not_change_that_of_an_unfinished_run(here, monkeypatch, capsys):
    bf16 = ("--precision", "bf16")
    assert disturbed(monkeypatch, "forgotten", sends(signal.SIGINT, 2), *bf16) == 130
    assert run("forgotten", recipe=TINY[: TINY.index("--precision")]) == 2
    assert "--precision was 'bf16', is 'auto'" in capsys.readouterr().err


def test_a_finished_run_is_not_one_of_another_precision(here, capsys):
    assert run("whole", "--precision", "bf16") == 2
    assert "--precision was 'fp32', is 'bf16'" in capsys.readouterr().err


def test_in_fp32_the_remedy_is_another_one(here, monkeypatch, capsys):
    assert disturbed(monkeypatch, "float", spoiled(2)) == 1
    error = capsys.readouterr().err
    assert "start again with a lower --learning_rate" in error and "--precision" not in error


# ---------------------------------------------------------------------- numbers that are not finite


def spoiled(step):
    """A loss that is not finite in one step."""

    def disturb(state):
        if state.step + 1 != step:
            return None
        return lambda state, terms: {**terms, "loss": torch.tensor(math.nan)}

    return disturb


def test_no_state_is_saved_after_a_loss_that_is_not_finite(here, monkeypatch, capsys):
    """Between two log entries, too; the images of both domains are named."""
    words = (*EVERY_STEP, "--log_every", "1000")
    assert disturbed(monkeypatch, "nan", spoiled(3), *words, action="train_fda") == 1
    assert saved(here, "nan")["step"] == 2
    error = capsys.readouterr().err
    assert "loss nan at step 3, on the images 0000" in error and "; aachen_0000" in error


def test_it_is_noticed_at_every_log_entry(here, monkeypatch):
    steps = []
    bad = spoiled(2)
    counting = disturbed(
        monkeypatch, "logged", lambda s: (steps.append(1), bad(s))[1], "--log_every", "1"
    )
    assert counting == 1 and len(steps) == 2


def test_no_state_is_saved_with_a_weight_that_is_not_finite(here, monkeypatch, capsys):
    """A gradient can overflow where its loss does not: the loss is bad in the next step only."""

    def disturb(state):
        def spoil(state, terms):
            next(state.method.parameters()).data[0] = math.inf
            return terms

        return spoil if state.step + 1 == STEPS + 3 else None

    assert disturbed(monkeypatch, "inf", disturb, *EVERY_STEP) == 1
    assert saved(here, "inf")["step"] == STEPS + 2
    assert f"not finite any more after step {STEPS + 3}" in capsys.readouterr().err


def test_under_a_loss_scale_a_bad_step_is_skipped_until_the_scale_runs_out():
    method = torch.nn.Linear(1, 1)
    scaler = SimpleNamespace(is_enabled=lambda: True, get_scale=lambda: scale)
    state = SimpleNamespace(method=method, step=0, scaler=scaler)
    health, scale = Health(state), 4.0
    batch = Batch(Sample(None, None, ["one", "two"]))

    def note(step, loss):
        state.step = step
        health.note({"loss": torch.tensor(loss)}, [batch])

    note(1, math.nan)
    health.check()
    note(2, 1.0)
    health.check()
    scale = 0.5
    note(3, math.inf)
    note(4, math.nan)
    with pytest.raises(UserError, match="loss inf at step 3, on the images one, two"):
        health.check()


# --------------------------------------------------------------------------- files that are others


def other_state(saved):
    return {
        **saved,
        "method": {name: value[..., :1] for name, value in saved["method"].items() if value.ndim},
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: {"network": saved["method"], "scores": {}},  # as best.pth has it
        lambda saved: {name: saved[name] for name in saved if name != "optimizers"},
        other_state,
    ],
)
def test_a_checkpoint_of_something_else_is_a_sentence(here, monkeypatch, capsys, change):
    if not (here / "other").exists():
        assert disturbed(monkeypatch, "other", sends(signal.SIGINT, 2)) == 130
    folder = RunFolder(here / "other")
    state = folder.load_checkpoint(LATEST)
    folder.save_checkpoint(LATEST, change(state))
    assert run("other") == 1
    assert "latest.pth is no state of this training" in capsys.readouterr().err
    folder.save_checkpoint(LATEST, state)


def test_what_the_system_refuses_is_a_line(here, capsys):
    assert run("k" * 300) == 1
    error = capsys.readouterr().err
    assert "File name too long" in error and len(error.strip().splitlines()) == 1


def test_a_name_with_a_newline_stays_in_one_line(here, capsys):
    assert run("x", "--gta5_root", "no\nwhere") == 1
    assert "no\\nwhere" in capsys.readouterr().err


def test_a_statistic_that_is_not_finite_ends_before_anything_is_saved(here, monkeypatch, capsys):
    def disturb(state):
        def spoil(state, terms):
            next(b for n, b in state.method.named_buffers() if "running" in n)[0] = math.nan
            return terms

        return spoil if state.step + 1 == STEPS else None

    assert disturbed(monkeypatch, "spoilt", disturb) == 1
    assert f"not finite any more after step {STEPS}" in capsys.readouterr().err
    assert not (here / "spoilt" / BEST).exists() and not (here / "spoilt" / LATEST).exists()


@pytest.mark.parametrize("arithmetic", ["tf32", "bfloat16", "float16"])
def test_what_is_not_true_float32_can_go_on_in_it(arithmetic):
    method, scaler = torch.nn.Linear(1, 1), SimpleNamespace(is_enabled=lambda: False)
    health = Health(SimpleNamespace(method=method, step=1, scaler=scaler), arithmetic)
    health.note({"loss": torch.tensor(math.nan)}, [])
    with pytest.raises(UserError, match="the same command with --precision fp32 goes on"):
        health.check()


def test_a_loss_scale_that_has_run_out_is_an_error_with_finite_losses_too():
    scaler = SimpleNamespace(is_enabled=lambda: True, get_scale=lambda: 0.5)
    health = Health(SimpleNamespace(method=torch.nn.Linear(1, 1), step=1, scaler=scaler))
    health.note({"loss": torch.tensor(1.0)}, [])
    with pytest.raises(UserError, match="loss scale has run out"):
        health.check()


@pytest.mark.parametrize("content", ["{}", '{"last": null}', '{"last": {"mIoU": 1}}'])
def test_a_file_of_scores_without_any_is_a_sentence_and_is_written_again(here, capsys, content):
    if not (here / "scored").exists():
        assert run("scored") == 0
    scores = here / "scored" / SCORES
    before = scores.read_text()
    scores.write_text(content)
    assert run("scored") == 1
    assert "holds no scores: remove it" in capsys.readouterr().err
    scores.unlink()
    assert run("scored") == 0 and json.loads(scores.read_text())["last"]["epoch"] == 2
    assert json.loads(scores.read_text())["last"] == json.loads(before)["last"]


def test_a_stop_is_quiet_about_half_made_loaders_alone_and_restores_the_hook(monkeypatch):
    class Other:
        def __del__(self):
            raise ValueError

    def interrupted():
        half_made = object.__new__(_MultiProcessingDataLoaderIter), Other()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return half_made

    heard = []

    def hook(unraisable):
        heard.append(repr(unraisable.object))

    monkeypatch.setattr(sys, "unraisablehook", hook)
    with pytest.raises(KeyboardInterrupt), Stop():
        interrupted()
    (told,) = heard
    assert "Other.__del__" in told and sys.unraisablehook is hook


@pytest.mark.slow
def test_a_training_that_waits_for_data_says_so_once_with_the_remedy(here, monkeypatch, capsys):
    """Its clock ticks whenever it is read: a step is three ticks long and waits for one."""
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", itertools.count().__next__)
        assert run("waits", "--validation_step", "26", epochs="26") == 0
    out = capsys.readouterr().out
    assert out.count("of the time goes into waiting for data: ") == 1
    assert "--num_workers (0; " in out and "--cache_dir on a local disk" in out


@pytest.mark.parametrize(("wait", "said"), [(0.05, False), (0.2, True)])
def test_waits_of_up_to_a_tenth_of_the_time_are_not_worth_a_word(wait, said, monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    waits = Waits(Settings())
    for _ in range(100):
        with waits.timed():
            now += wait
        now += 1 - wait
    assert ("waiting for data" in capsys.readouterr().out) == said
