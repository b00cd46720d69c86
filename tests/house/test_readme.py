"""README and docs tell the truth: their commands parse, their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

import main
from utils.cli.command_line import parse_settings
from utils.cli.flags_page import flags_page
from utils.cli.options import flags_of

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "main.py").exists())
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
OTHER_PROGRAMS = (
    r"torchrun .*?main\.py|docker run --\S+|tensorboard --logdir|pytest .*|ruff .*|"
    r"python benchmarks/[^`\n]*"
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def commands(text: str) -> list[str]:
    """The words after `main.py` of each command, in code blocks and between backticks."""
    text = re.sub(r"`[^`\n]+\n[^`\n]+`", lambda code: code[0].replace("\n", " "), text)
    found = re.findall(r"(?:python|torchrun .*) main\.py (--[^\n`]+)", text)
    return [words.partition("  #")[0] for words in found if "…" not in words]


def test_every_page_is_linked_from_the_readme():
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT)})" in README.read_text()


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 170


@each_page
def test_every_command_parses(page):
    for words in commands(page.read_text()):
        if words.startswith("--action"):
            assert parse_settings(shlex.split(words), main.ACTIONS).action in main.ACTIONS
        else:
            with pytest.raises(SystemExit) as left:
                parse_settings(shlex.split(words), main.ACTIONS)
            assert not left.value.code, words


def test_every_action_is_in_the_docs():
    named = {word for page in PAGES for word in re.findall(r"[a-z0-9_]+", page.read_text())}
    assert main.ACTIONS.keys() <= named


@each_page
def test_every_flag_exists(page):
    flags = {f"--{field.name}" for field in flags_of(main.FlatSettings)} | {"--help", "--version"}
    ours = re.sub(OTHER_PROGRAMS, "", page.read_text())
    assert set(re.findall(r"(?<!\w)--[a-z0-9_]{3,}", ours)) <= flags


@each_page
def test_every_benchmark_exists_and_takes_its_flags(page):
    for script, words in re.findall(r"python (benchmarks/\w+\.py)([^`\n]*)", page.read_text()):
        code = (ROOT / script).read_text()
        for flag in re.findall(r"--\w+", words):
            assert f'"{flag}"' in code, (script, flag)


@each_page
def test_every_linked_file_and_heading_exists(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not link.startswith("http"):
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not heading or heading in anchors(target.read_text()), link


def anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@each_page
def test_every_file_named_in_code_exists(page):
    rooms = "datasets|model|trainings|utils|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{rooms})/[\w/]+\.\w+)`", page.read_text()):
        assert (ROOT / name).exists() or name == "trainings/train_MinEnt.py", name


def test_the_page_of_flags_is_that_of_the_settings():
    assert (ROOT / "docs" / "flags.md").read_text() == flags_page(main.ACTIONS)


def test_ci_runs_both_commands():
    script = (ROOT / ".ci" / "run").read_text()
    for start in ("pip install -r requirements.txt", "pip install -r requirements-dev.txt"):
        lines = [line for line in README.read_text().splitlines() if line.startswith(start)]
        assert len(lines) == 1 and start in script


def test_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit) as left:
        main.main(["--version"])
    assert not left.value.code
    version = capsys.readouterr().out.strip()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_no_tracked_picture_over_300_kb():
    for path in ROOT.glob("docs/*"):
        assert path.stat().st_size <= 300_000
