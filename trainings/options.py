"""The flags of training and scoring, and the settings that most of this room reads."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from datasets.options import FOLDER, BatchOptions, DataSettings
from model.options import NetworkOptions
from trainings.recipes import RECIPES
from utils.cli.checks import above, at_least, share
from utils.cli.options import (
    ADAPTATION,
    SCORING,
    TRAINING,
    Follows,
    Options,
    flag,
    flags_of,
    names_in,
)

NAMED = frozenset(("source", "target"))
"""Flags that name data sets."""


class OptimizerDefaults(NamedTuple):
    """Default values that an optimiser brings along."""

    learning_rate: float
    head_lr_mult: float
    weight_decay: float


OPTIMIZERS: Mapping[str, OptimizerDefaults] = {
    "sgd": OptimizerDefaults(learning_rate=0.01, head_lr_mult=10.0, weight_decay=5e-4),
    "adam": OptimizerDefaults(learning_rate=1e-3, head_lr_mult=1.0, weight_decay=5e-4),
    "adamw": OptimizerDefaults(learning_rate=1e-3, head_lr_mult=1.0, weight_decay=0.01),
    "rmsprop": OptimizerDefaults(learning_rate=1e-3, head_lr_mult=1.0, weight_decay=5e-4),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthOptions(Options, group=TRAINING):
    """Length of a training."""

    num_epochs: int = flag(50, "passes over the source's training split", check=at_least(1))
    num_steps: int | None = flag(
        None,
        "updates of the whole training, in place of --num_epochs; 40000 in many papers",
        check=at_least(1),
        replaces="num_epochs",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions(Options, group=TRAINING):
    """The loss and the optimiser of the network, for every method alike."""

    optimizer: str = flag("sgd", "optimiser of the network", choices=tuple(OPTIMIZERS))
    learning_rate: float = flag(
        None,
        "learning rate of the backbone (default: 0.01 for sgd, 0.001 for the others)",
        check=above(0),
        follows=Follows("optimizer", lambda name: OPTIMIZERS[name].learning_rate),
    )
    head_lr_mult: float = flag(
        None,
        "factor on the learning rate of feature fusion and heads (default: 10 for sgd, 1 for the "
        "others)",
        check=above(0),
        follows=Follows("optimizer", lambda name: OPTIMIZERS[name].head_lr_mult),
    )
    weight_decay: float = flag(
        None,
        "weight decay, none on norms and biases (default: 0.01 for adamw, 0.0005 for the others)",
        check=at_least(0),
        follows=Follows("optimizer", lambda name: OPTIMIZERS[name].weight_decay),
    )
    warmup_steps: int | None = flag(
        None,
        "steps in which the learning rate rises linearly, before it falls to zero (default: 5%% of "
        "all steps, at most 1000)",
        check=at_least(0),
    )
    poly_power: float = flag(
        0.9,
        "exponent with which the network's learning rate falls to zero; 1 is a straight line",
        check=above(0),
    )
    ohem: bool = flag(
        False,
        "train on the hard pixels only (online hard example mining), which each process of "
        "torchrun chooses among its own",
    )
    detail_guidance: bool = flag(
        False,
        "a further head, for training only, learns from the source's labels where classes border "
        "on each other (STDC's paper)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodOptions(StepOptions, group=ADAPTATION):
    """Flags that a method reads. A method with flags of its own declares a subclass in its file."""

    @classmethod
    def own_flags(cls) -> tuple[str, ...]:
        """Return the names of the flags that not every method has."""
        return tuple(f.name for f in flags_of(cls) if f.metadata["group"] == ADAPTATION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelOptions(MethodOptions):
    """Folder of the pseudo-labels, for the methods that learn from them."""

    pseudo_label_path: Path | None = flag(
        None,
        "folder of the pseudo-labels, made or trained on (default: pseudo_labels_<optimizer> under "
        "--save_model_path, for later rounds with the round; generate_pseudo_labels "
        "--load_model_path: labels_<run of the teacher>); labels of any origin will do",
        metavar="FOLDER",
        affects_result=False,
    )
    accept_pseudo_labels: bool = flag(
        False,
        "train on pseudo-labels of another size, or whose checkpoints have changed since",
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftOptions(Options, group=ADAPTATION):
    """The form of pseudo-labels, where they are made."""

    soft: bool = flag(
        False,
        "generate_pseudo_labels: keep the probabilities of the three best classes of each pixel, "
        "and no thresholds",
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(StepOptions, BatchOptions, LengthOptions, group=TRAINING):
    """A training beside its method and its data."""

    clip_grad_norm: float | None = flag(
        None,
        "largest norm of an optimiser's gradient; a longer one is scaled down to it",
        check=above(0),
        metavar="NORM",
    )
    ema_decay: float = flag(
        0.0,
        "weights averaged over the steps, m <- decay m + (1 - decay) w, are scored and saved "
        "beside the trained ones, as ema.pth; such as 0.999, 0 for none",
        check=share,
    )
    rare_class_temperature: float = flag(
        0.0,
        "rare class sampling (DAFormer): draw a class c of the source with probability "
        "softmax((1 - its share of the pixels) / T), then an image that holds enough of it; T "
        "such as 0.01, the lower the more often rare classes; 0 takes all images alike",
        check=at_least(0),
        metavar="T",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeOptions(Options, group=TRAINING):
    """A name for many flags of a training."""

    recipe: str | None = flag(
        None,
        "train as a paper does: stdc or mmseg for supervised training, daformer for adaptation; "
        "--dry_run prints the flags that it sets, and an explicit flag beats it",
        choices=tuple(RECIPES),
        affects_result=False,  # the flags that it sets do,
        decides=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringOptions(Options, group=SCORING):
    """Which weights and statistics are scored."""

    select: str = flag(
        "best",
        "checkpoint of a run that is scored: the epoch with the best mIoU on its validation split, "
        "the last one, or its averaged weights (--ema_decay)",
        choices=("best", "last", "ema"),
        affects_result=False,
    )
    watch_target: bool = flag(
        False,
        "print indicators and draw pictures of the target after every validation, although its "
        "labels are scored, or the network is trained on the source alone; a run that adapts to a "
        "target without labels always does so",
        affects_result=False,
    )
    score_target: bool = flag(
        False,
        "score a network that is trained on the source alone on the target, too, after every "
        "validation: the domain gap over time, as target/mIoU in history.csv",
        affects_result=False,
    )
    bn_statistics: str = flag(
        "training",
        "batch-norm statistics of a network that is scored: those of its training, or target: "
        "re-estimated on the training images (no labels) of the domain it is scored on",
        choices=("training", "target"),
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleOptions(Options, group=SCORING):
    """The networks that predict together."""

    mbt_checkpoints: tuple[Path, ...] = flag(
        (),
        "MBT: checkpoints of the ensemble (default: the runs of the three betas)",
        metavar="FILE",
        affects_result=False,
        decides=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(DataSettings, ScoringOptions, TrainingOptions, NetworkOptions):
    """All settings but those that only some actions or methods have.

    Those stand in dataclasses of their own, which `SomeOptions.of(settings)` takes from the
    settings of a command.
    """

    def run_name(self, stem: str) -> str:
        """Return the name of the run, such as `fda01_adam_aug` for the stem `fda{fda_beta}`.

        A stem may hold the name of any flag, as it is written in names (`flag(in_name=...)`). One
        that holds neither source nor target gets both, unless they are the usual ones.
        """
        if self.save_keyword:
            return self.save_keyword
        augmented = "aug" if self.aug_method else "noaug"
        pair = "" if NAMED & {*names_in(stem)} else self.pair()
        return f"{self.filled(stem)}{pair}_{self.optimizer}_{augmented}"

    def filled(self, stem: str) -> str:
        names = {role: self.short_name(role) for role in NAMED}
        for role, name in names.items():
            stem = stem.replace(f"{{{role}}}", name)
        return super().filled(stem)

    def pair(self) -> str:
        """Return the end of a name that tells source and target; empty for the usual ones."""
        if (self.source, self.target) == (Settings.source, Settings.target):
            return ""
        return f"_{self.short_name('source')}_to_{self.short_name('target')}"

    def short_name(self, role: str) -> str:
        """Return the name of the source or target: of a folder that of the folder itself."""
        name, root = getattr(self, role), getattr(self, f"{role}_root")
        return re.sub(r"[^\w-]+", "_", root.resolve().stem) if name == FOLDER else name

    def scored_plainly(self) -> "Settings":
        """Return the same, with validation of one view of each image, at `--image_size`."""
        return dataclasses.replace(self, eval_scales=(), eval_flip=False)
