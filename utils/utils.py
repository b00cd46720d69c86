"""Devices, precision, seeds, folders and versions."""

import contextlib
import errno
import hashlib
import os
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils import processes
from utils.cli.terminal import LogLines
from utils.disk.files import REPOSITORY
from utils.errors import UsageError, UserError, check_is_file

LOG_FILE_INTERVAL = 15.0
"""Seconds between progress lines where they cannot be overwritten in place."""

TF32 = "tf32"
"""The `--precision` that is float32 but for its products, which are rounded to TensorFloat-32."""

DTYPES = {
    "fp32": torch.float32,
    TF32: torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Types for autocast, by the names of `--precision`."""

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""Words of errors of torch, CUDA, cuBLAS, cuDNN and NCCL."""

BF16_CAPABILITY, FP16_CAPABILITY = (8, 0), (7, 0)
"""CUDA compute capabilities from which tensor cores take the type; TF32 comes with bfloat16."""

BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""x86 extensions that multiply bfloat16; without one it is several times slower than float32."""


def resolve_device(name: str) -> torch.device:
    """Return the device of `--device`; auto takes CUDA where there is one.

    Raise UsageError where there is no GPU, or one that this torch was not built for.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("argument --device: torch sees no CUDA GPU here; use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        _check_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    return torch.device(name)


def _check_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> None:
    """Raise UsageError unless one of the architectures runs on a GPU of that compute capability:
    `sm_86` does on 8.6 to 8.9, `compute_80` (PTX, compiled at the start) on everything from 8.0
    on."""
    known = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", word) for word in built_for]
    for kind, *version in (match.groups() for match in known if match):
        major, minor = map(int, version)
        same = capability[0] == major and capability[1] >= minor
        if same or (kind == "compute" and capability >= (major, minor)):
            return
    if any(known):  # other words are those of other makers' GPUs
        raise UsageError(
            f"argument --device: torch {torch.__version__} has no kernels for "
            f"{torch.cuda.get_device_name()} (compute capability {'.'.join(map(str, capability))}; "
            f"it was built for {', '.join(built_for)}): install a build that has them, for a V100 "
            "or older one of CUDA 12.6 (https://pytorch.org/get-started/previous-versions), or use "
            "--device cpu"
        )


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of autocast for `--precision`; float32 stands for no autocast."""
    if name == "fp16" and device.type == "cpu":
        raise UsageError("argument --precision: fp16 needs a CUDA GPU; use fp32 or bf16 on a CPU")
    if name == TF32 and (device.type == "cpu" or _is_older(device)):
        raise UsageError(
            "argument --precision: tf32 needs a CUDA GPU of the Ampere generation or newer "
            "(compute capability 8.0); use fp32"
        )
    if name == "auto":
        return _best_precision(device)
    return DTYPES[name]


def slow_precision(name: str, device: torch.device) -> str | None:
    """Return a note, with the remedy, where a `--precision` is slow on this GPU; None elsewhere."""
    if name != "bf16" or device.type == "cpu" or not _is_older(device):
        return None
    return (
        f"note: {torch.cuda.get_device_name()} has no instructions for bf16, which is slow on GPUs "
        "before Ampere; --precision fp16, or auto, is faster"
    )


def _is_older(gpu: torch.device) -> bool:
    """Return whether a GPU is older than Ampere."""
    return torch.cuda.get_device_capability(gpu) < BF16_CAPABILITY


def _best_precision(device: torch.device) -> torch.dtype:
    """Return the fastest type that costs no mIoU beyond the spread of seeds
    (benchmarks/precision.py), as long as weights, updates, losses, softmax and FDA stay float32,
    which they do."""
    if device.type == "cpu":
        return torch.bfloat16 if bf16_instructions() else torch.float32
    if not _is_older(device):
        return torch.bfloat16
    capability = torch.cuda.get_device_capability(device)
    return torch.float16 if capability >= FP16_CAPABILITY else torch.float32


def precision_name(precision: torch.dtype) -> str:
    """Return the name of a precision in print and in files, such as `bfloat16`."""
    return str(precision).removeprefix("torch.")


def arithmetic(name: str, device: torch.device) -> str:
    """Return the name of the type that a `--precision` means on this device, or `tf32`."""
    precision = resolve_precision(name, device)
    return TF32 if name == TF32 else precision_name(precision)


@contextlib.contextmanager
def float32_products(name: str) -> Iterator[None]:
    """Let CUDA compute float32 convolutions and matrix products inside the block in true float32,
    or in TF32 where that is the `--precision`; torch's own default is TF32 in convolutions
    alone."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    _allow_tf32(name == TF32, "high" if name == TF32 else "highest")
    try:
        yield
    finally:
        _allow_tf32(*before)


def _allow_tf32(in_convolutions: bool, in_matrix_products: str) -> None:
    torch.backends.cudnn.allow_tf32 = in_convolutions
    torch.set_float32_matmul_precision(in_matrix_products)


@contextlib.contextmanager
def shapes_that_repeat() -> Iterator[None]:
    """Let cuDNN choose its algorithms inside the block by trial at the first use of a shape, unless
    `ask_for_determinism` was called."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def bf16_instructions() -> list[str]:
    """Return the `BF16_INSTRUCTIONS` of this CPU; none where an older torch cannot tell."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in BF16_INSTRUCTIONS if capabilities.get(name)]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Return the context of autocast to a type; float32 turns it off."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def ask_for_determinism() -> None:
    """Ask for algorithms whose results repeat, before CUDA is touched; torch warns where it has
    none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself with it
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, on the CPU or the GPU, whose libraries have no exception for
    it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = any(words in str(error) for words in OUT_OF_MEMORY)
    return told or getattr(error, "errno", None) == errno.ENOMEM


def find_input(path: Path, flag: str) -> Path:
    """Return an existing file or folder; a relative one is looked for here, then beside main.py.

    Raise UserError naming the flag and every place that was tried.
    """
    places = [path] if path.is_absolute() else [Path.cwd() / path, REPOSITORY / path]
    for place in places:
        if place.exists():
            return place
    tried = " nor at ".join(map(str, dict.fromkeys(places)))
    raise UserError(f"--{flag} {path}: there is nothing at {tried}; put it there or name its place")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex. Raise UserError where it cannot be read."""
    check_is_file(path)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def progress(items: Iterable[Any] | None, description: str, **options: Any) -> tqdm:
    """Return the first process's progress bar with rate and time left; in a log file it prints a
    line now and then."""
    if not processes.is_first():
        options["disable"] = True
    sys.stdout.flush()  # in a log, what was printed before stands before
    description = getattr(sys.stderr, "prefix", "") + description
    if sys.stderr.isatty():
        return tqdm(items, desc=description, dynamic_ncols=True, **options)
    lines = LogLines(sys.stderr)
    return tqdm(items, desc=description, mininterval=LOG_FILE_INTERVAL, file=lines, **options)
