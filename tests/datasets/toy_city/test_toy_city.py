import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.labels import IGNORE, LABEL_ID_TO_TRAIN_ID, NUM_CLASSES, PALETTE, colorize
from datasets.toy_city import LABEL_ID, MARKER, draw_scene, drawn_from, files, looks, make_toy_city
from tests.support.helpers import make_cityscapes, make_gta5
from utils.errors import UserError

SIZE = (64, 96)
LOOKS = ("game", "camera")


def make(root: Path, **changes) -> None:
    make_toy_city(root, **({"train": 3, "val": 2, "size": SIZE, "seed": 5} | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A Toy City that no test may change."""
    root = tmp_path_factory.mktemp("toy_city")
    make(root)
    return root


@pytest.fixture
def copied(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def contents(root: Path) -> dict[str, bytes]:
    """The files below a folder but for its lock."""
    paths = (p for p in root.rglob("*") if p.is_file() and p != root / ".lock")
    return {str(p.relative_to(root)): p.read_bytes() for p in paths}


@pytest.mark.slow
def test_several_processes_draw_the_same_city(made, tmp_path):
    make(tmp_path / "city", workers=2)
    assert contents(tmp_path / "city") == contents(made)


@pytest.mark.parametrize("look", LOOKS)
def test_a_seed_gives_one_scene_and_another_seed_another(look):
    first, again, other = (draw_scene(seed, SIZE, look) for seed in ((1, 2), (1, 2), (1, 3)))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label_ids.tobytes() == again.label_ids.tobytes()
    assert (first.image != other.image).any()
    assert (first.label_ids != other.label_ids).any()


def test_the_lens_dims_and_dulls_the_picture_and_leaves_the_label(monkeypatch):
    through_lens = draw_scene(1, SIZE, "camera")
    monkeypatch.setitem(looks.LOOKS, "camera", looks.CAMERA._replace(strength=0.0))
    plain = draw_scene(1, SIZE, "camera")
    assert np.array_equal(through_lens.label_ids, plain.label_ids)
    assert through_lens.image.mean() < 0.95 * plain.image.mean()
    assert through_lens.image.std() < 0.95 * plain.image.std()


def test_the_two_looks_of_a_seed_are_two_scenes():
    game, camera = (draw_scene(1, SIZE, look) for look in LOOKS)
    assert (game.label_ids != camera.label_ids).any()


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_all_classes_occur_in_a_few_dozen_scenes_and_some_pixels_are_ignored(look):
    counts = np.zeros(256, int)
    for seed in range(36):
        train_ids = LABEL_ID_TO_TRAIN_ID[draw_scene(seed, SIZE, look).label_ids]
        counts += np.bincount(train_ids.ravel(), minlength=256)
    shares = counts / counts.sum()
    assert (shares[:NUM_CLASSES] > 0.001).all(), shares[:NUM_CLASSES]
    assert 0 < shares[IGNORE] < 0.1


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("size", [(64, 64), (65, 127), (131, 64), (96, 301)])
def test_any_size_gives_its_shapes_and_known_labels(size, look):
    scene = draw_scene(0, size, look)
    assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
    assert scene.label_ids.shape == size and scene.label_ids.dtype == np.uint8
    assert set(np.unique(scene.label_ids)) <= set(LABEL_ID.values())
    assert {LABEL_ID["road"], LABEL_ID["sky"]} <= set(np.unique(scene.label_ids))


def test_image_and_label_have_the_same_edges():
    """Where the label changes, so does the colour: far more than within a thing."""
    steps_at_borders, steps_elsewhere = [], []
    for seed in range(6):
        image, label_ids = draw_scene(seed, (128, 256), "game")
        step = np.abs(np.diff(image.astype(float), axis=1)).sum(-1)
        border = np.diff(label_ids.astype(int), axis=1) != 0
        steps_at_borders.append(step[border].mean())
        steps_elsewhere.append(step[~border].mean())
    assert np.mean(steps_at_borders) > 3 * np.mean(steps_elsewhere)


def test_the_files_are_named_as_in_the_real_data_sets(made):
    numbers = [f"{number:05d}.png" for number in range(1, 5)]  # 3, and a fifth for validation
    expected = {f"GTA5/{folder}/{name}" for folder in ("images", "labels") for name in numbers}
    for split, city, count in (("train", "toyburg", 3), ("val", "toyhaven", 2)):
        for index in range(count):
            name = f"{split}/{city}/{city}_{index:06d}_000019"
            expected.add(f"Cityscapes/leftImg8bit/{name}_leftImg8bit.png")
            for kind in ("labelIds", "labelTrainIds", "color"):
                expected.add(f"Cityscapes/gtFine/{name}_gtFine_{kind}.png")
    assert set(contents(made)) == expected | {MARKER, f"GTA5/{MARKER}", f"Cityscapes/{MARKER}"}


def test_a_folder_tells_that_it_is_of_toy_city(made, tmp_path):
    """A copy of one data set too, and one of a city that has a marker at its root alone."""
    for name in ("GTA5", "Cityscapes"):
        copy = tmp_path / name
        shutil.copytree(made / name, copy)
        assert drawn_from(copy) == 5
        about = json.loads((copy / MARKER).read_text())["about"]
        assert about == f"Toy City: street scenes drawn by a program in the layout of {name}, " + (
            f"not the data set {name}"
        )
        (copy / MARKER).unlink()
        assert drawn_from(copy) is None
    shutil.copy(made / MARKER, tmp_path)
    assert drawn_from(tmp_path / "GTA5") == drawn_from(tmp_path / "Cityscapes") == 5


def test_other_data_beside_an_old_toy_city_are_not_taken_for_it(made, tmp_path):
    shutil.copy(made / MARKER, tmp_path)
    make_cityscapes(tmp_path / "Cityscapes")
    make_gta5(tmp_path / "GTA5")
    assert drawn_from(tmp_path / "Cityscapes") is drawn_from(tmp_path / "GTA5") is None


def test_gta5_labels_are_palette_pictures_of_label_ids(made):
    label = Image.open(made / "GTA5/labels/00001.png")
    label_ids = np.asarray(label)
    assert label.mode == "P" and label.size == SIZE[::-1]
    assert np.array_equal(label_ids, draw_scene((5, 0, 0), SIZE, "game").label_ids)
    assert np.array_equal(
        np.asarray(label.convert("RGB")), PALETTE[LABEL_ID_TO_TRAIN_ID[label_ids]]
    )
    assert Image.open(made / "GTA5/images/00001.png").mode == "RGB"


def test_cityscapes_train_ids_and_colours_agree_with_the_label_ids(made):
    files = sorted((made / "Cityscapes/gtFine").glob("*/*/*_labelIds.png"))
    assert len(files) == 5
    for file in files:
        label_ids, train_ids, color = (
            np.asarray(Image.open(file.with_name(file.name.replace("labelIds", kind))))
            for kind in ("labelIds", "labelTrainIds", "color")
        )
        assert np.array_equal(train_ids, LABEL_ID_TO_TRAIN_ID[label_ids])
        assert np.array_equal(color, colorize(train_ids))


def test_a_scene_depends_on_its_split_and_number_but_not_on_how_many_are_drawn(made, tmp_path):
    make(tmp_path / "few", train=1, val=1)
    few, more = contents(tmp_path / "few"), contents(made)
    assert all(more[name] == few[name] for name in few if Path(name).name != MARKER)
    images = [data for name, data in more.items() if "images" in name or "leftImg8bit" in name]
    assert len(set(images)) == len(images) == 9


def test_a_second_call_draws_nothing(copied, monkeypatch, capsys):
    monkeypatch.setattr(files, "draw_scene", None)
    times = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    make(copied)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == times
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("change", [{"train": 4}, {"val": 3}, {"size": (64, 64)}, {"seed": 6}])
def test_a_toy_city_with_other_values_is_refused_and_left_alone(copied, change):
    before = contents(copied)
    with pytest.raises(UserError, match="--toy_root"):
        make(copied, **change)
    assert contents(copied) == before


@pytest.mark.parametrize("folder", ["GTA5", "Cityscapes"])
def test_real_data_are_refused_and_left_alone(tmp_path, folder):
    (tmp_path / folder / "images").mkdir(parents=True)
    (tmp_path / folder / "images" / "00001.png").write_bytes(b"a photograph")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="--toy_root"):
        make(tmp_path)
    assert contents(tmp_path) == before


def test_an_unreadable_marker_is_refused(tmp_path):
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(UserError, match=MARKER):
        make(tmp_path)


def test_a_pipe_or_a_list_for_a_marker_is_refused(tmp_path):
    data_set = tmp_path / "GTA5"
    data_set.mkdir()
    (data_set / MARKER).write_text("[]")
    with pytest.raises(UserError, match=f"{MARKER} is not readable"):
        drawn_from(data_set)
    (data_set / MARKER).unlink()
    os.mkfifo(data_set / MARKER)
    with pytest.raises(UserError, match=f"{MARKER} is a pipe, a socket or a device"):
        drawn_from(data_set)


def test_an_interrupted_run_is_completed(made, tmp_path, monkeypatch):
    def interrupted(path, picture):
        if "toyburg_000001" in path.name:
            raise KeyboardInterrupt
        original(path, picture)

    original = files.save_picture
    monkeypatch.setattr(files, "save_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    assert not json.loads((tmp_path / MARKER).read_text())["complete"]
    monkeypatch.setattr(files, "save_picture", original)
    (tmp_path / "GTA5" / "images" / ".00001.png.7.tmp").write_bytes(b"of a killed process")
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_one(made, tmp_path):
    other = multiprocessing.get_context("fork").Process(target=make, args=(tmp_path,))

    def progress(jobs, *_, **__):
        other.start()
        other.join(timeout=1.5)  # longer than it needs to draw the city
        assert other.is_alive()
        yield from jobs

    make(tmp_path, progress=progress)
    other.join()
    assert other.exitcode == 0
    assert contents(tmp_path) == contents(made)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    class Broken:
        def save(self, path, **_):
            Path(path).write_bytes(b"half a pict")
            raise OSError("no space left")

    with pytest.raises(OSError, match="space"):
        files.save_picture(tmp_path / "00001.png", Broken())
    assert not (tmp_path / "00001.png").exists()
