"""The method of docs/extend.md is added to a copy of the repository as it says, and trains."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.helpers import TINY, make_cityscapes, make_gta5

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("datasets", "model", "trainings", "utils")
ACTIONS = "ACTIONS: dict[str, Action] = {\n"


def test_a_method_is_one_file_and_an_entry_of_the_table(tmp_path):
    page = (ROOT / "docs" / "extend.md").read_text()
    section = page[page.index("## Adding a method") :]
    method, experiment, line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:3]
    copy = tmp_path / "copy"
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "trainings" / "train_MinEnt.py").write_text(method)
    main = (ROOT / "main.py").read_text()
    assert main.count(ACTIONS) == 1
    (copy / "main.py").write_text(main.replace(ACTIONS, f"{experiment}\n{ACTIONS}{line}"))

    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")
    words = ("--action", "train_minent", "--num_epochs", "1", "--save_model_path", "runs", *TINY)
    command = [sys.executable, str(copy / "main.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "minent_sgd_noaug"
    assert json.loads((run / "scores.json").read_text())["training"]["target"] == "Cityscapes"
    with (run / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["seg_source"]) > 0 and 0 < float(row["ent_target"]) < 0.005
