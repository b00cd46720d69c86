"""Measure medians of calls in turn, and peak memory, and name the machine, for all benchmarks."""

import ctypes
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.disk.machine import machine as machine

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux wants to be written to forget the largest size that a process had."""


def medians(calls: Mapping[str, Callable], rounds: int, device: str) -> dict[str, float]:
    """Return the median seconds of each call; they take turns, so that a busy machine slows all
    alike."""
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


def peak_megabytes(call: Callable, device: str) -> float:
    """Return the peak memory of a call beyond what was taken before it; NaN where it is unknown."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return float("nan")
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before) / 1e3


def _resident(field: str) -> float:
    """Return the resident memory in kilobytes."""
    return float(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text()).group(1))


def report(title: str, calls: Mapping[str, Callable], rounds: int, device: str) -> None:
    """Print a table of calls that do the same, the plain form first."""
    seconds = medians(calls, rounds, device)
    print(f"\n**{title}**\n\n| form | ms | as fast as plain | peak MB |\n|---|---:|---:|---:|")
    plain = next(iter(seconds.values()))
    for name, call in calls.items():
        ratio, peak = plain / seconds[name], peak_megabytes(call, device)
        print(f"| {name} | {1e3 * seconds[name]:.2f} | {ratio:.2f} x | {peak:.0f} |", flush=True)
