"""Imports point down: main -> trainings -> datasets, model -> utils -> datasets.labels."""

import ast
from pathlib import Path

import pytest

from model.catalog import NETWORKS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("datasets", "model", "trainings", "utils")
ALLOWED = {
    "datasets": {"datasets", "utils"},
    "model": {"model", "utils", "datasets.labels"},
    "utils": {"utils", "datasets.labels"},
    "trainings": {"trainings", "datasets", "model", "utils"},
}
FLOORS = ("scoring", "engine", "application", "reproduction", "catalog")
"""Packages of trainings, and its table of experiments: each imports from those before it and from
the files beside."""

FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def own_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert all(alias.name != "*" for alias in node.names), f"{path}: no import *"
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in (*ROOMS, "main", "tests")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    room = path.relative_to(ROOT).parts[0]
    for name in own_imports(path):
        assert any(name == a or name.startswith(f"{a}.") for a in ALLOWED[room]), name


def floor(module: str) -> int:
    """Place of a module of trainings among its floors, 0 for a file beside them."""
    package = module.split(".")[1]
    return FLOORS.index(package) + 1 if package in FLOORS else 0


@pytest.mark.parametrize(
    "path", [path for path in FILES if "trainings" in path.parts], ids=lambda p: p.stem
)
def test_floors_of_trainings_import_from_below(path):
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for name in own_imports(path):
        assert not name.startswith("trainings.") or floor(name) <= floor(own), name


def test_every_package_has_its_own_init():
    tests = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    for folder in {path.parent for path in FILES} | tests:
        assert (folder / "__init__.py").exists(), folder


def test_tests_mirror_the_rooms():
    for room in ROOMS:
        for path in (ROOT / "tests" / room).rglob("test_*.py"):
            assert (ROOT / path.relative_to(ROOT / "tests").parent).is_dir(), path


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in FILES if "model" not in path.relative_to(ROOT).parts),
        *(ROOT / "benchmarks").rglob("*.py"),
        ROOT / "main.py",
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_only_the_table_of_networks_names_one(path):
    names = {
        node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
    }
    assert not names & {kind.__name__ for kind in NETWORKS.values()}
