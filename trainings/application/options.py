"""The flags of the actions that use a finished network."""

import dataclasses
import re
from pathlib import Path

from datasets.options import MIN_IMAGE_SIDE
from model.catalog import NETWORKS
from utils.cli.checks import at_least, one_of, probability
from utils.cli.common import PRECISIONS
from utils.cli.options import DEPLOYMENT, PREDICTION, SCORING, Options, flag

INT8 = "int8"

MEASURED_PRECISIONS = (*PRECISIONS, INT8)
"""Every precision that the benchmark can measure."""

BACKENDS = ("eager", "compiled", "onnxruntime", "openvino")
"""Every runtime that the benchmark can use."""


def image_size_word(value: str) -> None:
    """Raise ValueError unless the word is a size such as 512x1024."""
    sides = re.fullmatch(r"(\d+)x(\d+)", value)
    if not sides or min(map(int, sides.groups())) < MIN_IMAGE_SIDE:
        raise ValueError(f"is not HxW, such as 512x1024, of at least {MIN_IMAGE_SIDE} a side")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureOptions(Options, group=SCORING):
    """The pictures of `visualize`."""

    compare: tuple[Path, ...] = flag(
        (),
        "visualize: checkpoints to show side by side (default: every run of --source, --target "
        "and --optimizer)",
        metavar="FILE",
        affects_result=False,
        decides=True,
    )
    picture_index: int = flag(
        0,
        "visualize: the fixed image, by its place in the validation split",
        check=at_least(0),
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionOptions(Options, group=PREDICTION):
    """Files that `predict` and `export` read and write."""

    input: Path | None = flag(
        None,
        "predict: an image, a folder of images and of folders of them, a quoted glob such as "
        "'a/**/*.png', or a video (with PyAV), which becomes a video of the colours and an overlay",
        metavar="PATH",
        affects_result=False,
        decides=True,
    )
    side_by_side: bool = flag(
        False,
        "predict: overlays beside their pictures, in pictures and videos twice as wide",
        affects_result=False,
    )
    output: Path | None = flag(
        None,
        "predict: folder of the results (default: predictions_<run>/<input's name> under "
        "--save_model_path); export: file, .onnx, .xml for OpenVINO, or .pt2 for torch.export "
        "(default: beside the checkpoint, .onnx)",
        metavar="PATH",
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeploymentOptions(Options, group=DEPLOYMENT):
    """Flags for the output of `export` and the measurements of `benchmark`."""

    export_output: str = flag(
        "classes",
        "output of an exported network: the class of each pixel, or the classes' logits",
        choices=("classes", "logits"),
        affects_result=False,
    )
    int8: bool = flag(
        False,
        "export: in 8 bits, for ONNX Runtime (.onnx) or OpenVINO (.xml, with nncf): calibrated on "
        "up to 256 training images of the target and compared with the float network; layers that "
        "change too many classes stay in float",
        affects_result=False,
    )
    int8_min_agreement: float = flag(
        0.98,
        "export --int8: least share of the pixels that keep the class of the float network; below "
        "it the export fails, and its file's name ends in _rejected",
        check=probability,
        only_with="int8",
        affects_result=False,
    )
    sizes: tuple[str, ...] = flag(
        (),
        "benchmark: sizes of the image, such as 512x1024 768x1536 (default: --image_size)",
        check=image_size_word,
        metavar="HxW",
        affects_result=False,
    )
    networks: tuple[str, ...] = flag(
        (),
        f"benchmark: networks to measure side by side, of {', '.join(NETWORKS)} (default: that of "
        "--network)",
        check=one_of(*NETWORKS),
        metavar="NAME",
        affects_result=False,
    )
    precisions: tuple[str, ...] = flag(
        (),
        f"benchmark: precisions to measure, of {', '.join(MEASURED_PRECISIONS)} (default: fp32 and "
        "what --precision auto takes)",
        check=one_of(*MEASURED_PRECISIONS),
        metavar="NAME",
        affects_result=False,
    )
    backends: tuple[str, ...] = flag(
        (),
        f"benchmark: runtimes to measure, of {', '.join(BACKENDS)} (default: those installed, "
        "without compiled, which takes minutes)",
        check=one_of(*BACKENDS),
        metavar="NAME",
        affects_result=False,
    )
