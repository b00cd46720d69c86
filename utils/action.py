"""What an action is: a word after `--action`, and what stands behind it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from utils.settings import Settings


def no_defaults(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


class Action(NamedTuple):
    """What an action runs, its line of help, and its own defaults given the explicit settings.

    Its own help shows the `flags` that are made for it, and `examples`: what may stand after
    `python main.py --action NAME`. Of several processes the first one runs an action `alone`.
    """

    run: Callable[[Settings], None]
    help: str
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = no_defaults
    flags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ("",)
    alone: bool = False
