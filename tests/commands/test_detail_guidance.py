"""Trainings with --detail_guidance: they continue, show the detail, and are scored without it."""

import csv
import os
import signal

import pytest
import torch

import main
from model.catalog import Design
from model.weights.loading import load_network
from tests.support.helpers import TINY
from tests.support.runs import ROOTS, assert_same, content, make_toy
from trainings.engine import loop
from utils.disk.run_folder import BEST


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A Toy City and an undisturbed run of ADA with detail guidance, `whole`."""
    folder = tmp_path_factory.mktemp("detail")
    make_toy(folder, train=4, val=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train("whole", "--ema_decay", "0.5", "--accumulate_steps", "2") == 0
        yield folder


def train(name, *more, action="train_ada"):
    words = ("--action", action, "--save_model_path", "runs", "--save_keyword", name, *ROOTS, *TINY)
    return main.main([*words, "--num_epochs", "2", "--detail_guidance", *more])


def test_a_stopped_training_continues_to_the_same_weights(here, monkeypatch):
    step = loop.train_step

    def stopped(state, parts, precision):
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(state, parts, precision)

    more = ("--ema_decay", "0.5", "--accumulate_steps", "2")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        assert train("stopped", *more) == 130
    assert train("stopped", *more) == 0
    assert_same(content(here / "runs" / "stopped"), content(here / "runs" / "whole"))


def test_the_term_is_recorded_and_the_weights_score_without_the_flag(here, capsys):
    run = here / "runs" / "whole"
    with (run / "history.csv").open(newline="") as file:
        assert all(float(row["detail_source"]) > 0 for row in csv.DictReader(file))
    assert "conv_out_sp8.conv_out.weight" in torch.load(run / BEST)["network"]
    assert not load_network(Design(base_width=8).build(), run / BEST).unexpected
    named = ("--load_model_path", f"runs/whole/{BEST}", "--save_keyword", "scored")
    common = ("--save_model_path", "runs", *ROOTS, *TINY)
    assert main.main(["--action", "val_gta5_transfer", *named, *common]) == 0
    assert "unexpected 0" in capsys.readouterr().out


def test_the_same_run_without_the_flag_is_another(here, capsys):
    words = ("--ema_decay", "0.5", "--accumulate_steps", "2", "--detail_guidance", "False")
    assert train("whole", *words) == 2
    assert "--detail_guidance was True, is False" in capsys.readouterr().err


def test_a_training_starts_from_a_guided_network_with_its_head(here, capsys):
    named = ("--load_model_path", f"runs/whole/{BEST}")
    assert train("further", *named, action="train_simple_gta5") == 0
    assert "missing 0, unexpected 0" in capsys.readouterr().out


def test_tensorboard_shows_the_detail_of_a_method_without_pictures_of_its_own(here):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (file,) = (here / "runs" / "whole" / "tensorboard").iterdir()
    board = events.EventAccumulator(str(file)).Reload()
    assert "training" in board.Tags()["images"]
