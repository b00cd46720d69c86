"""A network in 8 bits is the float network to whoever runs it, but for some classes of pixels."""

import gc
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from model.deployment.deployed import FIRST_TORCH_WITH_ONNX, Deployed, onnx_file
from model.deployment.formats import ONNX_RUNTIME, OPENVINO
from model.deployment.quantised import Goal, class_map
from model.deployment.runtimes import AS_IT_RUNS
from utils.errors import UserError

ROWS = [pytest.param(row, id=row.title) for row in (ONNX_RUNTIME, OPENVINO)]
SIZES = ((64, 96), (101, 77))


class Small(nn.Module):
    """Four convolutions; the third one's first input is always 0, and its weight `outlier`."""

    def __init__(self, outlier: float):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 1, 1)
        self.third, self.last = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 5, 1)
        with torch.no_grad():
            self.second.weight[0], self.second.bias[0] = 0, -1
            self.third.weight[:, 0] = outlier
            self.last.bias.zero_()

    def main_logits(self, image):
        x = self.second(self.first((image.float() - 128) / 60).relu()).relu()
        x = self.third(x).relu()
        return self.last(x - x.mean((2, 3), keepdim=True))


def images_of(count, size=SIZES[0]):
    """Pictures with structure: blocks of colour under noise."""
    rng = np.random.default_rng(count)
    for _ in range(count):
        blocks = rng.integers(0, 256, (1, 3, -(-size[0] // 16), -(-size[1] // 16)))
        smooth = blocks.repeat(16, 2).repeat(16, 3)[..., : size[0], : size[1]]
        yield (smooth * 0.8 + rng.integers(0, 52, smooth.shape)).astype(np.uint8)


def exported(outlier, output="classes"):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    pytest.importorskip("torch", minversion=FIRST_TORCH_WITH_ONNX)
    return onnx_file(Deployed(Small(outlier).eval(), output), {"class_names": "[]"})


@pytest.fixture(scope="module")
def plain():
    return exported(0.01)


@pytest.fixture(scope="module")
def difficult():
    return exported(300.0)


def quantised(row, model, minimum):
    for package in (*row.packages, *row.for_8_bits):
        pytest.importorskip(package)
    images = [*images_of(3)]
    as_float = row.run({".onnx": model}, "fp32")
    goal = Goal(images, [class_map(as_float(image)) for image in images], minimum)
    result = row.in_8_bits(model, [*images_of(8)], goal)
    return result, goal, row.run(result.parts, AS_IT_RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_it_runs_at_any_size_and_gives_nearly_the_classes_of_the_float_network(row, plain):
    result, goal, run = quantised(row, plain, 0.9)
    assert goal.agreement(run) >= 0.9
    assert result.layers == 4 and set(result.in_float) <= {"first"}
    as_float = row.run({".onnx": plain}, "fp32")
    for size in SIZES:
        for image in images_of(2, size):
            given, wanted = run(image), as_float(image)
            assert (given.shape, given.dtype) == (wanted.shape, wanted.dtype)
            assert len(np.unique(wanted)) > 2
            assert (given == wanted).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_the_layer_that_8_bits_ruin_goes_back_to_float(row, difficult):
    """Beside a weight of 300 the others of a channel round to 0."""
    result, goal, run = quantised(row, difficult, 0.9)
    assert "third" in result.in_float and len(result.in_float) < result.layers
    assert goal.agreement(run) >= 0.9
    everything, goal, run = quantised(row, difficult, 0.0)
    assert "third" not in everything.in_float
    assert goal.agreement(run) < 0.9


@pytest.mark.slow
def test_a_goal_beyond_openvinos_own_float_is_refused(plain):
    """Else nncf turns every layer back to float, and the file has nothing in 8 bits."""
    for package in (*OPENVINO.packages, *OPENVINO.for_8_bits):
        pytest.importorskip(package)
    images = [*images_of(3)]
    other = [np.full((1, *SIZES[0]), 9)] * len(images)  # a class that the network never gives
    with pytest.raises(UserError, match=r"--int8_min_agreement 0.5 is out of reach on this CPU"):
        OPENVINO.in_8_bits(plain, [*images_of(8)], Goal(images, other, 0.5))


@pytest.mark.slow
def test_onnx_keeps_its_input_output_and_metadata(plain):
    result, _, _ = quantised(ONNX_RUNTIME, plain, 0.0)
    onnx = pytest.importorskip("onnx")
    before, after = map(onnx.load_from_string, (plain, result.parts[".onnx"]))
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert ("class_names", "[]") in [(told.key, told.value) for told in after.metadata_props]
    assert onnx.TensorProto.INT8 in {weight.data_type for weight in after.graph.initializer}


@pytest.mark.slow
def test_openvino_keeps_input_output_and_metadata(plain):
    result, _, _ = quantised(OPENVINO, plain, 0.0)
    model = pytest.importorskip("openvino").Core().read_model(*result.parts.values())
    (image,), (classes,) = model.inputs, model.outputs
    assert (image.any_name, classes.any_name) == ("image", "classes")
    assert str(image.partial_shape) == "[?,3,?,?]" and str(classes.partial_shape) == "[?,?,?]"
    assert model.get_rt_info(["model_info", "class_names"]).astype(str) == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_signal_is_heard_after_quantising(row, difficult):
    """OpenVINO left a stack for signals that was gone: the next Ctrl-C ended in a segfault."""
    quantised(row, difficult, 0.9)
    gc.collect()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(10)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
