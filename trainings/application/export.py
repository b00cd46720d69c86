"""A trained network as a file for other programs, compared with PyTorch before it is written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from datasets.catalog import data_set, has_labels, root_of, unlabelled
from datasets.data_set import Role
from datasets.labels import CITYSCAPES
from datasets.reading import read_image
from datasets.toy_city import draw_scene
from model.catalog import RECORDED
from model.deployment.deployed import (
    CLASSES,
    IMAGE,
    LOGITS,
    SMALLEST_SIDE,
    Deployed,
)
from model.deployment.formats import FORMATS, Format, Parts
from model.deployment.runtimes import Runtime, is_installed, require
from model.network import Network
from trainings.application.eight_bits import calibration, in_8_bits
from trainings.application.options import DeploymentOptions, PredictionOptions
from trainings.options import Settings
from trainings.scoring.checkpoints import load_checkpoints
from trainings.scoring.record import refuse_views
from trainings.scoring.runs import checkpoints_found
from trainings.scoring.trained import as_trained, with_data_of_run
from utils.disk.machine import git_revision, versions
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.text import dimensions, in_percent
from utils.utils import file_digest, find_input

ONNX = ".onnx"

IN_8_BITS, REJECTED = "_int8", "_rejected"
"""Ends of names: of a file in 8 bits by default, and of one that is not good enough."""

TOLERANCE = 1e-3
"""Largest difference of logits that counts as rounding, as a share of the largest logit."""

PICTURES = 3
"""Pictures that an export is compared on: one alone, and two as a batch of another size."""

OTHER_SIZE = 0.625
"""Size of the second test batch as a share of the first picture's sides; the sides become odd."""


class Difference(NamedTuple):
    """How an exported network differs from PyTorch.

    Attributes:
        pixels: share of the pixels whose class is another one, 0 to 1.
        logits: the largest difference; of class maps, by how much PyTorch's logit of a class that
            was taken lies below that of its own.
        scale: the largest of PyTorch's logits, of either sign.
    """

    pixels: float
    logits: float
    scale: float

    @property
    def is_rounding(self) -> bool:
        return self.logits <= TOLERANCE * self.scale  # not where one of them is NaN

    def __str__(self) -> str:
        if self.pixels == self.logits == 0:
            return "the same class at every pixel"
        return (
            f"{in_percent(self.pixels, 4)} % of the pixels of another class, by logits at most "
            f"{self.logits:.1e} apart (the largest is {self.scale:.1f})"
        )


def export(settings: Settings) -> None:
    """Write `--load_model_path` to `--output`, once it gives on pictures what PyTorch gives.

    With `--int8` it is written in 8 bits, and under another name if too many pixels change their
    class. Raise UserError then, where it does not give what PyTorch gives, or where packages are
    missing.
    """
    refuse_views(settings)
    checkpoint, path = _paths(settings)
    settings = with_data_of_run(as_trained(settings, checkpoint), checkpoint)
    options = DeploymentOptions.of(settings)
    form = FORMATS[path.suffix]
    row = form.runtimes[0]
    require("--action export", *row.packages)
    metadata = {}
    if options.int8:
        require("--int8", *row.for_8_bits)
        images = calibration(settings)
        metadata["int8"] = f"calibrated on {images}"
    (network,) = load_checkpoints([checkpoint], Role.TARGET, settings)
    network = network.to("cpu").to(memory_format=torch.contiguous_format)
    print(f"exporting to {path.suffix}, which takes a while", flush=True)
    metadata = _metadata(checkpoint, settings) | metadata
    model = form.write(Deployed(network, options.export_output), metadata)
    parts = form.parts(model)
    batches = _batches(_pictures(settings), settings.image_size)
    _verify(_runtimes(form, parts), network, batches, options.export_output)
    kept = 1.0
    if options.int8:
        parts, kept = in_8_bits(row, model, parts, images, settings)
    rejected = kept < options.int8_min_agreement
    _write(parts, path.with_stem(path.stem + REJECTED) if rejected else path, settings)
    if rejected:
        older = f" ({path.name} is of an earlier export)" if path.exists() else ""
        raise UserError(
            "in 8 bits, with the best choice of layers in float that was found, only "
            f"{in_percent(kept)} % of the pixels keep their class, --int8_min_agreement asks "
            f"for {in_percent(options.int8_min_agreement)} %: the file is kept as "
            f"{path.stem}{REJECTED}{path.suffix} for you to look at{older}; ask for less, or "
            "export without --int8"
        )


def _paths(settings: Settings) -> tuple[Path, Path]:
    """Return the checkpoint, and the file that it becomes."""
    if not settings.load_model_path:
        raise UsageError(
            "--action export needs a checkpoint: name it with --load_model_path, such as "
            f"checkpoints/ada_sgd_noaug/best.pth{checkpoints_found(settings)}"
        )
    int8 = DeploymentOptions.of(settings).int8
    checkpoint = find_input(settings.load_model_path, "load_model_path")
    usual = checkpoint.with_name(f"{checkpoint.stem}{IN_8_BITS if int8 else ''}{ONNX}")
    path = PredictionOptions.of(settings).output or usual
    known = [name for name, form in FORMATS.items() if form.runtimes[0].in_8_bits or not int8]
    if path.suffix not in known:
        raise UsageError(
            f"argument --output: {path} must end in {', '.join(known[:-1])} or {known[-1]}"
            + (" with --int8" if int8 else "")
        )
    return checkpoint, path


