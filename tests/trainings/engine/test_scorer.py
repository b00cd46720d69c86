"""Moving averages are scored and saved with norm statistics that fit their weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import main
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples
from model.model_stages import BiSeNet
from model.weights.loading import load_network
from tests.support.helpers import TINY, make_cityscapes, make_gta5
from tests.support.methods import Taught
from trainings.experiment import Experiment, unlabelled_target
from trainings.scoring.batch_norm import TARGET
from trainings.scoring.record import STATISTICS
from utils.cli.command_line import parse_settings
from utils.disk.run_folder import EMA, LATEST, SCORES, RunFolder

WORDS = ("--save_model_path", "runs", "--num_epochs", "2", "--learning_rate", "0.05", *TINY)
AVERAGED = ("--action", "train_fda", "--ema_decay", "0.5", "--fda_beta", "0.05", *WORDS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both data sets, and a run with averaged weights, `averaged`."""
    folder = tmp_path_factory.mktemp("validation")
    make_gta5(folder / "GTA5")
    make_cityscapes(folder / "Cityscapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main([*AVERAGED, "--save_keyword", "averaged"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(data, monkeypatch):
    monkeypatch.chdir(data)
    return data / "runs"


def assert_statistics_of_source(checkpoint: Path) -> None:
    """Compare each norm's statistics with the moments of its input, in float64: the source has so
    few images that they are one batch."""
    network = BiSeNet(base=8)
    load_network(network, checkpoint)
    saved = {name: buffer.clone() for name, buffer in network.named_buffers()}
    samples = unlabelled_samples(Role.SOURCE, parse_settings(AVERAGED, main.ACTIONS))
    images = torch.stack([samples[0, place].image for place in range(len(samples))])
    inputs = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, seen, __, name=name: inputs.update({name: seen[0].double()})
            )
    with torch.no_grad():
        network.train().heads(images)
    assert len(inputs) == sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    for name, x in inputs.items():
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
        close = {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(saved[f"{name}.running_mean"].double(), mean, **close)
        torch.testing.assert_close(saved[f"{name}.running_var"].double(), variance, **close)


@pytest.mark.slow
def test_an_average_has_statistics_of_its_own_weights_on_the_source(here):
    """Averaged statistics do not fit averaged weights: such a score was 13 points too low."""
    assert_statistics_of_source(here / "averaged" / EMA)
    weights = RunFolder(here / "averaged").load_checkpoint(LATEST)["average"]
    saved = RunFolder(here / "averaged").load_checkpoint(EMA)["network"]
    for name, _ in BiSeNet(base=8).named_parameters():
        assert torch.equal(saved[name], weights[f"module.{name}"]), name


@pytest.mark.parametrize(
    ("statistics", "name"),
    [("training", "last_average"), ("target", "last_average_target_statistics")],
)
def test_an_average_scores_alike_in_its_training_and_from_its_file(here, statistics, name):
    words = ("--validation_only", "--select", "ema", "--bn_statistics", statistics)
    assert main.main([*AVERAGED, "--save_keyword", "averaged", *words]) == 0
    suffix = "_target_statistics" if statistics == "target" else ""
    (record,) = here.glob(f"averaged/validation_cityscapes_averaged_ema{suffix}.json")
    own = json.loads((here / "averaged" / SCORES).read_text())[name]
    assert json.loads(record.read_text())["class_IoU"] == own["class_IoU"]


def test_a_finished_run_prints_all_its_scores(here, capsys):
    assert main.main([*AVERAGED, "--save_keyword", "averaged"]) == 0
    out = capsys.readouterr().out
    assert out.count("mIoU for validation") == 4
    assert f"with averaged weights and {STATISTICS[TARGET]}:" in out


@pytest.mark.slow
def test_a_teacher_is_scored_and_saved_as_an_average_is(here, monkeypatch, capsys):
    experiment = Experiment(
        action="train_new",
        stem="new",
        source=Role.SOURCE,
        validation=Role.TARGET,
        method=Taught,
        target=unlabelled_target,
    )
    monkeypatch.setitem(main.ACTIONS, "train_new", main.training(experiment, "a new method"))
    monkeypatch.setattr(Taught, "killed_in", None)
    words = ["--action", "train_new", "--save_keyword", "taught", *WORDS]
    assert main.main(words) == 0
    assert_statistics_of_source(here / "taught" / EMA)
    state = RunFolder(here / "taught").load_checkpoint(LATEST)["method"]
    saved = RunFolder(here / "taught").load_checkpoint(EMA)["network"]
    name = "conv_out.conv_out.weight"
    assert torch.equal(saved[name], state[f"teacher.module.{name}"])
    scores = json.loads((here / "taught" / SCORES).read_text())
    assert {"last_average", "last_average_target_statistics"} <= scores.keys()
    capsys.readouterr()
    assert main.main([*words, "--save_keyword", "both", "--ema_decay", "0.9"]) == 2
    assert "the teacher of this method is such an average" in capsys.readouterr().err
