"""The commands of the docs that need no data of the user run, in the order of the pages."""

import re
import shlex
from pathlib import Path

import main
from tests.support.helpers import TINY

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "main.py").exists())
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("data", "deploy", "steps")),
)
SMALL = {
    "make_toy_data": ("--toy_train", "4", "--toy_val", "2", "--toy_size", "64", "96"),
    "train_fda": (*TINY, "--source_resize", "64", "96", "--num_epochs", "1"),
}


def unmarked(page: Path) -> list[list[str]]:
    """The commands of the code blocks that do not say what they need."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [
        shlex.split(line.removeprefix("python main.py"))
        for block in blocks
        if not block.startswith("# ")
        for line in block.splitlines()
        if line.startswith("python main.py")
    ]


def test_commands_without_a_mark_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = ("--save_model_path", "checkpoints", "--cache_dir", "cache")
    ran = [words for page in PAGES for words in unmarked(page)]
    for words in ran:
        action = words[words.index("--action") + 1]
        assert main.main([*words, *SMALL.get(action, ()), *places]) == 0, words
    assert (tmp_path / "toy.pt2").stat().st_size


def test_other_pages_mark_what_their_commands_need():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        if page not in PAGES:
            assert not unmarked(page), page.name
