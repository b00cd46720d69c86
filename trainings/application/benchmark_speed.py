"""The speeds that `benchmark` measures: a network's latency as each backend runs it, and that of
training steps."""

import copy
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.deployment.deployed import Deployed, onnx_file
from model.deployment.formats import ONNX_RUNTIME, OPENVINO, Row
from model.deployment.quantised import Goal, class_map
from model.deployment.runtimes import AS_IT_RUNS, Runtime, require
from model.network import WHITE, Network
from trainings.application.options import INT8
from trainings.engine.timing import timed, training_step
from trainings.experiment import Experiment
from trainings.options import Settings
from utils.errors import UserError
from utils.text import dimensions
from utils.upsampling import upsampled_max
from utils.utils import DTYPES, autocast, float32_products, is_out_of_memory, resolve_precision

WARM_UP, AT_LEAST, SECONDS, AT_MOST = 5, 20, 3.0, 1000
"""Runs that are not counted; then counted ones, at least and, within the seconds, at most."""

TRAINING_WARM_UP, TRAINING_AT_LEAST = 1, 3
"""Training steps before the measurement, and the fewest that are measured."""

PERCENTILES = (50, 90, 99)

RUNTIMES = {"onnxruntime": ONNX_RUNTIME, "openvino": OPENVINO}
"""The backends that are not torch's own; both read the exported ONNX file."""

CALIBRATED_ON = 4
"""Random images that a network in 8 bits is calibrated on; its speed does not depend on them."""

Size = tuple[int, int]
"""(height, width) in pixels."""

COMPILE_MODE = "reduce-overhead"
"""CUDA graphs on a GPU, which the launches of small kernels would hold up; nothing on a CPU."""


class Forms:
    """A network as each backend runs it."""

    def __init__(self, network: Network, device: torch.device):
        self.device = device
        self.network = network
        copied = copy.deepcopy(network).to(device)
        self.on_device = copied.to(memory_format=torch.channels_last)

    @cached_property
    def onnx(self) -> bytes:
        return onnx_file(Deployed(self.network), {})

    def call(self, backend: str, precision: str, size: Size) -> Callable[[], Any]:
        """Return a function that computes the class map of one image.

        Raise UserError where the backend cannot run here.
        """
        image = torch.randint(0, WHITE + 1, (1, 3, *size), dtype=torch.uint8)
        if row := RUNTIMES.get(backend):
            require(backend, *row.packages)
            return partial(self._runtime(row, precision, image.numpy()), image.numpy())
        if precision == INT8:
            raise UserError(
                f"torch's own backends have no 8 bits here: take {' or '.join(RUNTIMES)}"
            )
        resolve_precision(precision, self.device)  # refuses here what this device cannot do
        form = self._eager if backend == "eager" else self._compiled()
        return partial(self._run, form, image.to(self.device), precision)

    def _runtime(self, row: Row, precision: str, image: np.ndarray) -> Runtime:
        parts = {".onnx": self.onnx}
        if precision != INT8:
            return row.run(parts, precision)
        require(INT8, *row.for_8_bits)
        assert row.in_8_bits
        goal = Goal([image], [class_map(row.run(parts, "fp32")(image))], minimum=0)
        images = [np.random.default_rng(i).permuted(image) for i in range(CALIBRATED_ON)]
        return row.run(row.in_8_bits(self.onnx, images, goal).parts, AS_IT_RUNS)

    def _eager(self, image: Tensor) -> Tensor:
        """Compute the class map as validation does."""
        return upsampled_max(self.on_device.main_logits(image)[0], image.shape[-2:])[1]

    def _compiled(self) -> Callable[[Tensor], Tensor]:
        torch.compiler.reset()  # each size and precision has a graph of its own
        return torch.compile(Deployed(self.on_device), mode=COMPILE_MODE, dynamic=False)

    @torch.inference_mode()
    def _run(self, form: Callable[[Tensor], Tensor], image: Tensor, precision: str) -> Tensor:
        with float32_products(precision), autocast(self.device, DTYPES[precision]):
            return form(image)


def latency(forms: Forms, backend: str, precision: str, size: Size) -> dict[str, Any]:
    """Return milliseconds, and images a second at the median."""
    call = forms.call(backend, precision, size)
    if backend == "compiled":
        _compile(call)
    seconds = _timed(call, forms.device, warm_up=WARM_UP, at_least=AT_LEAST)
    milliseconds = 1e3 * np.asarray(seconds)
    percentiles = np.percentile(milliseconds, PERCENTILES).tolist()
    return {
        "runs": len(seconds),
        "min_ms": milliseconds.min().item(),
        **{f"p{p}_ms": value for p, value in zip(PERCENTILES, percentiles, strict=True)},
        "fps": 1e3 / np.median(milliseconds).item(),
    }


def _compile(call: Callable[[], Any]) -> None:
    """Make the first run. Raise UserError where torch.compile does not work, such as for want of a
    C++ compiler."""
    try:
        call()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"torch.compile fails here: {str(error).strip().splitlines()[0]}"
        ) from error


def _timed(
    call: Callable[[], Any], device: torch.device, *, warm_up: int, at_least: int
) -> list[float]:
    """Return the seconds of each run that is counted."""
    return timed(call, device, at_least=at_least, at_most=AT_MOST, budget=SECONDS, warm_up=warm_up)


def training_speed(
    experiment: Experiment, settings: Settings, device: torch.device
) -> dict[str, Any]:
    """Return the images of each domain a second at the median step, and the GPU's peak memory."""
    call = training_step(experiment, settings, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _timed(call, device, warm_up=TRAINING_WARM_UP, at_least=TRAINING_AT_LEAST)
    step = np.median(seconds).item()
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    return {
        "precision": precision_word(settings.precision, device),
        "size": dimensions(settings.image_size),
        "batch_size": settings.batch_size,
        "steps": len(seconds),
        "step_ms": 1e3 * step,
        "images_per_second": settings.batch_size / step,
        "peak_memory_MB": peak,
    }


def precision_word(name: str, device: torch.device) -> str:
    """Return a word of `--precision`, or the one that auto stands for on this device."""
    dtype = resolve_precision(name, device)
    return next(word for word in DTYPES if DTYPES[word] == dtype) if name == "auto" else name
