"""The network as it is shipped, and the files that hold it: ONNX, OpenVINO's, torch.export's."""

import copy
import importlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from model.network import Network
from model.stdcnet import HalvingPool
from utils.errors import UserError

CLASSES, LOGITS = "classes", "logits"
"""Kinds of output of a shipped network, and the names of the output."""

IMAGE = "image"
"""The name of its input."""

SMALLEST_SIDE = 64
EXAMPLE_SHAPE = (2, 3, 96, 160)
"""Shape of the images that an export traces. torch takes sizes of 0 and 1 as fixed, so none is
used."""

ONNX_OPSET = 18
FIRST_TORCH_WITH_ONNX = "2.7"
"""2.6 does not convert enlarging to a size that is not fixed."""

METADATA_FILE = "metadata.json"

METADATA_SECTION = "model_info"
"""Where a file of OpenVINO holds its metadata (`rt_info`)."""


class Deployed(nn.Module):
    """Images, uint8 RGB [N, 3, H, W] -> class map, uint8 [N, H, W], or logits, float32
    [N, num_classes, H, W].

    Args:
        network: folded, on the CPU where it is to be written, of at most 256 classes.
        output: `CLASSES` or `LOGITS`.
    """

    def __init__(self, network: Network, output: str = CLASSES):
        super().__init__()
        self.network, self.output = network, output

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network.main_logits(image).float()  # under autocast they are not
        logits = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=True)
        return logits if self.output == LOGITS else logits.argmax(1).to(torch.uint8)


def onnx_file(network: Deployed, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file, weights and metadata inside. It needs the packages onnx and onnxscript.

    Raise UserError where this torch cannot write it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its converter
            program = torch.onnx.export(
                _traceable(network),
                _example(),
                dynamo=True,
                dynamic_shapes=_dynamic_shapes(),
                opset_version=ONNX_OPSET,
                input_names=[IMAGE],
                output_names=[network.output],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"torch {torch.__version__} cannot write this network as ONNX: use torch "
            f"{FIRST_TORCH_WITH_ONNX} or newer, or export a .pt2"
        ) from error
    assert program is not None, "with dynamo=True torch returns the program"
    model = program.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def pt2_file(network: Deployed, metadata: Mapping[str, str]) -> bytes:
    """Return a file for `torch.export.load`, with its metadata as JSON in the extra file
    `METADATA_FILE`."""
    file = io.BytesIO()
    program = torch.export.export(
        _traceable(network), _example(), dynamic_shapes=_dynamic_shapes(), strict=False
    )
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)})
    return file.getvalue()


def openvino_files(model: Any) -> dict[str, bytes]:
    """Return the two files of an `openvino.Model` by their suffixes."""
    package = importlib.import_module("openvino")
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        package.serialize(model, graph, weights)
        return {".xml": graph.read_bytes(), ".bin": weights.read_bytes()}


def openvino_model(onnx_model: bytes) -> Any:
    """Return the `openvino.Model` of an ONNX file, with its metadata."""
    onnx, package = map(importlib.import_module, ("onnx", "openvino"))
    model = package.Core().read_model(onnx_model)
    for entry in onnx.load_from_string(onnx_model).metadata_props:
        model.set_rt_info(entry.value, [METADATA_SECTION, entry.key])
    return model


class MeanByConvolution(nn.Module):
    """Average pooling, padding counted, as a convolution of each channel."""

    def __init__(self, pool: HalvingPool):
        super().__init__()
        assert isinstance(pool.kernel_size, int)
        self.side, self.stride, self.padding = pool.kernel_size, pool.stride, pool.padding

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = x.new_full((channels, 1, self.side, self.side), 1 / self.side**2)
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=channels)


class BinsByProduct(nn.Module):
    """Adaptive average pooling as products with one matrix per side."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d):
        super().__init__()
        assert isinstance(pool.output_size, int)
        self.bins = pool.output_size

    def forward(self, x: Tensor) -> Tensor:
        if self.bins == 1:  # a product with a matrix of one row is not traced for every size
            return x.mean((2, 3), keepdim=True)
        return self._means(x.shape[-2], x) @ x @ self._means(x.shape[-1], x).mT

    def _means(self, size: int, like: Tensor) -> Tensor:
        """Return [bins, size]: row i averages the places floor(i size / bins) up to, but not
        including, ceil((i + 1) size / bins)."""
        place = torch.arange(size, device=like.device)
        number = torch.arange(self.bins, device=like.device)[:, None]
        begun = place >= number * size // self.bins
        inside = (begun & (place * self.bins < (number + 1) * size)).to(like.dtype)
        return inside / inside.sum(1, keepdim=True)


TRACEABLE: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    HalvingPool: MeanByConvolution,
    nn.AdaptiveAvgPool2d: BinsByProduct,
}
"""Modules that torch 2.6 to 2.9 trace for some sizes only, with what stands for each."""


def _traceable(network: Deployed) -> Deployed:
    """Return a copy that is traced for every size."""
    result = copy.deepcopy(network).eval()
    for module in list(result.modules()):
        for name, child in module.named_children():
            if replacement := TRACEABLE.get(type(child)):
                setattr(module, name, replacement(child))
    return result


def _example() -> tuple[Tensor]:
    return (torch.zeros(EXAMPLE_SHAPE, dtype=torch.uint8),)


def _dynamic_shapes() -> dict[str, dict[int, Dim]]:
    """Allow any batch, and any size from `SMALLEST_SIDE`."""
    height, width = Dim("height", min=SMALLEST_SIDE), Dim("width", min=SMALLEST_SIDE)
    return {IMAGE: {0: Dim("batch", min=1), 2: height, 3: width}}