def _write(parts: Parts, path: Path, settings: Settings) -> None:
    """Write each part beside the others, the one with the path's own suffix last."""
    for suffix in sorted(parts, key=lambda suffix: suffix == path.suffix):
        RunFolder(path.parent, "output").write_bytes(path.stem + suffix, parts[suffix])
    size = sum(map(len, parts.values())) / 1e6
    print(
        f"{path} ({size:.1f} MB): {IMAGE}, uint8 RGB [batch, 3, height, width] -> "
        f"{_output_in_words(settings)}; any batch, sides from {SMALLEST_SIDE}"
    )


def _output_in_words(settings: Settings) -> str:
    output = DeploymentOptions.of(settings).export_output
    if output == CLASSES:
        return f"{CLASSES}, uint8 [batch, height, width]"
    return f"{output}, float32 [batch, {len(settings.class_table)}, height, width]"


def _metadata(checkpoint: Path, settings: Settings) -> dict[str, str]:
    """Return the metadata that an exported file carries."""
    classes = settings.class_table
    values = "train ids of Cityscapes" if classes == CITYSCAPES else "places in class_names"
    return {
        "input": "RGB images of 0 to 255, uint8 [batch, 3, height, width]; it normalises them",
        "output": f"{_output_in_words(settings)}; {values}",
        "class_names": json.dumps(classes.names),
        "class_ids": json.dumps(classes.ids),
        "palette": json.dumps(classes.colors),
        "image_size": json.dumps(settings.image_size),
        "checkpoint": f"{checkpoint.resolve().parent.name}/{checkpoint.name}",
        "checkpoint_sha256": file_digest(checkpoint),
        "bn_statistics": settings.bn_statistics,
        **{name: str(getattr(settings, name)) for name in RECORDED},
        "versions": json.dumps(versions()),
        "git_revision": git_revision() or "",
    }


def _pictures(settings: Settings) -> list[np.ndarray]:
    """Return a few of the target's validation images, of its training images if it has no labels to
    validate on, or else scenes of Toy City; uint8 [H, W, 3]."""
    try:
        split = "val" if has_labels(Role.TARGET, "val", settings) else "train"
        files = unlabelled(Role.TARGET, split, settings)
        places = np.linspace(0, len(files) - 1, PICTURES).round().astype(int)
        chosen = [files[place] for place in places]
        pictures = [read_image(one.image, photo=one.photo) for one in chosen]
    except UserError as error:
        print(f"compared on scenes of Toy City ({error})")
        seeds = range(PICTURES)
        return [draw_scene(seed, settings.image_size, "camera").image for seed in seeds]
    root = root_of(Role.TARGET, settings)
    print(f"compared on images of {data_set(Role.TARGET, settings)} ({root})")
    return pictures


def _batches(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> list[Tensor]:
    """Return a picture at that size, and the others as a batch of another, odd size; both are uint8
    [N, 3, H, W]."""
    first, *others = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
    odd = [max(SMALLEST_SIDE, int(side * OTHER_SIZE)) | 1 for side in size]
    batches = [transforms.resize(first, list(size))], [transforms.resize(p, odd) for p in others]
    return [torch.stack(batch).contiguous() for batch in batches]


def _runtimes(form: Format, parts: Parts) -> dict[str, Runtime]:
    """Return all that can run such a file here, by name."""
    rows = [row for row in form.runtimes if all(map(is_installed, row.packages))]
    return {row.title: row.run(parts, "fp32") for row in rows}


def _verify(
    runtimes: Mapping[str, Runtime],
    network: Network,
    batches: Sequence[Tensor],
    output: str,
) -> None:
    """Raise UserError where a runtime differs by more than rounding from the network itself, in
    float32 on the CPU; print the largest differences."""
    for images in batches:
        with torch.inference_mode():
            logits = network(images)
        shape = dimensions((len(images), *images.shape[-2:]))
        for name, run in runtimes.items():
            difference = _difference(torch.from_numpy(run(images.numpy())), logits, output)
            print(f"{name} and PyTorch on {shape}: {difference}", flush=True)
            if not difference.is_rounding:
                raise UserError(
                    f"nothing was written: {name} does not give what PyTorch gives on {shape} "
                    f"pixels, {difference}; {TOLERANCE:g} of the largest logit is allowed: try "
                    "other versions of what requirements-export.txt names"
                )


def _difference(given: Tensor, logits: Tensor, output: str) -> Difference:
    """Return how an exported network's output differs from PyTorch's logits [N, C, H, W]."""
    scale, classes = logits.abs().max().item(), logits.argmax(1)
    if output == LOGITS:
        largest, chosen = (given - logits).abs().max().item(), given.argmax(1)
    else:
        chosen = given.long()
        largest = (logits.amax(1) - logits.gather(1, chosen[:, None])[:, 0]).max().item()
    return Difference((chosen != classes).float().mean().item(), largest, scale)
