"""The README's commands are real: every flag and action in it exists."""

import re
from pathlib import Path

import main
from utils.cli.command_line import parse_settings
from utils.cli.help import help_text

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_every_command_of_the_readme_parses():
    commands = re.findall(r"(?:python|torchrun .*) main\.py (--action [^\n`]+)", README)
    commands = [c for c in commands if "…" not in c]
    assert len(commands) >= 6
    for command in commands:
        settings = parse_settings(command.split(), main.ACTIONS)
        assert settings.action in main.ACTIONS


def test_every_flag_of_the_readme_exists():
    flags = help_text("all", main.ACTIONS)
    ours = re.sub(
        r"torchrun .*main\.py|docker run --\S+|tensorboard --logdir|pytest .*", "", README
    )
    for flag in set(re.findall(r"--[a-z0-9_]{3,}", ours)):
        assert f"{flag} " in flags, flag


def test_ci_runs_both_commands():
    script = (ROOT / ".ci" / "run").read_text()
    for start in ("pip install -r requirements.txt", "pip install -r requirements-dev.txt"):
        lines = [line for line in README.splitlines() if line.startswith(start)]
        assert len(lines) == 1 and start in script


def test_every_linked_file_exists_and_nothing_is_left_to_fill_in():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    assert "@@" not in README


def test_no_tracked_picture_over_300_kb():
    for path in ROOT.glob("docs/*"):
        assert path.stat().st_size <= 300_000
