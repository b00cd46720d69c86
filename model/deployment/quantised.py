"""Exported networks in 8 bits: by ONNX Runtime's own quantiser, and for OpenVINO by nncf.

Both begin with every layer in 8 bits. Where too many pixels change their class, the layers that
cost the most go back to float, one after another.
"""

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from model.deployment.deployed import IMAGE, openvino_files, openvino_model
from model.deployment.runtimes import AS_IT_RUNS, Runtime, onnx_runtime, openvino
from utils.errors import UserError
from utils.signals import signal_stack_kept
from utils.text import in_percent

Images = Sequence[np.ndarray]
"""Images, uint8 [1, 3, H, W] each; their sizes may differ."""

Quantiser = Callable[[Sequence[str]], bytes]
"""Quantises a model but for the nodes of these names."""

MOST_IN_FLOAT = 10
"""At most so many of about 45 layers go back to float; with more, 8 bits gain little."""

CONVOLUTIONS = ("Convolution", "GroupConvolution")
"""OpenVINO's names of the layers that are counted; ONNX has one."""


class Goal(NamedTuple):
    """The share of the float network's classes that a network in 8 bits must keep.

    Attributes:
        images: what both are compared on.
        classes: for each image the float network's class map, [1, H, W].
        minimum: the least agreement, 0 to 1.
    """

    images: Images
    classes: Images
    minimum: float

    def agreement(self, run: Runtime) -> float:
        """Return the share of an image's pixels that keep their class, as a mean over images."""
        pairs = zip(self.images, self.classes, strict=True)
        return float(np.mean([same_classes(run(image), classes) for image, classes in pairs]))


class Quantised(NamedTuple):
    """A network in 8 bits.

    Attributes:
        parts: the bytes of its file or files by suffix.
        layers: how many convolutions it has.
        in_float: the names of those that are left in float.
    """

    parts: dict[str, bytes]
    layers: int
    in_float: tuple[str, ...]


def class_map(output: np.ndarray) -> np.ndarray:
    """Return the classes [N, H, W] of a shipped network's output, which may be logits."""
    return output.argmax(1) if output.ndim == 4 else output


def same_classes(output: np.ndarray, classes: np.ndarray) -> float:
    """Return the share of pixels, 0 to 1, of which a shipped network's output gives the class."""
    return float((class_map(output) == classes).mean())


def onnx_in_8_bits(model: bytes, calibration: Iterable[np.ndarray], goal: Goal) -> Quantised:
    """Quantise an ONNX file for ONNX Runtime: activations and, per channel, weights.

    Weights have 8 bits, or 7 where those keep more classes: without VNNI instructions a CPU adds up
    two products in 16 bits, in which those of 8-bit weights saturate.

    Each layer (a convolution with what follows it) is left in float alone, on the goal's images;
    those that help the most then go back to float together until the goal is reached. Without
    success the result is the form that comes nearest.
    """
    with _quiet():
        quantiser = _onnx_quantiser(model, calibration)
        layers = _onnx_layers(model)
        quantise, (best, reached) = max(
            ((form, _tried(form, (), goal)) for form in (quantiser(bits) for bits in (8, 7))),
            key=lambda tried: tried[1][1],
        )
        if reached < goal.minimum:
            alone = {name: _tried(quantise, layers[name], goal)[1] for name in layers}
            ranked = sorted(layers, key=lambda name: alone[name], reverse=True)
            for count in range(1, MOST_IN_FLOAT + 1):
                left_out = [node for name in ranked[:count] for node in layers[name]]
                form, agreement = _tried(quantise, left_out, goal)
                if agreement > reached:
                    best, reached = form, agreement
                if reached >= goal.minimum:
                    break
    return Quantised({".onnx": best}, len(layers), _float_layers_of_onnx(best))


