"""Files of --classes are read or refused, and label files checked against them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import classes, folder
from datasets.labels import CITYSCAPES, CLASSES, IGNORE, LABEL_IDS, ClassTable
from datasets.reading import UnknownLabels, read_label
from utils.errors import UserError

CSV = "id,name,colour\n3,lawn,#0a0b0c\n40,kerb,255 0 255\n200,sky,70 130 180\n99,ignored,\n"
TABLE = ClassTable(
    names=("lawn", "kerb", "sky"),
    colors=((10, 11, 12), (255, 0, 255), (70, 130, 180)),
    ids=(3, 40, 200),
    ignored=(99,),
)
JSON = """[{"id": 3, "name": "lawn", "color": [10, 11, 12]},
           {"id": "40", "name": "kerb", "colour": "#ff00ff"},
           {"id": 200, "name": "sky", "colour": "70, 130, 180"}, {"id": 99, "name": "ignored"}]"""


@pytest.mark.parametrize("text", [CSV, JSON, "\ufeff" + CSV, TABLE.recorded()])
def test_every_form_of_a_table_is_read(tmp_path, text):
    file = tmp_path / "table"
    file.write_text(text, encoding="utf-8")
    assert classes.read_classes(file) == TABLE


def test_a_record_gives_its_table_again():
    place = Path("settings.json")
    for table in (TABLE, CITYSCAPES):
        assert classes.recorded_classes(table.recorded(), place) == table
    assert classes.recorded_classes(None, place) is CITYSCAPES


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,name,colour\n3,a,#000000\n3,b,#ffffff\n", "the id 3 stands for a and for b"),
        ("id,name,colour\n3,a,#000000\n4,b,\n", r"class 2 \(b\) has no colour"),
        ("id,name,colour\n3,a,#000000\n4,b,1 2 300\n", "has the colour 1 2 300"),
        ("id,name,colour\n3,a,#000000\n", "holds 1 class: give 2 to 255"),
        ("id,name,colour\n", "holds 0 classes: give 2 to 255"),
        ("id,name,colour\n3,a,#000000\n4,a,#ffffff\n", "two classes are called a"),
        ("id,name,colour\n3,a,#000000\n,b,#ffffff\n", "class 2 has no id"),
        ("id,name,colour\n3,a,#000000\n256,b,#ffffff\n", "class 2 has the id 256"),
        ("id,name,colour\n3,a,#000000\n255,b,#ffffff\n", "255, which stands for no class"),
        ("id,name,colour\n3,a,#000000\n4,,#ffffff\n", r"class 2 \(id 4\) has no name"),
        ("id,name\n3,a\n4,b\n", "has no column colour"),
        ("", "has no column id, name, colour"),
        ("[1, 2]", "is no list of objects"),
        ("[{", "is not JSON"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(tmp_path, text, message):
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        classes.read_classes(file)
    assert str(error.value).startswith(str(file)) and "give" in str(error.value)


def test_a_folder_is_answered_with_a_table_in_it(tmp_path):
    (tmp_path / "best.pth").touch()
    with pytest.raises(UserError, match=r"is a folder: name a file in it$"):
        classes.read_classes(tmp_path)
    (tmp_path / "mine.csv").touch()
    with pytest.raises(UserError, match=r"name a file in it, such as .*/mine\.csv$"):
        classes.read_classes(tmp_path)


def test_labels_of_a_folder_with_other_values_than_train_ids_ask_for_classes(tmp_path):
    with pytest.raises(UnknownLabels, match=r"holds 40 too .* with --classes FILE"):
        read_label(label(tmp_path, 3, 40), folder.ROW.layout.label_format(tmp_path))


def label(tmp_path, *values):
    path = tmp_path / "label.png"
    picture = Image.fromarray(np.array([values], np.uint8), "P")
    picture.putpalette([0] * 768)
    picture.save(path)
    return path


def test_labels_hold_the_ids_of_the_table(tmp_path):
    path = label(tmp_path, 3, 40, 200, 99, IGNORE)
    assert read_label(path, TABLE.own_ids).tolist() == [[0, 1, 2, IGNORE, IGNORE]]
    with pytest.raises(UnknownLabels, match=r"holds 5 too \(pixels: 2\): give each value a row"):
        read_label(label(tmp_path, 3, 5, 5), TABLE.own_ids)


def test_labels_of_known_data_sets_go_by_the_names_of_their_classes(tmp_path):
    """Sky is the third class of the table, and Cityscapes' label id 23."""
    ids = [c.label_id for c in CLASSES if c.name in ("road", "sky")]
    kind = LABEL_IDS.named_in(TABLE)
    assert read_label(label(tmp_path, *ids), kind).tolist() == [[IGNORE, 2]]
    assert LABEL_IDS.named_in(CITYSCAPES) is LABEL_IDS and kind != LABEL_IDS
