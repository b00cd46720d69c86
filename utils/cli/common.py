"""The flags of every command: what it does, on which machine, and the run on disk."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.cli.checks import above, at_least, folder_name, seed_range
from utils.cli.options import ACTION, HARDWARE, RUN, TRAINING, Options, flag
from utils.disk.files import REPOSITORY

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "config1": {"optimizer": "adam", "batch_size": 4},
    "config2": {"optimizer": "sgd", "batch_size": 4},
}
"""Flags that each `--config` stands for."""

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionOptions(Options, group=ACTION):
    """Choice of the action and of its variants."""

    action: str = flag("", "the step to run; main.py --help lists them", everywhere=True)
    config: str | None = flag(
        None,
        "preset: config1 is adam with batch size 4, config2 is sgd with batch size 4; "
        "an explicit flag beats the preset",
        choices=tuple(PRESETS),
        affects_result=False,
        everywhere=True,
    )
    config_file: Path | None = flag(
        None,
        "JSON file of settings by name, --action too; a run's settings.json runs it again. "
        "Explicit flags beat it, it beats the preset; --overwrite only counts as a flag",
        metavar="FILE",
        affects_result=False,
        everywhere=True,
    )
    dry_run: bool = flag(
        False,
        "reproduce, demo: print the plan with estimated times, and do nothing; a training prints "
        "what its --recipe sets",
        affects_result=False,
        decides=True,
    )
    validation_only: bool = flag(
        False,
        "with a training action: do not train, score --load_model_path (or the best checkpoint of "
        "that run) on the action's validation split",
        affects_result=False,
        everywhere=True,
    )
    debug: bool = flag(
        False, "show the traceback of an error, too", affects_result=False, everywhere=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOptions(Options, group=TRAINING):
    """Seed of every random draw."""

    seed: int = flag(
        0,
        "seed of the weights, of the order of images and of every random draw",
        check=seed_range,
        everywhere=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Options, group=RUN):
    """Folders of runs, and how often runs are written."""

    save_model_path: Path = flag(
        REPOSITORY / "checkpoints",
        "folder of all runs (default: checkpoints beside main.py)",
        metavar="FOLDER",
        affects_result=False,
        everywhere=True,
    )
    save_keyword: str | None = flag(
        None,
        "name of the run's folder, or of an ensemble's or of pictures' (default: derived, such as "
        "simple_gta5_adam_aug); val_gta5_transfer scores the run of that name, whatever its "
        "--optimizer",
        check=folder_name,
        metavar="NAME",
        affects_result=False,
    )
    checkpoint_step: int = flag(
        1, "epochs between checkpoints", check=at_least(1), affects_result=False
    )
    checkpoint_steps: int | None = flag(
        None,
        "updates between checkpoints, in place of --checkpoint_step",
        check=at_least(1),
        replaces="checkpoint_step",
        affects_result=False,
    )
    checkpoint_minutes: float = flag(
        10.0,
        "longest time between checkpoints, within an epoch, too",
        check=above(0),
        affects_result=False,
    )
    validation_step: int = flag(
        1, "epochs between validations; the last epoch is always one", check=at_least(1)
    )
    validation_steps: int | None = flag(
        None,
        "updates between validations, in place of --validation_step; history.csv then has a row "
        "for each validation instead of each epoch",
        check=at_least(1),
        replaces="validation_step",
    )
    log_every: int = flag(10, "steps between log entries", check=at_least(1), affects_result=False)
    overwrite: bool = flag(
        False,
        "start afresh where a run of this name exists (without it, the same command continues "
        "the run, and another one is refused)",
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardwareOptions(Options, group=HARDWARE):
    """Hardware that the command uses."""

    device: str = flag(
        "auto",
        "device of the networks; auto takes CUDA where there is one",
        choices=("auto", "cpu", "cuda"),
        affects_result=False,
        everywhere=True,
    )
    precision: str = flag(
        "auto",
        "arithmetic of the network: auto is bf16 on GPUs and CPUs that have instructions for it, "
        "fp16 with loss scaling on older GPUs with tensor cores, fp32 elsewhere (bf16 is many "
        "times slower on a CPU without AMX or AVX512-BF16); tf32 is fp32 with products in TF32, on "
        "GPUs from Ampere on. A run that has not finished may go on in another precision",
        choices=("auto", *PRECISIONS),
        everywhere=True,
    )
    compile: bool = flag(
        False,
        "torch.compile for the networks in training: a minute or more to begin with, then faster "
        "on most GPUs",
    )
    deterministic: bool = flag(
        False,
        "on CUDA: algorithms whose results repeat to the bit, where torch has them; a warning "
        "names the others. Slower, convolutions above all; on the CPU results repeat anyway",
        affects_result=False,
        everywhere=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandOptions(HardwareOptions, RunOptions, SeedOptions, ActionOptions):
    """The flags of every command, and which of all flags its line held."""

    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    """Names of the flags that the command line held; no flag itself."""

    def explicit(self) -> dict[str, Any]:
        """Return the flags that the command line held, with their values."""
        return {name: value for name, value in self.values().items() if name in self.given}
