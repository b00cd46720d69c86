"""The method of docs/extend.md, added to a copy of the repository as the page says, trains and is a
row of the results."""

import csv
import json
import re
import shutil
from pathlib import Path

from tests.support import forked
from tests.support.helpers import TINY, make_cityscapes, make_gta5

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("datasets", "model", "trainings", "utils")
ACTIONS, STEPS = "ACTIONS: dict[str, Action] = {\n", "STEPS: list[Step] = [\n"


def python(folder, *words):
    done = forked.run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_is_one_file_and_an_entry_of_each_table(tmp_path):
    page = (ROOT / "docs" / "extend.md").read_text()
    section = page[page.index("## Adding a method") :]
    method, experiment, step, action = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:4]
    copy = tmp_path / "copy"
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "trainings" / "train_MinEnt.py").write_text(method)
    catalog = copy / "trainings" / "catalog.py"
    table = re.split(rf"({re.escape(STEPS)}.*?(?=^\]$))", catalog.read_text(), flags=re.M | re.S)
    before, steps, after = table
    catalog.write_text(f"{before}{experiment}\n{steps}    {step.strip()},\n{after}")
    main = (ROOT / "main.py").read_text()
    assert main.count(ACTIONS) == 1
    (copy / "main.py").write_text(main.replace(ACTIONS, f"{ACTIONS}{action}"))

    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")

    def run(*words):
        return python(tmp_path, copy / "main.py", "--action", *words)

    assert "  --minent_weight X" in run("train_minent", "--help")
    assert "  --minent_weight X" in run("train_minent", "--help", "adaptation")
    page = python(copy, "-m", "utils.cli.flags_page")
    assert "| `--minent_weight X` | MinEnt: weight of the entropy (default: 0.001) |" in page
    short = ("--num_epochs", "1", *TINY)
    plan = run(
        "reproduce", "--configs", "config2", "--save_model_path", "runs", *short, "--dry_run"
    )
    (planned,) = [line for line in plan.splitlines() if "| MinEnt " in line]
    folder = "config2/seed0/minent_sgd_noaug"
    assert planned.startswith("| 4 ") and folder in planned
    run(
        "train_minent",
        "--config",
        "config2",
        "--save_model_path",
        "runs/reproduce/config2/seed0",
        "--minent_weight",
        "0.002",
        *short,
    )
    trained = tmp_path / "runs" / "reproduce" / folder
    assert json.loads((trained / "scores.json").read_text())["training"]["target"] == "Cityscapes"
    assert json.loads((trained / "settings.json").read_text())["minent_weight"] == 0.002
    with (trained / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["seg_source"]) > 0 and 0 < float(row["ent_target"]) < 0.005
    run("report", "--save_model_path", "runs")
    results = (tmp_path / "runs" / "reproduce" / "results.md").read_text()
    assert re.search(r"^\| 4 +\| MinEnt +\| config2 ", results, re.MULTILINE)
    assert f"[minent_sgd_noaug]({folder})" in results
