"""Define an action: a word after `--action`, and the code behind it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from utils.cli.common import CommandOptions
from utils.cli.options import Options, flags_of, joined


class Action(NamedTuple):
    """Code of an action, its line of help, and its own defaults given the explicit settings.

    Its own help shows the `flags` that are made for it, and `examples`: what may stand after
    `python main.py --action NAME`. Of several processes the first one runs an action `alone`.

    `flags` and `reads` (flags, or dataclasses of them) are all that it reads beside the flags that
    every action takes; `reads_to_score` only counts with `--validation_only True`. `options` are
    dataclasses of which it reads some flags. The command line has the flags of every dataclass
    that an action names.

    An action that `resumes` goes on where it stopped when the same command is given again, and
    does not need a reader of what it prints.
    """

    run: Callable[[Any], None]
    help: str
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _explicit: {}
    flags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ("",)
    alone: bool = False
    options: tuple[type[Options], ...] = ()
    reads: tuple[str | type[Options], ...] = ()
    reads_to_score: tuple[str | type[Options], ...] = ()
    resumes: bool = False

    def read_flags(self, *, scoring: bool) -> set[str]:
        """Return the names of the flags that change what it does, without those that every action
        takes; `scoring` is `--validation_only`."""
        return {*self.flags} | _names((*self.reads, *(self.reads_to_score if scoring else ())))

    def goes_on(self, settings: CommandOptions) -> bool:
        """Return whether the same command goes on where it stopped."""
        return self.resumes and not (settings.validation_only or settings.dry_run)


def _names(reads: Iterable[str | type[Options]]) -> set[str]:
    """Return the names of flags, and of the flags of dataclasses."""
    return {
        name
        for one in reads
        for name in ([one] if isinstance(one, str) else [field.name for field in flags_of(one)])
    }


def settings_type(actions: Mapping[str, Action]) -> Any:
    """Return the dataclass of a command's settings: the flags of every dataclass that one of the
    actions names."""
    named = (one for action in actions.values() for one in (*action.options, *action.reads))
    return joined(tuple(dict.fromkeys(one for one in named if not isinstance(one, str))))
