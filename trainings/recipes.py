"""Named recipes: the flags with which a paper trains, and the score that it published."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from utils.cli.options import Options, flags_of, replacements


class Recipe(NamedTuple):
    """A way to train.

    Attributes:
        source: the paper or code that trains so.
        adapts: whether it is for adaptation; else it is for supervised training.
        images: labelled images of an update.
        values: the flags that it sets.
        published: the score that its source names, in words.
        differs: what of its source the flags do not copy.
        score_with: flags that score a trained network as the source does; None where a training
            does that anyway. A training itself scores one view of each image, at `--image_size`.
    """

    source: str
    adapts: bool
    images: int
    values: Mapping[str, Any]
    published: str
    differs: str
    score_with: str | None = None


_SGD = {
    "batch_size": 16,
    "accumulate_steps": 3,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 5e-4,
    "warmup_steps": 1000,
    "poly_power": 0.9,
    "ohem": True,
    "detail_guidance": True,
    "validation_steps": 2000,
    "image_size": (512, 1024),
    "aug_method": "B-C-S-HF",
    "aug_probability": 1.0,
}

RECIPES: Mapping[str, Recipe] = {
    "stdc": Recipe(
        "STDC-Seg (Fan et al., CVPR 2021, official code)",
        adapts=False,
        images=48,
        values={
            **_SGD,
            "num_steps": 60_000,
            "head_lr_mult": 10.0,
            "train_scales": (0.125, 1.5, 0.125),
        },
        published=(
            "STDC1 on Cityscapes val: 72.2 mIoU at --eval_scales 0.5, 74.5 at 0.75, from ImageNet "
            "weights"
        ),
        differs="batch norm sees --batch_size images, the paper's 48 lay on several GPUs",
        score_with="--validation_only True --eval_scales 0.75",
    ),
    "mmseg": Recipe(
        "mmsegmentation's STDC",
        adapts=False,
        images=48,
        values={
            **_SGD,
            "num_steps": 80_000,
            "head_lr_mult": 1.0,
            "train_scales": (0.5, 2.0),
        },
        published="STDC1 on Cityscapes val: 75.1 mIoU at --eval_scales 1 from ImageNet weights, "
        "71.5 from scratch",
        differs="its colours change by other ranges, its crops hold at most 75 % of one class, and "
        "its learning rate ends at 1e-4",
        score_with="--validation_only True --eval_scales 1",
    ),
    "daformer": Recipe(
        "DAFormer (Hoyer et al., CVPR 2022)",
        adapts=True,
        images=2,
        values={
            "num_steps": 40_000,
            "batch_size": 2,
            "accumulate_steps": 1,
            "optimizer": "adamw",
            "learning_rate": 6e-5,
            "head_lr_mult": 10.0,
            "weight_decay": 0.01,
            "warmup_steps": 1500,
            "poly_power": 1.0,
            "validation_steps": 2000,
            "image_size": (512, 512),
            "source_resize": (720, 1280),
            "rare_class_temperature": 0.01,
        },
        published="GTA5 to Cityscapes: 56 mIoU with DeepLabV2-R101, nothing for STDC",
        differs="it sets the optimiser and the sizes, and not what the method itself does",
    ),
}
"""Every `--recipe`."""


def values_of(explicit: Mapping[str, Any], kind: type[Options]) -> dict[str, Any]:
    """Return what the recipe of a command sets, beside its explicit flags.

    A flag that follows another, or stands in the place of another, is left out where that one is
    explicit. An explicit batch size changes the number of batches in an update.

    Args:
        explicit: flags by name.
        kind: the dataclass of all flags.
    """
    if explicit.get("recipe") is None:
        return {}
    recipe = RECIPES[explicit["recipe"]]
    values = {**recipe.values, "accumulate_steps": _passes(recipe, explicit)}
    beaten_by = {new: old for old, new in replacements(kind).items()}
    for field in flags_of(kind):
        if follows := field.metadata["follows"]:
            beaten_by[field.name] = follows.name
    beaten = {name for name in values if beaten_by.get(name) in explicit}
    return {name: value for name, value in values.items() if name not in beaten}


def _passes(recipe: Recipe, explicit: Mapping[str, Any]) -> int:
    """Return the batches of an update that come nearest to the recipe's images."""
    return max(1, round(recipe.images / explicit.get("batch_size", recipe.values["batch_size"])))


def in_words(name: str, settings: Options) -> str:
    """Return each flag that a recipe sets, with its value in these settings, and what its source
    has published."""
    recipe, now = RECIPES[name], settings.values()
    width = max(map(len, recipe.values))
    lines = [f"--recipe {name}: {recipe.source}"]
    for flag, value in recipe.values.items():
        other = "" if now[flag] == value else f"  (the recipe has {_word(value)})"
        lines.append(f"  --{flag:{width}} {_word(now[flag])}{other}")
    images = now["batch_size"] * now["accumulate_steps"]
    lines += [
        f"{images} labelled images an update (the recipe has {recipe.images})",
        f"published: {recipe.published}",
        *filter(None, [how_to_score(name)]),
        f"not the same: {recipe.differs}",
        "measured with this code on real data: nothing yet",
    ]
    return "\n".join(lines)


def how_to_score(name: str) -> str | None:
    """Return a line with the flags that score a trained network as the recipe's source does; None
    where a training does that anyway."""
    words = RECIPES[name].score_with
    return f"to score as published: the same command with {words}" if words else None


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
