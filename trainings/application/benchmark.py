"""Measure how fast this machine is: a network's latency by size, precision and backend, and the
training speed of each method."""

import copy
import importlib
import importlib.metadata
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from datasets.loading.pairs import check_batch_size
from model.deployment.deployed import Deployed, onnx_file
from model.deployment.folding import folded
from model.deployment.formats import ONNX_RUNTIME, OPENVINO, Row
from model.deployment.quantised import Goal, class_map
from model.deployment.runtimes import AS_IT_RUNS, Runtime, is_installed, require
from model.network import WHITE, Network
from model.weights.loading import load_network
from trainings.application.benchmark_report import report
from trainings.application.options import INT8, DeploymentOptions
from trainings.engine.timing import timed, training_step
from trainings.experiment import Experiment, new_network
from trainings.options import Settings
from trainings.scoring.trained import as_trained
from utils.disk.machine import cpu_name, git_revision, machine, versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.text import dimensions
from utils.upsampling import upsampled_max
from utils.utils import (
    DTYPES,
    autocast,
    find_input,
    float32_products,
    is_out_of_memory,
    progress,
    resolve_device,
    resolve_precision,
    seed_everything,
    slow_precision,
)

WARM_UP, AT_LEAST, SECONDS, AT_MOST = 5, 20, 3.0, 1000
"""Runs that are not counted; then counted ones, at least and, within the seconds, at most."""

TRAINING_WARM_UP, TRAINING_AT_LEAST = 1, 3
"""Training steps before the measurement, and the fewest that are measured."""

CPU_BATCH = 2
"""The batch of the training steps on a CPU, which takes seconds for each image."""

PERCENTILES = (50, 90, 99)

RUNTIMES = {"onnxruntime": ONNX_RUNTIME, "openvino": OPENVINO}
"""The backends that are not torch's own; both read the exported ONNX file."""

CALIBRATED_ON = 4
"""Random images that a network in 8 bits is calibrated on; its speed does not depend on them."""

INCLUDED = {
    "inference": (
        "batch 1, the folded main head: normalisation, network, upsampling to the image's size and "
        "argmax; not reading, resizing or moving the image. eager and compiled: from the uint8 "
        "image on the device to the uint8 class map there, the device synchronised before and "
        "after; onnxruntime and openvino: on the CPU, from numpy to numpy; int8: calibrated on "
        "random images, with as many layers in 8 bits as an export begins with. FPS of the median, "
        f"after {WARM_UP} runs of warm-up"
    ),
    "training": (
        "forward, backward and update on random images that lie on the device; not loading and "
        "augmenting data"
    ),
    "FLOPs": "convolutions of one image, a multiply-add counted as 2 (torch.utils.flop_counter)",
}

Size = tuple[int, int]
"""(height, width) in pixels."""

COMPILE_MODE = "reduce-overhead"
"""CUDA graphs on a GPU, which the launches of small kernels would hold up; nothing on a CPU."""


class Measurement(NamedTuple):
    """The table it goes into, what it is of, in words, and what measures it."""

    section: str
    case: dict[str, str]
    measure: Callable[[], dict[str, Any]]


