"""The benchmark measures and records everything it names; the numbers themselves are not tested."""

import json
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import main
from datasets.labels import CLASS_TABLE, ClassTable
from main import FlatSettings as Settings
from model.deployment import runtimes
from model.deployment.deployed import FIRST_TORCH_WITH_ONNX
from model.deployment.folding import folded
from model.model_stages import BiSeNet
from tests.support.helpers import TINY
from trainings.application import benchmark, benchmark_speed
from trainings.engine.timing import timed
from utils import processes

CPU = torch.device("cpu")
TRAININGS = [
    *("train_simple_gta5", "train_ada", "train_fda", "train_ssl_fda", "train_dacs"),
    "train_distill",
]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(benchmark_speed, "SECONDS", 0.0)
    monkeypatch.setattr(benchmark_speed, "AT_LEAST", 5)
    monkeypatch.setattr(benchmark_speed, "TRAINING_AT_LEAST", 1)


@pytest.fixture
def measured(tmp_path):
    def run(*words):
        folder = ("--save_model_path", str(tmp_path), "--device", "cpu")
        assert main.main(["--action", "benchmark", *folder, *TINY, *words]) == 0
        return json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())

    return run


def test_everything_is_in_the_json_and_in_the_table(measured, tmp_path, capsys):
    record = measured("--backends", "eager", "--sizes", "64x96", "96x64", "--precisions", "fp32")
    assert [(row["backend"], row["size"]) for row in record["inference"]] == [
        ("eager", "64x96"),
        ("eager", "96x64"),
    ]
    for row in record["inference"]:
        assert row["device"] == "cpu" and row["precision"] == "fp32" and row["runs"] == 5
        times = [row[name] for name in ("min_ms", "p50_ms", "p90_ms", "p99_ms")]
        assert times == sorted(times) and times[0] > 0
        assert row["fps"] == pytest.approx(1000 / row["p50_ms"])
    assert [row["method"] for row in record["training"]] == TRAININGS
    for row in record["training"]:
        assert row["batch_size"] == 2 and row["size"] == "64x96" and row["steps"] == 1
        assert row["images_per_second"] == pytest.approx(2000 / row["step_ms"])
        assert row["peak_memory_MB"] is None
    assert record["threads"] == torch.get_num_threads() and record["cpu"] in record["machine"]
    assert record["versions"]["torch"] == torch.__version__
    assert set(record["included"]) == {"inference", "training", "FLOPs"}
    assert record["settings"]["base_width"] == 8 and record["not_measured"] == []
    table = (tmp_path / "benchmark" / "benchmark.md").read_text()
    assert table in capsys.readouterr().out
    for word in ("96x64", *TRAININGS, *record["included"].values(), record["machine"]):
        assert word in table


@pytest.mark.slow
def test_networks_are_measured_side_by_side(measured, tmp_path, capsys):
    words = ("--networks", "bisenet", "pp_liteseg", "--precisions", "fp32")
    record = measured("--backends", "eager", *words)
    assert [row["network"] for row in record["inference"]] == ["bisenet", "pp_liteseg"]
    count, networks = len(TRAININGS), [row["network"] for row in record["training"]]
    assert networks == count * ["bisenet"] + count * ["pp_liteseg"]
    bisenet, pp_liteseg = record["networks"]
    assert pp_liteseg["parameters"] < bisenet["parameters"]
    assert pp_liteseg["GFLOPs"]["64x96"] < bisenet["GFLOPs"]["64x96"]
    table = (tmp_path / "benchmark" / "benchmark.md").read_text()
    assert "\nSTDC-BiSeNet, stdc1 of width 8: " in table
    assert "\nPP-LiteSeg, stdc1 of width 8: " in table
    named = ("--action", "benchmark", "--load_model_path", "a.pth", *words)
    assert main.main(named) == 2
    assert "--networks: a checkpoint is of one network" in capsys.readouterr().err


def test_a_checkpoint_is_measured_as_its_run_was_trained_and_trainings_are_not(tmp_path, capsys):
    """Width, size and classes are not those of the defaults."""
    table = ClassTable(("lawn", "kerb"), ((0, 0, 0), (9, 9, 9)), (0, 1))
    run = Settings(action="train_ada", base_width=8, image_size=(64, 96))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/settings.json").write_text(
        json.dumps({**run.to_json(), CLASS_TABLE: table.recorded()})
    )
    torch.save(BiSeNet(base=8, num_classes=2).state_dict(), tmp_path / "a/latest.pth")
    words = ("--load_model_path", str(tmp_path / "a/latest.pth"), "--device", "cpu")
    words = (*words, "--save_model_path", str(tmp_path), "--backends", "eager")
    assert main.main(["--action", "benchmark", *words, "--precisions", "fp32"]) == 0
    record = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
    assert [row["size"] for row in record["inference"]] == ["64x96"]
    assert record["networks"][0]["base_width"] == 8
    assert record["training"] == [] and "Training:" not in capsys.readouterr().out


