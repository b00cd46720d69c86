"""colab.ipynb runs unchanged in an empty folder, with tiny settings."""

import copy
import time
import zipfile
from pathlib import Path

import pytest

from tests.support.forked import quick_python
from trainings import catalog
from trainings.reproduction.steps import Work

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "colab.ipynb"
TINY = """
import sys

sys.executable = {python!r}  # `!python` is then one that starts at once
REPOSITORY, TENSORBOARD = {root!r}, False
EPOCHS, BATCH_SIZE, WORKERS = 1, 2, 0
SIZES = "--image_size 64 96 --source_resize 64 96 --base_width 8 --precision fp32 --device cpu"
TOY = "--toy_train 4 --toy_val 3 --toy_size 64 96"
"""
STEPS_AGAIN = ("settings", "tiny", "setup", "helpers", "data", "train-gta5", "train-ada", "scores")
SECONDS = 900
"""The time limit of a cell, for a machine that has other things to do."""


def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def executed(cells, folder):
    """Execute the cells at tiny settings; return them by their ids, with outputs."""
    book = notebook()
    new = nbformat.v4.new_code_cell
    tiny = new(TINY.format(python=str(quick_python()), root=str(ROOT)), id="tiny")
    after = {"settings": tiny}
    book.cells = copy.deepcopy([c for cell in cells for c in (cell, after.get(cell.id)) if c])
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=SECONDS, resources=resources).execute()
    return {cell.id: cell for cell in book.cells}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("colab")


@pytest.fixture(scope="module")
def cells(folder):
    return executed(notebook().cells, folder)


def text(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def shown(cell, kind):
    return [o["data"][kind] for o in cell.get("outputs", ()) if kind in o.get("data", {})]


def test_it_is_committed_without_outputs_and_small():
    book = notebook()
    nbformat.validate(book)
    for cell in book.cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
    assert NOTEBOOK.stat().st_size < 300_000


def test_no_augmentation_is_a_word_of_a_command_too():
    for cell in notebook().cells:
        assert "$AUG" not in cell.source.replace('--aug_method "$AUG" ', "")


def test_every_step_runs_and_shows_its_pictures(cells, folder):
    scored = {path.parent.name for path in (folder / "runs").glob("*/scores.json")}
    trainings = [len(s.values) or 1 for s in catalog.STEPS if Work.TRAIN in s.work]
    assert len(scored) == sum(trainings) + len(["camera"])
    drawn = [name for name, cell in cells.items() if shown(cell, "image/png")]
    assert drawn == [
        *("train-cityscapes", "train-gta5", "transfer", "transfer-augmented", "train-ada"),
        *("mbt", "pseudo-labels", "train-dacs", "train-mic", "train-distill", "pictures"),
        *("camera-train", "camera-visualize", "camera-predict"),
    ]


def test_photos_without_labels_become_a_network_at_work(cells, folder):
    runs = folder / "runs"
    assert "no best epoch is kept: the target has no labels" in text(cells["camera-train"])
    assert not (runs / "camera/best.pth").exists()
    drawn = text(cells["camera-visualize"])
    assert "camera/latest.pth" in drawn and "simple_gta5_adamw_aug" in drawn
    assert "left out, because they are of another source or target: ada_adamw_aug" in drawn
    assert list((runs / "camera_predictions").glob("drive_pred_*.mp4"))
    assert (runs / "camera/network.pt2").exists() and (runs / "camera_speed/benchmark.md").exists()


def test_the_scores_are_a_table_of_all(cells):
    (table,) = shown(cells["scores"], "text/markdown")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert {len(row) for row in rows} == {6}
    data = "Toy City, real look, 3 images"
    assert ["fda05_adamw_aug", "last epoch", data, "target"] in [row[:4] for row in rows]
    assert ["mbt_adamw_aug", "validation", data, "training"] in [row[:4] for row in rows]
    transfers = [row[3] for row in rows if row[:2] == ["simple_gta5_adamw_aug", "validation"]]
    assert transfers == ["training", "target"]


def test_after_a_disconnect_run_all_finds_everything_finished(cells, folder):
    again = [cell for cell in notebook().cells if cell.id in STEPS_AGAIN]
    start = time.perf_counter()
    cells = executed(again, folder)
    assert "is finished" in text(cells["train-gta5"]) and "is finished" in text(cells["train-ada"])
    assert shown(cells["train-ada"], "image/png") and shown(cells["scores"], "text/markdown")
    assert time.perf_counter() - start < SECONDS


def test_a_zip_file_without_the_data_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as packed:
        packed.writestr("some/where/else.txt", "no data")
    steps = [cell for cell in notebook().cells if cell.id in ("settings", "setup", "data")]
    named = nbformat.v4.new_code_cell('DATA = "data.zip"')
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"data\.zip: no GTA5/"):
        executed([*steps[:-1], named, steps[-1]], tmp_path)


def test_a_failing_command_stops_it(tmp_path):
    first = [cell for cell in notebook().cells if cell.id in ("settings", "setup")]
    bad = nbformat.v4.new_code_cell("!python \"$MAIN\" --action demo --batch_size 0\nprint('on')")
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        executed([*first, bad], tmp_path)
    assert "ended with exit code 2" in str(caught.value)
    assert "must be at least 1" in str(caught.value) and "\non" not in str(caught.value)
