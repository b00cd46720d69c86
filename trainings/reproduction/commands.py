"""The commands that made a reproduction's runs, and the one that makes a report again."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from trainings.options import Settings
from trainings.reproduction.plan import plan_folder
from utils.cli.flags import command_line
from utils.disk.run_folder import RunFolder

COMMANDS = "commands.txt"
"""The commands that made a reproduction's runs, one a line."""


def report_command(settings: Settings, folder: Path) -> str:
    """Return the command of this report, which is written into a folder, as a user would type
    it."""
    given = {name: value for name, value in settings.explicit().items() if name != "action"}
    if settings.action != "report":
        places = ("save_model_path", "save_keyword")
        given = {name: value for name, value in given.items() if name in places}
        given.setdefault("save_keyword", plan_folder(settings).name)
    runs = " ".join(["--runs", *_globs(given.pop("runs"), folder)]) if "runs" in given else ""
    return f"{command_line({'action': 'report', **given})} {runs}".rstrip()


def command_for(reproduction: Path) -> str:
    """Return the command that makes the report of a reproduction in this folder."""
    place = {"save_model_path": reproduction.parent, "save_keyword": reproduction.name}
    return command_line({"action": "report", **place})


def _globs(paths: Sequence[Path], report: Path) -> list[str]:
    """Return the paths as words, those that are all of a folder's but the report as FOLDER/*."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        found.setdefault(path.parent, []).append(path)
    shown = []
    for parent, own in found.items():
        everything = {path for path in parent.glob("*") if not path.name.startswith(".")}
        whole = len(own) > 1 and everything <= {*own, report}
        shown += [f"{shlex.quote(str(parent))}/*"] if whole else [shlex.quote(str(p)) for p in own]
    return shown


def record_command(settings: Settings) -> None:
    """Add the command of a reproduction to those that its folder names."""
    folder = plan_folder(settings)
    typed = {
        name: value
        for name, value in settings.explicit().items()
        if name not in ("action", "jobs", "verbose")
    }
    command = command_line({"action": settings.action, **typed})
    if command not in (known := recorded_commands(folder)):
        RunFolder(folder).write_text(COMMANDS, "\n".join([*known, command, ""]))


def recorded_commands(folder: Path) -> list[str]:
    """Return the commands that made a reproduction's runs; none where they are not recorded."""
    path = folder / COMMANDS
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