def openvino_in_8_bits(model: bytes, calibration: Iterable[np.ndarray], goal: Goal) -> Quantised:
    """Quantise an ONNX file for OpenVINO: by nncf, which chooses the layers that stay in float.

    The first convolution always does: in float it takes OpenVINO no more time, and a fifth to a
    third fewer pixels change their class.
    """
    nncf = importlib.import_module("nncf")
    names = {node.name: _layer_name(node) for node in _onnx_convolutions(model)}
    with _quiet(), signal_stack_kept():
        float_model = openvino_model(model)
        # nncf lets OpenVINO choose the precision, so the float model may change classes, too.
        own = goal.agreement(openvino(model, AS_IT_RUNS))
        if own < goal.minimum:
            raise UserError(
                f"--int8_min_agreement {goal.minimum:g} is out of reach on this CPU: OpenVINO's "
                f"own float keeps the class of {in_percent(own)} % of the pixels: ask for less"
            )
        quantised = nncf.quantize_with_accuracy_control(
            float_model,
            nncf.Dataset(calibration),
            nncf.Dataset(list(zip(goal.images, goal.classes, strict=True))),
            _validated,
            max_drop=own - goal.minimum,
            preset=nncf.QuantizationPreset.MIXED,  # faster here than the other, and no worse
            ignored_scope=nncf.IgnoredScope(patterns=[f"{next(iter(names))}(/.*)?$"]),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=MOST_IN_FLOAT, ranking_subset_size=len(goal.images)
            ),
        )
    in_float = tuple(names[name] for name in _float_layers_of_openvino(quantised))
    return Quantised(openvino_files(quantised), len(names), in_float)


def _validated(
    compiled: Any, pairs: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, list[float]]:
    """Return the agreement of a compiled model with the classes, and that of each image."""
    values = [same_classes(compiled(image)[0], classes) for image, classes in pairs]
    return float(np.mean(values)), values


def _onnx_quantiser(model: bytes, calibration: Iterable[np.ndarray]) -> Callable[[int], Quantiser]:
    """Measure the range of each tensor on the images. Return a function of the weights' bits, 7 or
    8, that returns the quantiser."""
    onnx, quantization = map(importlib.import_module, ("onnx", "onnxruntime.quantization"))
    inputs = ({IMAGE: image} for image in calibration)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    registries = importlib.import_module("onnxruntime.quantization.registry")
    kinds = list({*registries.QLinearOpsRegistry, *registries.QDQRegistry})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(inferred.SerializeToString())
        calibrator = quantization.create_calibrator(
            path, kinds, augmented_model_path=str(Path(folder, "augmented.onnx"))
        )
        calibrator.collect_data(SimpleNamespace(get_next=lambda: next(inputs, None)))
        ranges = calibrator.compute_data()

    def quantise(weight_bits: int, left_out: Sequence[str]) -> bytes:
        copied = onnx.ModelProto()
        copied.CopyFrom(inferred)
        quantiser = quantization.QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=weight_bits == 7,
            weight_qType=quantization.QuantType.QInt8,
            activation_qType=quantization.QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=list(left_out),
            op_types_to_quantize=kinds,
            extra_options={},
        )
        quantiser.quantize_model()
        return quantiser.model.model.SerializeToString()

    return lambda weight_bits: partial(quantise, weight_bits)


def _tried(quantise: Quantiser, left_out: Sequence[str], goal: Goal) -> tuple[bytes, float]:
    form = quantise(left_out)
    return form, goal.agreement(onnx_runtime(form))


def _onnx_layers(model: bytes) -> dict[str, list[str]]:
    """Return the names of the nodes of each layer: a convolution and what follows up to the next
    one."""
    onnx = importlib.import_module("onnx")
    layers: dict[str, list[str]] = {}
    nodes: list[str] = []
    for node in onnx.load_from_string(model).graph.node:
        if node.op_type == "Conv":
            nodes = layers.setdefault(_layer_name(node), [])
        nodes.append(node.name)
    return layers


def _onnx_convolutions(model: bytes) -> list[Any]:
    onnx = importlib.import_module("onnx")
    return [node for node in onnx.load_from_string(model).graph.node if node.op_type == "Conv"]


def _layer_name(node: Any) -> str:
    """Return the name of an ONNX convolution's module, which that of its weight begins with."""
    return node.input[1].removeprefix("network.").removesuffix(".weight")


def _float_layers_of_onnx(model: bytes) -> tuple[str, ...]:
    onnx = importlib.import_module("onnx")
    floats = {tensor.name for tensor in onnx.load_from_string(model).graph.initializer}
    return tuple(_layer_name(n) for n in _onnx_convolutions(model) if n.input[1] in floats)


def _float_layers_of_openvino(model: Any) -> list[str]:
    """Return the ONNX names of an `openvino.Model`'s convolutions by float weights."""
    found = []
    for layer in model.get_ordered_ops():
        if layer.get_type_name() in CONVOLUTIONS:
            weight = layer.input_value(1).get_node()
            while weight.get_type_name() in ("Reshape", "Convert"):
                weight = weight.input_value(0).get_node()
            if weight.get_type_name() == "Constant" and weight.get_element_type().is_real():
                found.append(layer.get_friendly_name().partition("/")[0])
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own progress and advice away from the output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
