"""Toy City, and the recipe that trains on it in minutes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.options import ToyOptions
from datasets.toy_city import make_toy_city
from trainings.options import Settings
from trainings.reproduction.steps import Step
from utils import processes
from utils.errors import UsageError
from utils.utils import progress

SELF_TRAINING_BETAS = (0.05,)
"""Betas of self-training in the demo: one, for time."""


def demo_steps(steps: Sequence[Step]) -> list[Step]:
    """Return the steps of the demo: all, with fewer betas of self-training."""
    return [
        replace(step, values=SELF_TRAINING_BETAS)
        if step.found and step.flag == "fda_beta"
        else step
        for step in steps
    ]


def recipe(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults that train on Toy City in minutes on a CPU, given the explicit flags."""
    toy_root = explicit.get("toy_root", ToyOptions.toy_root)
    image_size = explicit.get("image_size", explicit.get("toy_size", ToyOptions.toy_size))
    chosen = {"optimizer", "config", "configs"} & set(explicit)
    length = {} if "num_steps" in explicit else {"num_epochs": 15}
    validation = {} if "validation_steps" in explicit else {"validation_step": 5}
    optimizer = {} if chosen else {"optimizer": "adamw", "learning_rate": 8e-3}
    return {
        **optimizer,
        **_roots(toy_root),
        "image_size": image_size,
        "source_resize": image_size,
        "base_width": 32,
        "batch_size": 4,
        **length,
        **validation,
        "ohem": True,
        "discriminator": "light",
        "select": "last",
    }


def _roots(toy_root: Path) -> dict[str, Path]:
    """Return the folders of the two data sets that Toy City stands for, by their flags."""
    return {"gta5_root": toy_root / "GTA5", "cityscapes_root": toy_root / "Cityscapes"}


def refuse_other_data(settings: Settings) -> None:
    """Raise UsageError where the command names other data than Toy City."""
    usual = {
        **{"source": Settings.source, "target": Settings.target},
        **{"source_root": None, "target_root": None},
        **_roots(ToyOptions.of(settings).toy_root),
    }
    for flag, value in usual.items():
        if getattr(settings, flag) != value:
            raise UsageError(
                f"argument --{flag}: demo draws and trains on Toy City, at --toy_root; "
                "--action reproduce takes your data"
            )


def make_toy_data(settings: Settings) -> None:
    """Draw Toy City under `--toy_root`, once."""
    toy = ToyOptions.of(settings)
    if processes.is_first():
        make_toy_city(
            toy.toy_root,
            train=toy.toy_train,
            val=toy.toy_val,
            size=toy.toy_size,
            seed=settings.seed,
            workers=settings.workers,
            progress=progress,
        )
    processes.wait_for_all()
    roots = (f"--{flag} {root}" for flag, root in _roots(toy.toy_root).items())
    print(f"Toy City: {' '.join(roots)}", flush=True)