@pytest.mark.slow
def test_every_runtime_is_measured(measured):
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    pytest.importorskip("torch", minversion=FIRST_TORCH_WITH_ONNX)
    pytest.importorskip("nncf")
    record = measured("--precisions", "fp32", "fp16", "int8")
    rows = [(row["backend"], row["precision"]) for row in record["inference"]]
    assert {("eager", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32")} <= set(rows)
    assert {("onnxruntime", "int8"), ("openvino", "int8")} <= set(rows)
    assert record["versions"]["openvino"]
    why = {(row["backend"], row["precision"]): row["why"] for row in record["not_measured"]}
    assert "fp16 needs a CUDA GPU" in why["eager", "fp16"]
    assert why["onnxruntime", "fp16"].endswith("in fp32, not in fp16: name fp32 or int8")
    assert "take onnxruntime or openvino" in why["eager", "int8"]
    assert len(rows) + len(why) == 9


def test_what_is_missing_is_a_line_and_the_rest_is_measured(measured, monkeypatch, capsys):
    def no_compiler(*arguments, **options):
        raise RuntimeError("no C++ compiler\nhere")

    monkeypatch.setattr(runtimes, "is_installed", lambda package: False)
    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: no_compiler)
    record = measured("--backends", "openvino", "compiled", "eager", "--precisions", "fp32")
    assert [row["backend"] for row in record["inference"]] == ["eager"]
    shown = capsys.readouterr().out
    assert "openvino fp32: openvino needs onnx, onnxscript, openvino: pip install -r" in shown
    assert "compiled fp32: torch.compile fails here: no C++ compiler\n" in shown


def test_a_defect_is_not_a_line(measured, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a defect")

    monkeypatch.setattr(benchmark_speed, "upsampled_max", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        measured("--backends", "eager")


def test_flops_are_two_for_each_multiply_add_of_the_main_heads_convolutions():
    network, counted = folded(BiSeNet(base=8)), []

    def count(convolution, inputs, output):
        window = convolution.weight[0].numel()  # input channels of a group x height x width
        counted.append(2 * window * output.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network.main_logits(torch.zeros(1, 3, 72, 104))
    assert benchmark.flops(folded(BiSeNet(base=8)), (72, 104)) == sum(counted)


def test_the_deployed_network_has_fewer_parameters_than_in_training():
    network = folded(BiSeNet(base=8))
    told = benchmark._description(network, [(64, 96)], Settings(base_width=8))
    auxiliary = [*network.conv_out16.parameters(), *network.conv_out32.parameters()]
    all_of_it = sum(p.numel() for p in network.parameters())
    assert told["parameters"] == all_of_it - sum(p.numel() for p in auxiliary)
    assert told["training_parameters"] == sum(p.numel() for p in BiSeNet(base=8).parameters())


def test_warm_up_is_not_counted():
    calls = []
    limits = {"at_least": 4, "at_most": 9}
    seconds = timed(lambda: calls.append(None), CPU, **limits, budget=0, warm_up=3)
    assert (len(calls), len(seconds)) == (7, 4)
    assert len(timed(lambda: None, CPU, **limits, budget=100)) == 9


def test_several_processes_repeat_equally_often(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert len(timed(lambda: None, CPU, at_least=4, at_most=9, budget=100)) == 4


def test_a_package_of_another_name_has_its_modules_version(monkeypatch):
    modules = {"onnx": SimpleNamespace(__version__="1.2"), "openvino": SimpleNamespace()}

    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(benchmark, "is_installed", modules.__contains__)
    monkeypatch.setattr("importlib.metadata.version", unknown)
    monkeypatch.setattr("importlib.import_module", modules.__getitem__)
    assert benchmark._package_versions() == {"onnx": "1.2", "openvino": "unknown"}


def test_wrong_words_are_refused(capsys):
    for words, sentence in (
        (("--sizes", "512"), "--sizes: '512' is not HxW, such as 512x1024, of at least 64"),
        (("--sizes", "32x64"), "is not HxW"),
        (("--backends", "tensorrt"), "'tensorrt' is none of eager, compiled, onnxruntime, open"),
        (("--precisions", "int4"), "'int4' is none of fp32, tf32, bf16, fp16, int8"),
    ):
        with pytest.raises(SystemExit):
            main.main(["--action", "benchmark", *words])
        assert sentence in capsys.readouterr().err
