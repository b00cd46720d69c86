"""Run exported networks: ONNX Runtime, OpenVINO and torch itself.

The first two are optional packages, imported where they are needed.
"""

import importlib
import importlib.util
import io
from collections.abc import Callable

import numpy as np
import torch

from utils.errors import UserError
from utils.signals import signal_stack_kept

Runtime = Callable[[np.ndarray], np.ndarray]
"""Images, uint8 [N, 3, H, W] -> what the network gives."""

AS_IT_RUNS = "as it runs"
"""The precision that the runtime chooses: the fastest that CPU and file allow."""

OPENVINO_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", AS_IT_RUNS: None}


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require(what: str, *packages: str) -> None:
    """Raise UserError unless all packages are installed."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise UserError(
            f"{what} needs {', '.join(missing)}: pip install -r requirements-export.txt"
        )


def onnx_runtime(model: bytes) -> Runtime:
    """Return ONNX Runtime on the CPU, on as many threads as torch."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    return lambda images: session.run(None, {image.name: images})[0]


def openvino(model: bytes, precision: str, weights: bytes = b"") -> Runtime:
    """Return OpenVINO on the CPU, on as many threads as torch, in one of `OPENVINO_TYPES`.

    The model is an ONNX file, or the .xml file of OpenVINO, whose weights are the .bin file. Raise
    UserError where this CPU does not compute in that precision.
    """
    package = importlib.import_module("openvino")
    core = package.Core()
    if precision not in OPENVINO_TYPES:
        raise UserError(f"OpenVINO does not compute in {precision}: name fp32, bf16, fp16 or int8")
    wanted = OPENVINO_TYPES[precision]
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    if wanted:
        options["INFERENCE_PRECISION_HINT"] = wanted
    with signal_stack_kept():
        compiled = core.compile_model(core.read_model(model, weights), "CPU", options)
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if wanted and used != wanted:
        raise UserError(f"OpenVINO does not compute in {precision} on this CPU: name fp32")
    return lambda images: compiled(images)[0]


def torch_export(program: bytes) -> Runtime:
    """Return torch on the CPU, from a .pt2 file."""
    module = torch.export.load(io.BytesIO(program)).module()

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(images)).numpy()

    return run
