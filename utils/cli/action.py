"""What an action is: a word after `--action`, and what stands behind it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from utils.cli.settings import Settings, setting_fields

EVERYWHERE = (
    *("action", "config", "config_file", "validation_only", "debug", "seed", "save_model_path"),
    *("gta5_root", "cityscapes_root", "cache_dir", "num_workers"),
    *("device", "precision", "deterministic"),
)
"""Flags that every action takes: they name the machine and its folders, or forbid training."""

DECIDING = ("configs", "seeds", "dry_run", "runs", "input", "compare", "mbt_checkpoints")
"""Flags that say what to do, or on which files: an action that ignored one would do another job."""


def no_defaults(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


class Action(NamedTuple):
    """What an action runs, its line of help, and its own defaults given the explicit settings.

    Its own help shows the `flags` that are made for it, and `examples`: what may stand after
    `python main.py --action NAME`. Of several processes the first one runs an action `alone`.

    `flags`, `EVERYWHERE` and `reads` (flags, or groups of flags) are all that it reads;
    `reads_to_score` only counts with `--validation_only True`. An action that `resumes` goes on
    where it stopped when the same command is given again, and does not need a reader of what it
    prints.
    """

    run: Callable[[Settings], None]
    help: str
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = no_defaults
    flags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ("",)
    alone: bool = False
    reads: tuple[str, ...] = ()
    reads_to_score: tuple[str, ...] = ()
    resumes: bool = False

    def read_flags(self, *, scoring: bool) -> set[str]:
        """Names of the flags that change what it does; `scoring` is `--validation_only`."""
        names = {*EVERYWHERE, *self.flags, *self.reads, *(self.reads_to_score if scoring else ())}
        return {f.name for f in setting_fields() if {f.name, f.metadata["group"]} & names}

    def goes_on(self, settings: Settings) -> bool:
        """Whether the same command goes on where it stopped."""
        return self.resumes and not (settings.validation_only or settings.dry_run)
