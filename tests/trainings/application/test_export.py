"""An exported network computes what PyTorch computes, in every runtime that is installed."""

import json

import numpy as np
import pytest
import torch

import main
from datasets.labels import CLASS_NAMES
from main import FlatSettings as Settings
from model.deployment import runtimes
from model.deployment.deployed import (
    CLASSES,
    FIRST_TORCH_WITH_ONNX,
    LOGITS,
    METADATA_FILE,
    Deployed,
    pt2_file,
)
from model.deployment.folding import folded
from model.deployment.formats import FORMATS
from model.model_stages import BiSeNet
from tests.support.helpers import TINY, make_cityscapes, save
from trainings.application import export
from utils.utils import file_digest

SHAPES = ((1, 64, 64), (3, 101, 77), (2, 96, 160))


@pytest.fixture(scope="module")
def network():
    """A network whose class maps hold many classes; a random one predicts nearly one everywhere."""
    torch.manual_seed(0)
    network = BiSeNet(base=8)
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8))
        network.conv_out.conv_out.weight *= 10
    return network.eval()


@pytest.fixture(scope="module")
def here(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("export")
    torch.save(network.state_dict(), folder / "net.pth")
    make_cityscapes(folder / "Cityscapes")
    return folder


def exported(folder, *words):
    named = ("--load_model_path", folder / "net.pth", "--cityscapes_root", folder / "Cityscapes")
    return main.main(["--action", "export", *map(str, named), *TINY, *map(str, words)])


@pytest.fixture(scope="module")
def onnx(here):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    pytest.importorskip("torch", minversion=FIRST_TORCH_WITH_ONNX)
    assert exported(here) == 0
    return (here / "net.onnx").read_bytes()


def images_of(shape, seed=0):
    count, height, width = shape
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), np.uint8)


def assert_same(run, network, output=CLASSES):
    """On other batches and sizes than an export sees itself."""
    for shape in SHAPES:
        images = images_of(shape)
        with torch.inference_mode():
            logits = folded(network)(torch.from_numpy(images))
        given = torch.from_numpy(run(images))
        if output == LOGITS:
            torch.testing.assert_close(given, logits, rtol=1e-4, atol=1e-4)
        else:
            assert given.shape == shape and given.dtype == torch.uint8
            assert len(logits.argmax(1).unique()) > 5
            assert (given != logits.argmax(1)).float().mean() < 1e-3


@pytest.mark.slow
def test_onnx_runtime_gives_the_argmax_of_pytorch_at_any_size(onnx, network):
    assert_same(runtimes.onnx_runtime(onnx), network)


@pytest.mark.slow
def test_openvino_gives_the_argmax_of_pytorch_at_any_size(onnx, network):
    pytest.importorskip("openvino")
    assert_same(runtimes.openvino(onnx, "fp32"), network)


@pytest.mark.slow
def test_the_file_says_what_it_is(onnx, here):
    model = pytest.importorskip("onnx").load_from_string(onnx)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["image_size"] == "[64, 96]" and str(here) not in str(told)
    assert json.loads(told["class_names"]) == list(CLASS_NAMES)
    assert json.loads(told["palette"])[0] == [128, 64, 128]
    assert told["checkpoint_sha256"] == file_digest(here / "net.pth")
    (image,), (classes,) = model.graph.input, model.graph.output
    assert (image.name, classes.name) == ("image", "classes")
    names = [size.dim_param or size.dim_value for size in image.type.tensor_type.shape.dim]
    assert names == ["batch", 3, "height", "width"]
    assert all(not tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.slow
def test_torch_export_gives_logits_and_says_what_it_is(here, network, capsys):
    path = here / "folder" / "net.pt2"
    assert exported(here, "--output", path, "--export_output", "logits") == 0
    shown = capsys.readouterr().out
    assert "torch.export and PyTorch on 1x64x96: 0.0000 % of the pixels of another class" in shown
    assert "torch.export and PyTorch on 2x65x65" in shown
    assert_same(runtimes.torch_export(path.read_bytes()), network, LOGITS)
    extra = {METADATA_FILE: ""}
    torch.export.load(str(path), extra_files=extra)
    assert json.loads(extra[METADATA_FILE])["class_names"] == json.dumps(CLASS_NAMES)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
def test_an_export_that_differs_from_pytorch_is_not_written(here, monkeypatch, capsys):
    torch.manual_seed(1)
    other = Deployed(folded(BiSeNet(base=8)))
    wrong = FORMATS[".pt2"]._replace(write=lambda _, metadata: pt2_file(other, metadata))
    monkeypatch.setitem(FORMATS, ".pt2", wrong)
    path = here / "wrong.pt2"
    assert exported(here, "--output", path) == 1
    assert "nothing was written: torch.export does not give what" in capsys.readouterr().err
    assert not path.exists()


def test_only_pixels_of_nearly_equal_logits_may_be_of_another_class():
    logits = torch.tensor([3.0, 2.9999, 1.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    first, second, third = (torch.full((1, 1, 2), place, dtype=torch.uint8) for place in range(3))
    assert export._difference(first, logits, CLASSES) == (0, 0, 3)
    nearly = export._difference(second, logits, CLASSES)
    assert nearly.pixels == 1 and nearly.is_rounding
    assert not export._difference(third, logits, CLASSES).is_rounding
    assert not export._difference(logits * torch.nan, logits, LOGITS).is_rounding


def test_without_a_data_set_scenes_of_toy_city_are_drawn(tmp_path, capsys):
    settings = Settings(cityscapes_root=tmp_path / "nowhere", image_size=(64, 96))
    pictures = export._pictures(settings)
    assert [picture.shape for picture in pictures] == [(64, 96, 3)] * 3
    assert not np.array_equal(pictures[0], pictures[1])
    assert (
        f"compared on scenes of Toy City (--cityscapes_root {tmp_path}" in capsys.readouterr().out
    )


@pytest.mark.parametrize("below", ["", "train"])
def test_an_export_is_compared_on_the_targets_own_images_and_names_them(tmp_path, capsys, below):
    """Photos without labels, and, beside them, a Cityscapes that is not the target."""
    root = tmp_path / "my dashcam"
    for number, ending in enumerate(("png", "webp", "bmp")):
        save(np.full((64, 96, 3), number, np.uint8), root / below / f"{number}.{ending}")
    cityscapes = make_cityscapes(tmp_path / "Cityscapes")
    settings = Settings(target="folder", target_root=root, cityscapes_root=cityscapes)
    assert [picture.max() for picture in export._pictures(settings)] == [0, 1, 2]
    assert capsys.readouterr().out == f"compared on images of my dashcam ({root})\n"


def test_missing_packages_and_wrong_usage_are_sentences(here, monkeypatch, capsys):
    monkeypatch.setattr(runtimes, "is_installed", lambda package: package == "onnx")
    assert exported(here) == 1
    sentence = "needs onnxscript, onnxruntime: pip install -r requirements-export.txt"
    assert sentence in capsys.readouterr().err
    assert exported(here, "--output", "net.pb") == 2
    assert "--output: net.pb must end in .onnx, .xml or .pt2" in capsys.readouterr().err
    assert main.main(["--action", "export", *TINY]) == 2
    assert "--action export needs a checkpoint: name it with --load_model_path" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_torch_that_cannot_write_onnx_is_a_sentence(here, onnx, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise torch.onnx.OnnxExporterError("not converted")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert exported(here) == 1
    assert "cannot write this network as ONNX: use torch 2.7 or newer" in capsys.readouterr().err
    assert (here / "net.onnx").read_bytes() == onnx  # what was there is kept
