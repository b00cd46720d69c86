"""`export --int8`: what it writes, what it says, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from model.deployment import runtimes
from model.deployment.deployed import FIRST_TORCH_WITH_ONNX
from model.deployment.formats import FORMATS
from model.deployment.quantised import Quantised
from model.model_stages import BiSeNet
from tests.support.helpers import TINY, make_cityscapes, picture, save
from trainings.application.eight_bits import _enlarged
from utils.utils import file_digest


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A network whose class maps hold many classes, Cityscapes, and photos without labels."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    network = BiSeNet(base=8)
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8))
        network.conv_out.conv_out.weight *= 10
    torch.save(network.state_dict(), folder / "net.pth")
    make_cityscapes(folder / "Cityscapes", train=9)
    for number in range(11):
        save(picture(number), folder / "photos" / f"{number}.png")
    return folder


def exported(folder, *words):
    named = ("--load_model_path", folder / "net.pth", "--cityscapes_root", folder / "Cityscapes")
    command = ["--action", "export", *map(str, named), *TINY, "--int8", *map(str, words)]
    return main.main(command)


def need(*packages):
    for package in packages:
        pytest.importorskip(package)
    pytest.importorskip("torch", minversion=FIRST_TORCH_WITH_ONNX)


@pytest.mark.slow
def test_it_is_written_with_its_metadata_and_both_scores_are_printed(here, capsys):
    need("onnx", "onnxscript", "onnxruntime")
    assert exported(here, "--int8_min_agreement", "0.5") == 0
    shown = capsys.readouterr().out
    assert "calibrating on 9 training images of Cityscapes" in shown
    assert "of 44 convolutions; in float: " in shown
    assert "% of the pixels of 3 validation images of Cityscapes; mIoU " in shown
    assert "ONNX Runtime at 64x96: " in shown and " ms in 8 bits, " in shown
    path = here / "net_int8.onnx"
    told = pytest.importorskip("onnx").load(path).metadata_props
    told = {entry.key: entry.value for entry in told}
    assert told["int8"] == "calibrated on 9 training images of Cityscapes"
    assert told["checkpoint_sha256"] == file_digest(here / "net.pth")
    assert len(json.loads(told["class_names"])) == 19
    run = runtimes.onnx_runtime(path.read_bytes())
    assert run(np.zeros((2, 3, 101, 77), np.uint8)).shape == (2, 101, 77)


def without_head(model, images, goal):
    """Stands for a network that 8 bits ruin: its last convolution is 0."""
    changed = pytest.importorskip("onnx").load_from_string(model)
    (head,) = [w for w in changed.graph.initializer if w.name.endswith("conv_out.conv_out.weight")]
    head.raw_data = bytes(len(head.raw_data))
    return Quantised({".onnx": changed.SerializeToString()}, 44, ())


@pytest.mark.slow
def test_below_the_minimum_it_fails_and_is_kept_under_another_name(here, monkeypatch, capsys):
    """And without labels there is no mIoU: images are compared that were not calibrated on."""
    need("onnx", "onnxscript", "onnxruntime")
    form = FORMATS[".onnx"]
    poor = form.runtimes[0]._replace(in_8_bits=without_head)
    monkeypatch.setitem(FORMATS, ".onnx", form._replace(runtimes=(poor,)))
    photos = ("--target", "folder", "--target_root", here / "photos")
    assert exported(here, *photos, "--output", here / "out" / "net.onnx") == 1
    shown, error = capsys.readouterr()
    assert "calibrating on 8 training images of photos" in shown
    assert "of 3 images of photos that were not calibrated on; there are no labels" in shown
    assert "mIoU " not in shown.replace("an mIoU", "")
    assert "% of the pixels keep their class, --int8_min_agreement asks for 98.00 %" in error
    assert [path.name for path in (here / "out").iterdir()] == ["net_rejected.onnx"]


def test_too_few_images_or_none_are_a_sentence(here, tmp_path, capsys):
    need("onnx", "onnxscript", "onnxruntime")
    for number in range(9):
        save(picture(number), tmp_path / "few" / f"{number}.png")
    assert exported(here, "--target", "folder", "--target_root", tmp_path / "few") == 1
    error = capsys.readouterr().err
    assert "--int8 calibrates on 8 training images of the target or more, and" in error
    assert "few has 7 for that: add images" in error
    assert exported(here, "--cityscapes_root", tmp_path / "nowhere") != 0
    assert "nowhere" in capsys.readouterr().err


def test_a_missing_package_and_another_format_are_sentences(here, monkeypatch, capsys):
    monkeypatch.setattr(runtimes, "is_installed", lambda package: package != "nncf")
    assert exported(here, "--output", "net.xml") == 1
    assert "--int8 needs nncf: pip install -r requirements-export.txt" in capsys.readouterr().err
    assert exported(here, "--output", "net.pt2") == 2
    assert "net.pt2 must end in .onnx or .xml with --int8" in capsys.readouterr().err
    assert not Path("net.xml").exists()


def test_class_maps_are_scored_at_the_size_of_the_labels():
    classes = np.array([[[0, 1], [2, 3]]], np.uint8)
    given = _enlarged(classes, torch.zeros(4, 6))
    assert given.dtype == torch.uint8
    rows = [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]]
    assert given.tolist() == [rows[0], rows[0], rows[1], rows[1]]