def defaults(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """A batch for minutes on a CPU; on a GPU that of training."""
    on_gpu = torch.cuda.is_available() and explicit.get("device") != "cpu"
    return {} if on_gpu else {"batch_size": CPU_BATCH}


def benchmark(experiments: Sequence[Experiment], settings: Settings) -> None:
    """Measures, prints tables, and writes them as Markdown and, with all settings, as JSON.

    A checkpoint is measured with the network, size and classes of its run, and without the speed
    of trainings. What cannot be measured here is said, and the rest goes on.
    """
    if settings.load_model_path:
        settings, experiments = _as_trained(settings, settings.load_model_path), ()
    device = resolve_device(settings.device)
    check_batch_size(settings.batch_size, 1, settings.batch_size)
    for precision in DeploymentOptions.of(settings).precisions:
        if precision != INT8 and (note := slow_precision(precision, device)):
            print(note)
    seed_everything(settings.seed)
    sizes = _sizes(settings)
    networks = [(one, _network(one)) for one in _of_each_network(settings)]
    packages = _package_versions()
    record = {
        "machine": machine(device.type),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": versions() | packages,
        "packages": list(packages),
        "git_revision": git_revision(),
        "included": INCLUDED,
        "networks": [_description(network, sizes, one) for one, network in networks],
        "inference": [],
        "training": [],
        "not_measured": [],
        "settings": settings.to_json(),
    }
    measurements = [
        case
        for one, network in networks
        for case in _measurements(network, sizes, experiments, one, device)
    ]
    with progress(measurements, "benchmark", unit="case") as bar:
        for section, case, measure in bar:
            bar.set_postfix_str(" ".join(case.values()))
            try:
                record[section].append({**case, **measure()})
            except (UserError, MemoryError, RuntimeError) as error:
                record["not_measured"].append({**case, "why": _reason(error)})
    folder = RunFolder(settings.save_model_path / (settings.save_keyword or "benchmark"))
    folder.write_json("benchmark.json", record)
    folder.write_text("benchmark.md", report(record))
    print(f"\n{report(record)}\ntables and numbers: {folder.path}/benchmark.{{md,json}}")


def _as_trained(settings: Settings, checkpoint: Path) -> Settings:
    """Return the settings with the network, size and classes of the checkpoint's run."""
    if len(set(DeploymentOptions.of(settings).networks)) > 1:
        raise UsageError(
            "argument --networks: a checkpoint is of one network: name that one, or leave out "
            "--load_model_path, since the speed does not depend on the weights"
        )
    return as_trained(settings, find_input(checkpoint, "load_model_path"))


def _of_each_network(settings: Settings) -> list[Settings]:
    """Return the settings once for each of `--networks`."""
    names = dict.fromkeys(DeploymentOptions.of(settings).networks or (settings.network,))
    return [replace(settings, network=name) for name in names]


def _network(settings: Settings) -> Network:
    """As it is deployed, on the CPU; its speed does not depend on its weights."""
    network = new_network(settings)
    if settings.load_model_path:
        path = find_input(settings.load_model_path, "load_model_path")
        print(f"{path}: {load_network(network, path)}")
    return folded(network)


def _sizes(settings: Settings) -> list[Size]:
    if words := DeploymentOptions.of(settings).sizes:
        return [tuple(map(int, word.split("x"))) for word in dict.fromkeys(words)]
    return [settings.image_size]


def _precisions(settings: Settings, device: torch.device) -> list[str]:
    named = DeploymentOptions.of(settings).precisions
    return list(dict.fromkeys(named or ("fp32", _precision("auto", device))))


def _precision(name: str, device: torch.device) -> str:
    """That word of `--precision`, or the one that auto stands for on this device."""
    dtype = resolve_precision(name, device)
    return next(word for word in DTYPES if DTYPES[word] == dtype) if name == "auto" else name


def _backends(settings: Settings) -> list[str]:
    usual = [name for name, row in RUNTIMES.items() if all(map(is_installed, row.packages))]
    return list(dict.fromkeys(DeploymentOptions.of(settings).backends or ("eager", *usual)))


def _package_versions() -> dict[str, str]:
    rows = RUNTIMES.values()
    packages = dict.fromkeys(name for row in rows for name in (*row.packages, *row.for_8_bits))
    return {name: _version(name) for name in packages if is_installed(name)}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the module of onnxruntime-gpu, for one
        return getattr(importlib.import_module(package), "__version__", "unknown")


def _description(network: Network, sizes: Sequence[Size], settings: Settings) -> dict[str, Any]:
    return {
        "network": network.title,
        "backbone": settings.backbone,
        "base_width": settings.base_width,
        "parameters": sum(p.numel() for p in network.deployed_parameters()),
        "training_parameters": sum(p.numel() for p in new_network(settings).parameters()),
        "GFLOPs": {dimensions(size): flops(network, size) / 1e9 for size in sizes},
    }


def flops(network: Network, size: Size) -> int:
    """Return the operations of the main head on one image; a multiply-add counts as 2."""
    counted = copy.deepcopy(network).to("meta")  # only the shapes are computed
    with FlopCounterMode(display=False) as counter:
        counted.main_logits(torch.empty(1, 3, *size, dtype=torch.uint8, device="meta"))
    return counter.get_total_flops()


def _measurements(
    network: Network,
    sizes: Sequence[Size],
    experiments: Sequence[Experiment],
    settings: Settings,
    device: torch.device,
) -> list[Measurement]:
    """All that is to be measured of a network, in the tables' order."""
    forms = Forms(network, device)
    chosen = itertools.product(sizes, _backends(settings), _precisions(settings, device))
    inference = [
        Measurement(
            "inference",
            {
                "network": settings.network,
                "backend": backend,
                "device": "cpu" if backend in RUNTIMES else device.type,
                "precision": precision,
                "size": dimensions(size),
            },
            partial(_latency, forms, backend, precision, size),
        )
        for size, backend, precision in chosen
    ]
    training = [
        Measurement(
            "training",
            {"network": settings.network, "method": e.action},
            partial(_training_speed, e, settings, device),
        )
        for e in experiments
    ]
    return inference + training


class Forms:
    """A network as each backend runs it."""

    def __init__(self, network: Network, device: torch.device):
        self.device = device
        self.network = network
        self.on_device = copy.deepcopy(network).to(device, memory_format=torch.channels_last)

    @cached_property
    def onnx(self) -> bytes:
        return onnx_file(Deployed(self.network), {})

    def call(self, backend: str, precision: str, size: Size) -> Callable[[], Any]:
        """Return a function that computes the class map of one image.

        Raise UserError where the backend cannot run here.
        """
        image = torch.randint(0, WHITE + 1, (1, 3, *size), dtype=torch.uint8)
        if backend in RUNTIMES:
            require(backend, *RUNTIMES[backend].packages)
            return partial(
                self._runtime(RUNTIMES[backend], precision, image.numpy()), image.numpy()
            )
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
        """As validation does it."""
        return upsampled_max(self.on_device.main_logits(image)[0], image.shape[-2:])[1]

    def _compiled(self) -> Callable[[Tensor], Tensor]:
        torch.compiler.reset()  # each size and precision has a graph of its own
        return torch.compile(Deployed(self.on_device), mode=COMPILE_MODE, dynamic=False)

    @torch.inference_mode()
    def _run(self, form: Callable[[Tensor], Tensor], image: Tensor, precision: str) -> Tensor:
        with float32_products(precision), autocast(self.device, DTYPES[precision]):
            return form(image)


def _latency(forms: Forms, backend: str, precision: str, size: Size) -> dict[str, Any]:
    """Milliseconds, and images a second at the median."""
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
    """The first run. Raises UserError where torch.compile does not work, such as for want of a
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
    """Seconds of each run that is counted."""
    return timed(call, device, at_least=at_least, at_most=AT_MOST, budget=SECONDS, warm_up=warm_up)


def _training_speed(
    experiment: Experiment, settings: Settings, device: torch.device
) -> dict[str, Any]:
    """Images of each domain a second at the median step, and what the GPU holds at most."""
    call = training_step(experiment, settings, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _timed(call, device, warm_up=TRAINING_WARM_UP, at_least=TRAINING_AT_LEAST)
    step = np.median(seconds).item()
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    return {
        "precision": _precision(settings.precision, device),
        "size": dimensions(settings.image_size),
        "batch_size": settings.batch_size,
        "steps": len(seconds),
        "step_ms": 1e3 * step,
        "images_per_second": settings.batch_size / step,
        "peak_memory_MB": peak,
    }


def _reason(error: Exception) -> str:
    """Return in one line why a case was not measured. Raise an error of our own code again."""
    if is_out_of_memory(error):
        return "out of memory"
    if not isinstance(error, UserError):
        raise error
    return str(error)
