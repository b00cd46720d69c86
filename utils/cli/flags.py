"""The command line's flags: argparse's view of the settings of a table of actions."""

import argparse
import dataclasses
import difflib
import shlex
import sys
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.cli.action import Action, settings_type
from utils.cli.options import GROUPS, flags_of, kind_of
from utils.cli.terminal import error_word

PROGRAM = "main.py"
USAGE = f"{PROGRAM} --action ACTION [--flag value ...]"


class FlagParser(argparse.ArgumentParser):
    """Parses words into the settings that they name, and no others.

    Args:
        actions: what `--action` may be; their settings are the flags there are.
        fields: those that are shown or parsed, by default all.
        place: where the words are from, for errors; empty for the command line.
    """

    def __init__(
        self,
        actions: Mapping[str, Action],
        fields: Sequence[dataclasses.Field] | None = None,
        *,
        place: str = "",
        **texts: Any,
    ):
        super().__init__(
            prog=PROGRAM,
            usage=USAGE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=False,
            **texts,
        )
        self.actions, self.place = tuple(actions), place
        self.kind = settings_type(actions)
        groups: dict[str, Any] = {}
        for field in flags_of(self.kind) if fields is None else fields:
            topic = field.metadata["group"]
            if topic not in groups:
                groups[topic] = self.add_argument_group(topic, GROUPS[topic])
            groups[topic].add_argument(f"--{field.name}", **self._options(field))

    def settings(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the settings that the words name, by name, lists as tuples; leave through `error`
        where one is wrong."""
        known, unknown = self.parse_known_args(words)
        if unknown and "help" not in known:
            self.error(self._unknown(unknown[0]))
        return {
            # An empty word has become the default of a list, which is empty.
            name: tuple(one for one in value if one != ()) if isinstance(value, list) else value
            for name, value in vars(known).items()
        }

    def described(self, field: dataclasses.Field) -> tuple[str, str]:
        """Return a flag with the values that it takes, and its help."""
        options = self._options(field)
        values = options.get("metavar") or field.name.upper()
        if isinstance(values, tuple):
            values = " ".join(values)
        elif options.get("nargs") == "+":
            values = f"{values} ..."
        elif options.get("nargs") == "?":
            values = f"[{values}]"
        return f"--{field.name} {values}", options["help"].replace("%%", "%")

    def repeated(self, words: Sequence[str]) -> list[str]:
        """Return the names of the flags that stand in the words more than once."""
        flags = Counter(word.partition("=")[0] for word in words if word.startswith("--"))
        return [
            action.dest
            for action in self._actions
            if sum(flags[name] for name in action.option_strings) > 1
        ]

    def error(self, message: str) -> typing.NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{PROGRAM}: {error_word()} {self.place and f'{self.place}: '}{message}\n")

    def _unknown(self, word: str) -> str:
        flag = word.partition("=")[0]
        if flag.startswith("-"):
            flags = [name for action in self._actions for name in action.option_strings]
            return f"{flag}: no such flag{nearest(flag, flags) or '; --help all lists them'}"
        meant = f"; did you mean --action {word}?" if word in self.actions else ""
        glob = "; quote a pattern of files, as in 'photos/*.png'" if Path(word).exists() else ""
        return f"{word!r} belongs to no flag{meant or glob}"

    def _options(self, field: dataclasses.Field) -> dict[str, Any]:
        """Return how argparse takes a field."""
        kind = _kind(kind_of(self.kind, field))
        options: dict[str, Any] = {"help": _help(field)}
        if field.name == "action":
            return options | {"type": _choice(self.actions), "metavar": "ACTION"}
        if choices := field.metadata["choices"]:
            return options | {"type": _choice(choices), "metavar": f"{{{','.join(choices)}}}"}
        if kind is bool:
            return options | {
                "type": _boolean,
                "nargs": "?",
                "const": True,
                "metavar": "True|False",
            }
        several = typing.get_origin(kind) is tuple
        elements = typing.get_args(kind) if several else (kind,)
        nargs = "+" if Ellipsis in elements else len(elements)
        return options | {
            "type": _checked(elements[0], field),
            "nargs": nargs if several else None,
            "metavar": field.metadata["metavar"] or {int: "N", float: "X"}.get(kind),
        }


def words_of(flags: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line that stand for flags by name; None stands for no flag, a
    list or tuple for several words."""
    words: list[str] = []
    for name, value in flags.items():
        if value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{name}", *map(str, values)]
    return words


def command_line(flags: Mapping[str, Any]) -> str:
    """Return the command with these flags, among them the action, as a user would type it."""
    return shlex.join(["python", PROGRAM, *words_of(flags)])


def nearest(word: str, names: Iterable[str]) -> str:
    """Return words that suggest the name that was meant; empty where none is near."""
    known = {name.lower().replace("-", "_"): name for name in names}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _help(field: dataclasses.Field) -> str:
    text, default = field.metadata["help"], field.default
    if default is None or default is False or default in ("", ()) or "(default" in text:
        return text
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def _kind(hint: Any) -> Any:
    """Return the type of a field without its `| None`, or without the `| str` of its word."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return hint


def _choice(choices: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in choices:
            return text
        meant = nearest(text, choices) or f"; choose from {', '.join(choices)}"
        raise argparse.ArgumentTypeError(f"there is no {text!r}{meant}")

    return parse


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False") from None


def _checked(kind: type, field: dataclasses.Field) -> Callable[[str], Any]:
    """Return a parser of one word. An empty word stands for the default, as an unset notebook
    variable; an empty path does so only where its flag says that it may."""
    nouns = {int: "a whole number", float: "a number"}

    def parse(text: str) -> Any:
        if not text.strip() and kind is Path and not field.metadata["may_be_empty"]:
            raise argparse.ArgumentTypeError("the path is empty: name one, or leave the flag out")
        if text == "" and kind not in nouns:
            return field.default
        if text == field.metadata["word"]:
            return text
        try:
            value = kind(text)
        except ValueError:
            word = f" or {word}" if (word := field.metadata["word"]) else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {nouns[kind]}{word}") from None
        try:
            if field.metadata["check"]:
                field.metadata["check"](value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
        return value

    return parse
