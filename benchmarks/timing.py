"""What the benchmarks share: turns, medians, and what machine it was."""

import platform
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


def machine(device: str) -> str:
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name() if device == "cuda" else cpu
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def medians(calls: Mapping[str, Callable], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each call; they take turns, so that a busy machine slows all alike."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = {name: [] for name in calls}
    for _ in range(1 + rounds):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(measured[1:]) for name, measured in seconds.items()}
