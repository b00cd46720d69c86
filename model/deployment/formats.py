"""The runtimes of exported networks, and the kinds of file that they read."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from model.deployment.deployed import (
    Deployed,
    onnx_file,
    openvino_files,
    openvino_model,
    pt2_file,
)
from model.deployment.quantised import Goal, Quantised, onnx_in_8_bits, openvino_in_8_bits
from model.deployment.runtimes import AS_IT_RUNS, Runtime, onnx_runtime, openvino, torch_export
from utils.errors import UserError

Parts = Mapping[str, bytes]
"""The bytes of an exported network's file or files, by suffix."""


class Row(NamedTuple):
    """A runtime of exported networks, on the CPU.

    Attributes:
        title: its name in print.
        packages: what an export to it needs; the last is the runtime's own.
        run: the parts of a file and a precision -> the runtime. Raises UserError where it does not
            compute in that precision.
        in_8_bits: an ONNX file, images to calibrate on and a goal -> the network in 8 bits.
        for_8_bits: further packages that `in_8_bits` needs.
    """

    title: str
    packages: tuple[str, ...]
    run: Callable[[Parts, str], Runtime]
    in_8_bits: Callable[[bytes, Iterable[np.ndarray], Goal], Quantised] | None = None
    for_8_bits: tuple[str, ...] = ()


def _on_onnx_runtime(parts: Parts, precision: str) -> Runtime:
    if precision not in ("fp32", AS_IT_RUNS):
        raise UserError(
            f"ONNX Runtime computes the exported file in fp32, not in {precision}: name fp32 or "
            "int8"
        )
    return onnx_runtime(parts[".onnx"])


def _on_openvino(parts: Parts, precision: str) -> Runtime:
    if ".onnx" in parts:
        return openvino(parts[".onnx"], precision)
    return openvino(parts[".xml"], precision, parts[".bin"])


ONNX_RUNTIME = Row(
    "ONNX Runtime", ("onnx", "onnxscript", "onnxruntime"), _on_onnx_runtime, onnx_in_8_bits
)
OPENVINO = Row(
    "OpenVINO", ("onnx", "onnxscript", "openvino"), _on_openvino, openvino_in_8_bits, ("nncf",)
)
TORCH_EXPORT = Row("torch.export", (), lambda parts, _: torch_export(parts[".pt2"]))


class Format(NamedTuple):
    """A kind of exported file.

    Attributes:
        write: a network and its metadata -> the file, or the ONNX file that it is made of.
        parts: that file -> the parts.
        runtimes: what reads it. The first is that of its form in 8 bits, and the only one that must
            be installed.
    """

    write: Callable[[Deployed, Mapping[str, str]], bytes]
    parts: Callable[[bytes], Parts]
    runtimes: tuple[Row, ...]


FORMATS: Mapping[str, Format] = {
    ".onnx": Format(onnx_file, lambda model: {".onnx": model}, (ONNX_RUNTIME, OPENVINO)),
    ".xml": Format(onnx_file, lambda model: openvino_files(openvino_model(model)), (OPENVINO,)),
    ".pt2": Format(pt2_file, lambda model: {".pt2": model}, (TORCH_EXPORT,)),
}
"""The kinds of file by the suffix of `--output`."""
