"""Commands that read a run of PP-LiteSeg take the network from the run."""

import importlib.util
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import main
from model.catalog import Design
from model.deployment import runtimes
from model.weights.loading import load_network
from tests.support.helpers import TINY, picture, save
from tests.support.runs import ROOTS, assert_same, content, make_toy
from trainings.engine import loop
from utils.disk.run_folder import BEST

NETWORK = ("--network", "pp_liteseg")
SIZE = (*("--image_size", "64", "96", "--num_workers", "0"), "--precision", "fp32")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A Toy City and an FDA run of PP-LiteSeg, `pp`."""
    folder = tmp_path_factory.mktemp("networks")
    make_toy(folder, train=4, val=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command("train_fda", *NETWORK, *TINY, "--save_keyword", "pp") == 0
        yield folder


def command(action, *words):
    common = ("--action", action, "--save_model_path", "runs", *ROOTS, "--num_epochs", "2")
    return main.main([*common, *map(str, words)])


def test_a_stopped_run_continues_to_the_same_weights(here, monkeypatch):
    step = loop.train_step

    def stopped(state, parts, precision):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(state, parts, precision)

    words = ("train_fda", *NETWORK, *TINY, "--save_keyword", "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        assert command(*words) == 130
    assert command(*words) == 0
    assert_same(content(here / "runs" / "stopped"), content(here / "runs" / "pp"))


def test_the_run_of_the_other_network_is_refused(here, capsys):
    assert command("train_fda", *TINY, "--save_keyword", "pp") == 2
    assert "--network was 'pp_liteseg', is 'bisenet'" in capsys.readouterr().err


def test_commands_on_a_run_need_no_flag_of_its_network(here, capsys):
    best = f"runs/pp/{BEST}"
    save(picture(0, (100, 150)), here / "in.png")
    named = ("--load_model_path", best)
    assert command("predict", *named, "--input", "in.png", "--output", "out") == 0
    (found,) = (here / "out" / "train_ids").iterdir()
    assert np.asarray(Image.open(found)).shape == (100, 150)
    assert command("val_gta5_transfer", *named, *SIZE, "--save_keyword", "scored") == 0
    target = ("--bn_statistics", "target")
    assert command("val_gta5_transfer", *named, *SIZE, *target, "--save_keyword", "scored") == 0
    assert command("visualize", *named, *SIZE) == 0
    assert command("train_fda", "--validation_only", *named, *SIZE, "--save_keyword", "again") == 0
    assert "stop" not in capsys.readouterr().err
    settings = json.loads((here / "runs" / "pp" / "settings.json").read_text())
    assert Design(*(settings[name] for name in Design._fields)) == Design("pp_liteseg", "stdc1", 8)


def test_it_is_exported_as_pytorch_computes_it(here, capsys):
    """Each export is compared with PyTorch at two sizes before it is written."""
    packages = ("onnx", "onnxscript", "onnxruntime")
    kinds = ["onnx"] if all(map(importlib.util.find_spec, packages)) else []
    for kind in ("pt2", *kinds):
        named = ("--load_model_path", f"runs/pp/{BEST}", "--output", f"net.{kind}")
        assert command("export", *named, "--image_size", "64", "96") == 0
        assert (here / f"net.{kind}").exists()
        assert "2x65x65" in capsys.readouterr().out
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 101, 77), np.uint8)
    network = Design("pp_liteseg", base_width=8).build()
    load_network(network, f"runs/pp/{BEST}")
    with torch.inference_mode():
        classes = network.eval()(torch.from_numpy(images)).argmax(1)
    runs = {"pt2": runtimes.torch_export, "onnx": runtimes.onnx_runtime}
    for kind in ("pt2", *kinds):
        given = torch.from_numpy(runs[kind]((here / f"net.{kind}").read_bytes())(images))
        assert (given != classes).float().mean() < 1e-3


def test_an_ensemble_of_both_networks_predicts(here):
    folder = here / "runs" / "bi"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save({"network": Design(base_width=8).build().state_dict()}, folder / BEST)
    settings = json.loads((here / "runs" / "pp" / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "network": "bisenet"}))
    save(picture(0, (64, 96)), here / "one.png")
    members = ("--mbt_checkpoints", f"runs/bi/{BEST}", f"runs/pp/{BEST}")
    assert command("predict", *members, "--input", "one.png", "--output", "both") == 0


def test_a_training_does_not_start_from_the_other_network(here, capsys):
    words = ("--load_model_path", f"runs/pp/{BEST}", "--save_keyword", "other")
    assert command("train_simple_gta5", *TINY, *words) == 1
    error = capsys.readouterr().err
    assert error.rstrip().endswith("; use --network pp_liteseg") and error.count("\n") == 1
