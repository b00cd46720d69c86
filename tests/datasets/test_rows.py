"""Each row of the table of data sets finds its files in its real layout, with the right classes."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.catalog import ROWS, has_labels, labelled, name_of, unlabelled
from datasets.data_set import Role
from datasets.labels import CLASS_NAMES, IGNORE
from datasets.options import DATA_SETS
from datasets.reading import read_pair
from main import FlatSettings as Settings
from tests.support.helpers import picture, save
from tests.support.layouts import (
    SIZE,
    ids,
    make_acdc,
    make_bdd100k,
    make_camvid,
    make_dark_zurich,
    make_synthia,
    pair,
)
from utils.errors import UserError


def classes(files):
    """Names of the classes of a sample's label, None for ignored pixels."""
    _, label = read_pair(files)
    return {None if i == IGNORE else CLASS_NAMES[i] for i in np.unique(label).tolist()}


def settings(row, root, **more):
    return Settings(**{"target": row, "target_root": root, "cache_dir": Path("none"), **more})


def test_the_table_has_the_rows_that_the_flags_name():
    assert tuple(ROWS) == DATA_SETS


@pytest.mark.parametrize(
    ("row", "make", "train", "val"),
    [
        ("acdc", make_acdc, [{"car"}] * 4, [{"sky"}] * 4),
        ("acdc_night", make_acdc, [{"car"}], [{"sky"}]),
        ("bdd100k", make_bdd100k, [{"building"}], [{"bicycle"}]),
        ("camvid", make_camvid, [{"road"}], [{"bicycle"}]),
    ],
)
def test_a_row_pairs_images_and_labels_of_each_split(tmp_path, row, make, train, val):
    make(tmp_path)
    chosen = settings(row, tmp_path)
    for split, expected in (("train", train), ("val", val)):
        files = labelled(Role.TARGET, split, chosen)
        assert [classes(one) for one in files] == expected
        names = [one.name for one in unlabelled(Role.TARGET, split, chosen)]
        assert names == [one.name for one in files] and len(set(names)) == len(names)


def test_dark_zurich_has_nights_without_labels_to_train_on(tmp_path):
    make_dark_zurich(tmp_path)
    chosen = settings("dark_zurich", tmp_path)
    assert len(unlabelled(Role.TARGET, "train", chosen)) == 1  # the day is left out
    assert [classes(one) for one in labelled(Role.TARGET, "val", chosen)] == [{"road"}]
    assert not has_labels(Role.TARGET, "train", chosen) and has_labels(Role.TARGET, "val", chosen)


def test_synthia_labels_are_read_from_the_low_bytes_of_16_bits(tmp_path):
    make_synthia(tmp_path)
    chosen = Settings(source="synthia", source_root=tmp_path, gta5_val_fraction=0.2)
    files = labelled(Role.SOURCE, "train", chosen) + labelled(Role.SOURCE, "val", chosen)
    found = [classes(one) for one in files]
    assert found == [{"person"}, {"bicycle"}, {"motorcycle"}, {None}, {None}]


def test_synthia_labels_of_8_bits_are_refused(tmp_path):
    make_synthia(tmp_path)
    path = save(picture(0, SIZE), tmp_path / "GT/LABELS/0000000.png")
    chosen = Settings(source="synthia", source_root=tmp_path)
    with pytest.raises(UserError, match=rf"{path.name} is a RGB picture, not a map of class ids"):
        read_pair(labelled(Role.SOURCE, "train", chosen)[0])


def test_a_damaged_16_bit_label_ends_in_a_sentence(tmp_path):
    make_synthia(tmp_path, 2)
    path = tmp_path / "GT/LABELS/0000000.png"
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 8] = b"\xff" * 8
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    checksum = zlib.crc32(content[start - 4 : start + length])
    content[start + length : start + length + 4] = checksum.to_bytes(4, "big")
    path.write_bytes(content)
    chosen = Settings(source="synthia", source_root=tmp_path, gta5_val_fraction=0.5)
    with pytest.raises(UserError, match=r"0000000.png"):
        read_pair(labelled(Role.SOURCE, "train", chosen)[0])


# ------------------------------------------------------------------------------ one's own folder


@pytest.fixture
def photos(tmp_path):
    """Four photos of several formats and sizes, one of them turned by its EXIF data."""
    root = tmp_path / "my dashcam"
    (root / "day one").mkdir(parents=True)
    for place, size in (("a.png", SIZE), ("day one/b c.jpg", (20, 20)), ("day one/b c.webp", SIZE)):
        Image.fromarray(picture(1, size)).save(root / place)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(picture(2, SIZE)).save(root / "turned.JPG", "JPEG", exif=exif)
    (root / "notes.txt").write_text("no picture")
    (root / "x.heic").write_bytes(b"no picture that can be read")
    return root


