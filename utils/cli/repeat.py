"""The command that repeats a run, from the settings that the run has recorded."""

import shlex
from collections.abc import Mapping
from typing import Any

from utils.cli.settings import Settings, derived_defaults, setting_fields

OF_ONE_COMMAND = ("config", "config_file", "overwrite", "debug")
"""Settings that say how a command was typed, not what it does."""


def repeating_command(settings: Mapping[str, Any]) -> str:
    """Return the command line that means these settings, given as JSON types by name.

    It holds the flags whose values are not their defaults.
    """
    names = [field.name for field in setting_fields()]
    known = {name: value for name, value in settings.items() if name in names}
    usual = Settings().to_json()
    changed = {
        name: value
        for name in names
        if (value := known.get(name)) is not None
        and value != usual[name]
        and name not in (*OF_ONE_COMMAND, "action")
    }
    typed = Settings(optimizer=known["optimizer"], image_size=tuple(known["image_size"]))
    derived = {name: _json(value) for name, value in derived_defaults(typed).items()}
    chosen = {name: value for name, value in changed.items() if derived.get(name) != value}
    words = [word for name, value in chosen.items() for word in _words(name, value)]
    return shlex.join(["python", "main.py", "--action", known["action"], *words])


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _words(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [f"--{name}", *map(str, values)]
