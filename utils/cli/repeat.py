"""The command that repeats a run, from the settings that the run has recorded."""

from collections.abc import Mapping
from typing import Any

from utils.cli.flags import command_line
from utils.cli.options import Options, flags_of

OF_ONE_COMMAND = ("action", "config", "config_file", "overwrite", "debug")
"""Flags that say how a command was typed, and the action, which comes first."""


def repeating_command(kind: type[Options], settings: Mapping[str, Any]) -> str:
    """Return the command line that means these settings.

    Args:
        kind: the dataclass of all flags.
        settings: JSON types by name. The command holds those whose values are not their defaults,
            nor follow from another one.
    """
    given = kind.from_json(settings)
    following = {field.name for field in flags_of(kind) if field.metadata["follows"]}
    free = {name: value for name, value in given.values().items() if name not in following}
    derived = kind(**free).to_json()
    usual = kind().to_json() | {name: derived[name] for name in following}
    changed = {
        name: value
        for name, value in given.to_json().items()
        if value != usual[name] and name not in OF_ONE_COMMAND
    }
    return command_line({"action": settings["action"], **changed})