def test_a_path_in_the_place_of_a_name_means_a_folder(photos):
    chosen = Settings(target=str(photos))
    assert (chosen.target, chosen.target_root) == ("folder", photos)
    assert name_of(Role.TARGET, chosen) == "my dashcam"
    assert chosen.run_name("ada") == "ada_gta5_to_my_dashcam_sgd_noaug"


def test_a_folder_takes_photos_of_any_name_format_and_size(photos, capsys):
    files = unlabelled(Role.TARGET, "train", Settings(target=str(photos)))
    assert [one.name for one in files] == ["a", "day one/b c.jpg", "day one/b c.webp", "turned"]
    assert read_pair(files[-1])[0].shape == (*SIZE[::-1], 3)
    assert "cannot be read; save them as JPEG" in capsys.readouterr().err
    assert not has_labels(Role.TARGET, "val", Settings(target=str(photos)))


def write_labelled(root, images, labels, names):
    for value, name in enumerate(names):
        pair(root / images / f"{name}.png", root / labels / f"{name}.png", value)


@pytest.mark.parametrize("pattern", ["{split}/{kind}", "{kind}/{split}"])
def test_a_folder_with_splits_has_them_in_either_order(tmp_path, pattern):
    for split, names in (("train", ["x/1", "2"]), ("val", ["3"])):
        images, labels = (pattern.format(split=split, kind=kind) for kind in ("images", "labels"))
        write_labelled(tmp_path, images, labels, names)
    chosen = Settings(source=str(tmp_path))
    assert [one.name for one in labelled(Role.SOURCE, "train", chosen)] == ["2", "x/1"]
    (only,) = labelled(Role.SOURCE, "val", chosen)
    assert only.name == "3" and classes(only) == {"road"}


def test_a_folder_without_splits_keeps_a_share_for_validation(tmp_path):
    write_labelled(tmp_path, "images", "labels", [str(number) for number in range(5)])
    chosen = Settings(source=str(tmp_path), gta5_val_fraction=0.4)
    names = [[f.name for f in labelled(Role.SOURCE, split, chosen)] for split in ("train", "val")]
    assert names == [["0", "1", "2"], ["3", "4"]]


def test_a_target_without_splits_says_once_how_many_images_are_scored(tmp_path, capsys):
    write_labelled(tmp_path, "images", "labels", [str(number) for number in range(10)])
    chosen = Settings(target=str(tmp_path))
    assert [len(labelled(Role.TARGET, "val", chosen)) for _ in range(2)] == [2, 2]
    said = capsys.readouterr().err
    assert said.count("2 of its images are scored (--gta5_val_fraction 0.2)") == 1


@pytest.mark.parametrize("unlabelled_photos", [2, 0])
def test_labels_of_a_few_photos_in_val_are_all_scored(tmp_path, capsys, unlabelled_photos):
    write_labelled(tmp_path, "val/images", "val/labels", ["4", "5", "6"])
    for number in range(unlabelled_photos):
        save(picture(1, SIZE), tmp_path / "train" / "images" / f"{number}.png")
    chosen = Settings(target=str(tmp_path))
    assert [one.name for one in labelled(Role.TARGET, "val", chosen)] == ["4", "5", "6"]
    assert has_labels(Role.TARGET, "val", chosen) and "are scored" not in capsys.readouterr().err
    if unlabelled_photos:
        assert [one.name for one in unlabelled(Role.TARGET, "train", chosen)] == ["0", "1"]
        return
    for needed in (unlabelled, labelled):
        with pytest.raises(UserError, match=r"train holds no images|no labels of its train split"):
            needed(Role.TARGET, "train", chosen)


@pytest.mark.parametrize(
    ("spoil", "role", "problem"),
    [
        (lambda r: (r / "labels/1.png").unlink(), "source", r"1 of 5 files have no label .*1\.png"),
        (lambda r: save(ids(0), r / "labels/9.png"), "source", "have no image"),
        (lambda r: (r / "labels").rename(r / "masks"), "source", "has no labels of its train"),
        (lambda r: (r / "images").rename(r / "photos"), "target", "holds labels/ but no images/"),
        (lambda r: (r / "gtFine").mkdir(), "target", "as cityscapes has it: name that data set"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(tmp_path, spoil, role, problem):
    write_labelled(tmp_path, "images", "labels", [str(number) for number in range(5)])
    spoil(tmp_path)
    role, chosen = Role(role), Settings(**{role: str(tmp_path)})
    with pytest.raises(UserError, match=problem):
        (labelled if role is Role.SOURCE else unlabelled)(role, "train", chosen)


@pytest.mark.parametrize("count", [0, 1])
def test_a_target_of_too_few_images_is_refused(tmp_path, count):
    for number in range(count):
        save(picture(number, SIZE), tmp_path / f"{number}.png")
    with pytest.raises(UserError, match=f"holds {count or 'no'} image.* 2 are needed"):
        unlabelled(Role.TARGET, "train", Settings(target=str(tmp_path)))
