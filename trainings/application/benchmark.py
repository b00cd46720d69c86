"""Measure how fast this machine is, and write tables: a network's latency by size, precision and
backend, and the training speed of each method."""

import copy
import importlib
import importlib.metadata
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from datasets.loading.pairs import check_batch_size
from model.deployment.folding import fold
from model.deployment.runtimes import is_installed
from model.network import Network
from model.weights.loading import load_network
from trainings.application.benchmark_report import report
from trainings.application.benchmark_speed import (
    RUNTIMES,
    WARM_UP,
    Forms,
    Size,
    latency,
    precision_word,
    training_speed,
)
from trainings.application.options import INT8, DeploymentOptions
from trainings.experiment import Experiment, new_network
from trainings.options import Settings
from trainings.scoring.trained import as_trained
from utils.disk.machine import cpu_name, git_revision, machine, versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.text import dimensions
from utils.utils import (
    find_input,
    is_out_of_memory,
    progress,
    resolve_device,
    seed_everything,
    slow_precision,
)

CPU_BATCH = 2
"""The batch of the training steps on a CPU, which takes seconds for each image."""

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


class Measurement(NamedTuple):
    """The table it goes into, what it is of, in words, and what measures it."""

    section: str
    case: dict[str, str]
    measure: Callable[[], dict[str, Any]]


def defaults(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the action's defaults: a batch for minutes on a CPU; on a GPU that of training."""
    on_gpu = torch.cuda.is_available() and explicit.get("device") != "cpu"
    return {} if on_gpu else {"batch_size": CPU_BATCH}


def benchmark(experiments: Sequence[Experiment], settings: Settings) -> None:
    """Measure, print tables, and write them as Markdown and, with all settings, as JSON.

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
    record: dict[str, Any] = {
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
    """Build the network as it is deployed, on the CPU; its speed does not depend on its weights."""
    network = new_network(settings)
    if settings.load_model_path:
        path = find_input(settings.load_model_path, "load_model_path")
        print(f"{path}: {load_network(network, path)}")
    return fold(network)


def _sizes(settings: Settings) -> list[Size]:
    if words := DeploymentOptions.of(settings).sizes:
        pairs = (map(int, word.split("x")) for word in dict.fromkeys(words))
        return [(height, width) for height, width in pairs]
    return [settings.image_size]


def _precisions(settings: Settings, device: torch.device) -> list[str]:
    named = DeploymentOptions.of(settings).precisions
    return list(dict.fromkeys(named or ("fp32", precision_word("auto", device))))


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
    """Return all measurements of a network, in the tables' order."""
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
            partial(latency, forms, backend, precision, size),
        )
        for size, backend, precision in chosen
    ]
    training = [
        Measurement(
            "training",
            {"network": settings.network, "method": e.action},
            partial(training_speed, e, settings, device),
        )
        for e in experiments
    ]
    return inference + training


def _reason(error: Exception) -> str:
    """Return in one line why a case was not measured. Raise an error of our own code again."""
    if is_out_of_memory(error):
        return "out of memory"
    if not isinstance(error, UserError):
        raise error
    return str(error)
