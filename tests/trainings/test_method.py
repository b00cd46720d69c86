"""A method from outside this project is an entry of the table, and continues as the others do."""

import pytest
import torch

import main
from datasets.data_set import Role
from tests.support.helpers import TINY, make_cityscapes, make_gta5
from tests.support.methods import Drawing, KillableDACS, Killed, Taught
from tests.support.runs import assert_same, content
from trainings.experiment import Experiment, unlabelled_target
from utils.disk.run_folder import LATEST

PASSES = 2
STEPS = 2
"""Number of updates in an epoch: 8 training images, two passes of 2 images in an update."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def add(monkeypatch):
    """Add an action that trains a method to the table."""

    def added(method):
        experiment = Experiment(
            action="train_new",
            stem="new",
            source=Role.SOURCE,
            validation=Role.TARGET,
            method=method,
            target=unlabelled_target,
        )
        monkeypatch.setitem(main.ACTIONS, "train_new", main.training(experiment, "a new method"))

    return added


def train(name):
    words = ("--action", "train_new", "--save_model_path", "runs", "--save_keyword", name, *TINY)
    words = (*words, "--confidence", "0.1", "--mask_ratio", "0.7")
    often = ("--checkpoint_minutes", "0.0000001", "--accumulate_steps", str(PASSES))
    return main.main([*words, "--num_epochs", "2", *often])


def killed_and_continued(method, name, monkeypatch):
    """Kill a training in the second pass of each epoch's last update, and continue it."""
    for killed_in in (3, 5):  # of the 8 passes of a training, and of the 6 that are left
        monkeypatch.setattr(method, "passes", 0)
        monkeypatch.setattr(method, "killed_in", killed_in)
        with pytest.raises(Killed):
            train(name)
    monkeypatch.setattr(method, "killed_in", None)
    assert train(name) == 0


@pytest.mark.slow
def test_a_method_with_a_teacher_goes_on_bit_for_bit(here, add, monkeypatch):
    add(Taught)
    assert train("whole") == 0
    killed_and_continued(Taught, "killed", monkeypatch)
    assert_same(content(here / "killed"), content(here / "whole"))
    state = torch.load(here / "whole" / LATEST, weights_only=True)["method"]
    assert state["teacher.updates"] == 2 * STEPS, "one call for each update, not for each pass"
    assert not torch.equal(
        state["teacher.module.conv_out.conv_out.weight"], state["network.conv_out.conv_out.weight"]
    )


@pytest.mark.slow
def test_a_method_that_draws_goes_on_bit_for_bit(here, add, monkeypatch):
    add(Drawing)
    assert train("whole") == 0
    killed_and_continued(Drawing, "killed", monkeypatch)
    assert_same(content(here / "killed"), content(here / "whole"))


@pytest.mark.slow
def test_dacs_with_masks_goes_on_bit_for_bit(here, add, monkeypatch):
    """The teacher, the draws and the share of confident pixels are those of the whole run."""
    add(KillableDACS)
    assert train("whole") == 0
    killed_and_continued(KillableDACS, "killed", monkeypatch)
    assert_same(content(here / "killed"), content(here / "whole"))
    latest = torch.load(here / "whole" / LATEST, weights_only=True)
    assert latest["method"]["teacher.updates"] == 2 * STEPS
    assert all(0 < row["q"] < 1 and row["seg_masked"] > 0 for row in latest["history"])
