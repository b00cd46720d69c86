"""Run folders as trainings leave them, with scores that a test chooses and without a training; and
the tables of a report."""

import json
from pathlib import Path

import numpy as np

import main
from datasets.data_set import Role
from datasets.labels import CLASS_NAMES
from trainings import catalog
from utils.cli.command_line import parse_settings
from utils.metrics import class_iou, mean_iou

IMAGES = 12
SOURCE, TARGET = "Toy City, synthetic look", "Toy City, real look"
SIZES = ("--image_size", "64", "96", "--base_width", "8", "--optimizer", "adamw")
BASELINE = ("train_simple_gta5",)
PLANNED = {
    "simple_cityscapes": ("train_simple_cityscapes",),
    "simple_gta5": BASELINE,
    "ada": ("train_ada",),
    "fda01": ("train_fda", "--fda_beta", "0.01"),
    "fda05": ("train_fda", "--fda_beta", "0.05"),
}
"""Some runs of a reproduction: the words after `--action` by the name of the folder."""


ADAPTED = "Source-only, target statistics"
"""A line of the tables whose numbers results.csv has in the rows of Source-only."""

KINDS_TABLE = "## Best epoch and target statistics"


def _line(step, value):
    """Return number, method and beta of a line of the tables."""
    if step.flag == "fda_beta":
        return step.number, step.title, f"{value:g}"
    if step.domain is Role.SOURCE:
        return step.number, f"{step.title}, on the source", ""
    return step.number, step.title_with(value) if step.flag else step.title, ""


LINES = [_line(s, value) for s in catalog.STEPS if s.domain for value in s.values or (None,)]


def markdown_rows(path, heading):
    """Return the cells of the rows below a heading of results.md by step, method, config, beta."""
    part = path.read_text().split(heading)[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in row] for row in rows]
    return {tuple(row[:4]): row[4:] for row in rows[2:]}


def write_run(
    folder: Path,
    *words: str,
    share: float,
    adapted: float,
    images: int = IMAGES,
    unlabelled: str = "",
    scored_on: str = "",
    data_set: str = TARGET,
) -> None:
    """Write a finished run of two epochs.

    Args:
        words: those after `--action`.
        share: of the pixels of each class that are right on the target; `adapted` with the target's
            batch-norm statistics.
        unlabelled: a target without labels: the run scores itself on its source alone.
        scored_on: the data set that such a run was scored on afterwards.
        data_set: what the target's scores are of.
    """
    settings = parse_settings(["--action", *words, *SIZES], main.ACTIONS)
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({**settings.to_json(), "weights": "random"}))
    (folder / "latest.pth").touch()
    columns, watched = "epoch,loss,train_seconds,val/mIoU", ""
    if unlabelled:  # three quarters of the entropy, and that share of road
        columns += ",target/entropy,target_share/road,target_share/sky"
        watched = f",0.75,{share},{1 - share}"
    (folder / "history.csv").write_text(
        f"{columns}\n1,3.5,1.0,{share / 2}{watched}\n2,2.5,1.0,{share}{watched}\n"
    )
    on_source = bool(unlabelled) or settings.action in ("train_simple_gta5", "train_source")
    rng = np.random.default_rng(settings.seed)
    plain, other = _counts(share, images, rng), _counts(adapted, images, rng)
    supervised = ("train_simple_gta5", "train_source", "train_simple_cityscapes", "train_target")
    target = None if settings.action in supervised else unlabelled or "Cityscapes"
    made = {
        "training": {
            "source": "Cityscapes" if "cityscapes" in settings.action else "GTA5",
            "source_data_set": TARGET if "cityscapes" in settings.action else SOURCE,
            "target": target,
            "target_data_set": target and (unlabelled or TARGET),
            "images": 16,
            "target_images": target and 16,
        },
        "validation": _validation("GTA5" if on_source else "Cityscapes", images, data_set),
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "versions": {"torch": "2.6"},
        "git_revision": "0" * 40,
        "finished": "2026-01-01T00:00:00+0000",
    }
    own = {"last": _scores(plain), "best": _scores(plain), "mean_epoch_seconds": 1.0, **made}
    own |= {"last_target_statistics": _scores(other)} if target and not unlabelled else {}
    if settings.action == "train_dacs" and not unlabelled:
        names = ("last_average", "last_average_target_statistics")
        own |= dict(zip(names, map(_scores, (other, plain)), strict=True))
    (folder / "scores.json").write_text(json.dumps(own))
    if unlabelled and not scored_on:
        return
    for checkpoint, statistics, counts in (
        ("latest", "training", plain),
        ("latest", "target", other),
        ("best", "training", plain),
    ):
        name = f"validation_cityscapes_{checkpoint}_{statistics}"
        record = {
            "checkpoint": str(folder / f"{checkpoint}.pth"),
            **_scores(counts),
            **made,
            "bn_statistics": statistics,
            "validation": _validation(scored_on or "Cityscapes", images, scored_on or data_set),
            "settings": settings.to_json(),
        }
        (folder / f"{name}.json").write_text(json.dumps(record))
        names = np.array([f"image {number}" for number in range(images)])
        np.savez(folder / f"{name}.npz", names=names, counts=counts)


def write_reproduction(folder: Path, seeds=(0, 1)) -> None:
    """Write the runs of `PLANNED` where a reproduction would have them, the later the better."""
    for seed in seeds:
        for place, (name, words) in enumerate(PLANNED.items()):
            share = 0.3 + 0.05 * place + 0.01 * seed
            run = folder / "adamw" / f"seed{seed}" / f"{name}_adamw_noaug"
            write_run(run, *words, "--seed", str(seed), share=share, adapted=share + 0.05)


def _counts(share: float, images: int, rng: np.random.Generator) -> np.ndarray:
    """Return confusion counts [images, 19, 19]; the last class is nowhere, the one before it is
    never found."""
    classes = len(CLASS_NAMES)
    counts = np.zeros((images, classes, classes), np.int32)
    for image in range(images):
        for one in range(classes - 1):
            found = 0 if one == classes - 2 else round(1000 * (share + rng.uniform(-0.05, 0.05)))
            counts[image, one, one] = found
            counts[image, one, 0] += 1000 - found
    return counts


def _scores(counts: np.ndarray) -> dict:
    total = counts.sum(0)
    iou = [None if np.isnan(share) else share for share in class_iou(total)]
    return {
        "pixel_accuracy": float(np.trace(total) / total.sum()),
        "mIoU": float(mean_iou(total)),
        "class_IoU": dict(zip(CLASS_NAMES, iou, strict=True)),
    }


def _validation(domain: str, images: int, data_set: str = TARGET) -> dict:
    return {
        "domain": domain,
        "data_set": SOURCE if domain == "GTA5" else data_set,
        "images": images,
        "fingerprint": f"{domain} {images}",
        "image_size": [64, 96],
        "scales": [],
        "flip": False,
        "label_sizes": [[64, 96]],
    }
