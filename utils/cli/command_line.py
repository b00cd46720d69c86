"""The command line: a flag for each field of the settings; the door that all settings pass."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils import processes
from utils.cli.action import Action, settings_type
from utils.cli.common import PRESETS, CommandOptions
from utils.cli.flags import FlagParser, nearest
from utils.cli.help import help_text, version
from utils.cli.options import flags_of, replacements
from utils.disk.run_folder import INPUTS, USED_PRECISIONS
from utils.errors import UserError, check_is_file

OF_ONE_COMMAND = ("config_file", "overwrite")
"""Flags that a file's word does not count for: `settings.json` has them, and whoever runs it again
does not mean to throw away what it has made."""


def parse_settings(argv: Sequence[str], actions: Mapping[str, Action]) -> Any:
    """Return the settings of a command line; print help, or leave with exit code 2 where they are
    wrong.

    A value is the explicit flag's, else that of `--config_file`, else the preset's, else the
    action's default, else the field's. An action's defaults may follow from the first two.
    Prints which flags count for nothing.
    """
    parser = FlagParser(actions)
    parser.add_argument("-h", "--help", nargs="?", const="")
    parser.add_argument("--version", action="store_true")
    explicit = asked = parser.settings(argv)
    if "version" in explicit:
        print(version())
        parser.exit()
    for old, new in replacements(parser.kind).items():
        if old in explicit and new in explicit:
            parser.error(f"argument --{new}: it replaces --{old}; give one of them")
    if "help" in explicit:
        _show_help(parser, explicit["help"] or explicit.get("action", ""), actions)
    if path := explicit.get("config_file"):
        of_file = _of_file(path, explicit, actions)
        if of_file.get("action") in (None, explicit.get("action", of_file.get("action"))):
            asked = {**of_file, **explicit}  # else the file is another action's, with its flags
        explicit = {**of_file, **explicit}
    if not explicit.get("action"):
        parser.error(f"--action is missing: one of {', '.join(actions)}; --help says what they do")
    preset = PRESETS.get(explicit.get("config", ""), {})
    merged = {**actions[explicit["action"]].defaults(explicit), **preset, **explicit}
    settings = settings_type(actions)(**merged, given=frozenset(explicit))
    if problem := settings.inconsistency():
        parser.error(problem)
    unread = _unread(settings, asked, actions[settings.action])
    if deciding := [field.name for field in unread if field.metadata["decides"]]:
        parser.error(_cannot_take(deciding[0], settings.action, actions))
    if processes.started_rank() == 0:
        for name in parser.repeated(argv):
            value = _shown(explicit[name])
            print(f"note: --{name} is given more than once; the last one counts: {value}")
        if unread:
            names = ", --".join(field.name for field in unread)
            print(f"note: {settings.action} makes no use of --{names}")
    return settings


def _unread(
    settings: CommandOptions, asked: Mapping[str, Any], action: Action
) -> list[dataclasses.Field]:
    """Return the flags that the user has set to another value than the default, and the action
    ignores, in the order of their names."""
    read = action.read_flags(scoring=settings.validation_only)
    unread = (
        field
        for field in flags_of(type(settings))
        if field.name in asked
        and field.name not in read
        and not field.metadata["everywhere"]
        and getattr(settings, field.name) != field.default
    )
    return sorted(unread, key=lambda field: field.name)


def _cannot_take(name: str, action: str, actions: Mapping[str, Action]) -> str:
    """Return in one sentence why a flag of other actions is refused."""
    others = [other for other, one in actions.items() if name in one.read_flags(scoring=True)]
    return (
        f"argument --{name}: {action} cannot take it: leave it out, or choose an action that "
        f"reads it ({', '.join(others)})"
    )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _show_help(parser: FlagParser, asked: str, actions: Mapping[str, Action]) -> None:
    try:
        print(help_text(asked, actions), end="")
    except ValueError as error:
        parser.error(f"--help: {error}")
    parser.exit()


def _of_file(
    path: Path, explicit: Mapping[str, Any], actions: Mapping[str, Action]
) -> dict[str, Any]:
    """Return the settings of a JSON file such as a run's settings.json, checked as if they were
    flags.

    What only followed from a setting that an explicit flag changes is left out, to follow again;
    of another action's settings what is at its default, and the checkpoint that it started from.
    """
    parser = FlagParser(actions, place=f"--config_file {path}")
    words = [
        word
        for name, value in _read(path, parser).items()
        if value is not None and value != []
        for word in _words(name, value)
    ]
    settings = parser.settings(words)
    fields = flags_of(parser.kind)
    following = {f.name: f.metadata["follows"].name for f in fields if f.metadata["follows"]}
    changed = {n for n, of in following.items() if of in settings and of in explicit}
    before = parser.kind(**{n: v for n, v in settings.items() if n not in following})
    left_out = {n for n in changed if settings.get(n) == getattr(before, n)}
    for pair in replacements(parser.kind).items():
        if not explicit.keys().isdisjoint(pair):
            left_out |= set(pair)
    left_out |= set(PRESETS.get(explicit.get("config", ""), {}))
    if settings.get("action") and explicit.get("action", settings["action"]) != settings["action"]:
        defaults = {field.name: field.default for field in fields}
        left_out |= {"load_model_path", *(n for n, v in settings.items() if v == defaults[n])}
    return {n: v for n, v in settings.items() if n not in left_out}


def _read(path: Path, parser: FlagParser) -> dict[str, Any]:
    """Return the file's values by the names of settings."""
    if path.is_dir():
        parser.error(f"it is a folder: name the file, such as {path / 'settings.json'}")
    try:
        check_is_file(path)
        values = json.loads(path.read_text(encoding="utf-8"))
    except UserError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"it cannot be read ({error.strerror}): name a run's settings.json")
    except (ValueError, RecursionError) as error:
        parser.error(f"it is not JSON ({error}): name a JSON file, such as a run's settings.json")
    names, others = [field.name for field in flags_of(parser.kind)], (*INPUTS, USED_PRECISIONS)
    if not isinstance(values, dict):
        parser.error("it should hold settings by name, as a run's settings.json does")
    if unknown := [name for name in values if name not in (*names, *others)]:
        meant = nearest(unknown[0], names) if len(unknown) == 1 else ""
        parser.error(f"no such setting: {', '.join(unknown)}{meant}")
    return {n: v for n, v in values.items() if n not in (*others, *OF_ONE_COMMAND)}


def _words(name: str, value: Any) -> list[str]:
    """Return the flag and the words that stand for a JSON value."""
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"]
