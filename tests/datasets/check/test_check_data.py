"""check_data names every defect, in files of both data sets in their real layouts."""

import json
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from datasets.check import files, report
from datasets.check.findings import Files, Part
from datasets.labels import CLASSES, LABEL_ID_TO_TRAIN_ID, LABEL_IDS
from datasets.reading import read_image, read_pair
from tests.support.data import cityscapes_files, gta5_files
from tests.support.helpers import TINY, label_ids, make_cityscapes, make_gta5, picture, save
from utils.errors import UserError

GTA5_IMAGE, GTA5_LABEL = "GTA5/images/00003.png", "GTA5/labels/00003.png"
VAL_IMAGE = "Cityscapes/leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"
VAL_LABEL = "Cityscapes/gtFine/val/ulm/ulm_000001_000019_gtFine_labelTrainIds.png"
VAL_IDS = "Cityscapes/gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png"
TRAIN_LABELS = "Cityscapes/gtFine/train"
TRAIN_IMAGE = "Cityscapes/leftImg8bit/train/aachen/aachen_000002_000019_leftImg8bit.png"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working directory with 10 pairs of GTA5 and 4 + 3 of Cityscapes, no image twice."""
    monkeypatch.chdir(tmp_path)
    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")
    for seed, path in enumerate(sorted(tmp_path.glob("Cityscapes/leftImg8bit/*/*/*.png"))):
        save(picture(100 + seed), path)
    return tmp_path


def check(*words, workers=0):
    """The exit code of the command, and what it wrote."""
    flags = ("--num_workers", str(workers), "--batch_size", "2", "--save_model_path", "runs")
    flags += ("--image_size", "64", "96")
    code = main.main(["--action", "check_data", *flags, *words])
    return code, json.loads(Path("runs/check_data/check_data.json").read_text())


def found(record):
    return [(finding["kind"], finding["path"]) for finding in record["findings"]]


def remove(*paths):
    def spoil(root):
        for path in paths:
            (root / path).unlink()

    return spoil


def remove_folder(path):
    return lambda root: shutil.rmtree(root / path)


def cut(path):
    """Half of the file, as a download leaves it that was broken off."""

    def spoil(root):
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: len(content) // 2])

    return spoil


def write(path, content):
    return lambda root: (root / path).write_bytes(content)


def draw(path, array, mode=None):
    return lambda root: save(array, root / path, mode)


def copy(path, to):
    return lambda root: shutil.copy(root / path, root / to)


def several(*spoilers):
    def spoil(root):
        for one in spoilers:
            one(root)

    return spoil


def folder_in_place_of(path):
    def spoil(root):
        (root / path).unlink()
        (root / path).mkdir()

    return spoil


def pipe_in_place_of(path):
    def spoil(root):
        (root / path).unlink()
        os.mkfifo(root / path)

    return spoil


def with_value(value, seed=3):
    ids = label_ids(seed)
    ids[0, 0] = value
    return ids


PROBLEMS = {
    "image without label": (remove(GTA5_LABEL), "unpaired", GTA5_IMAGE),
    "label without image": (remove(GTA5_IMAGE), "unpaired", GTA5_LABEL),
    "validation image without label": (remove(VAL_LABEL, VAL_IDS), "unpaired", VAL_IMAGE),
    "validation label without image": (remove(VAL_IMAGE), "unpaired", VAL_LABEL),
    "cut image": (cut(GTA5_IMAGE), "truncated", GTA5_IMAGE),
    "cut label": (cut(VAL_LABEL), "truncated", VAL_LABEL),
    "cut training image": (cut(TRAIN_IMAGE), "truncated", TRAIN_IMAGE),
    "text": (write(GTA5_IMAGE, b"not found"), "unreadable", GTA5_IMAGE),
    "empty": (write(VAL_LABEL, b""), "unreadable", VAL_LABEL),
    "folder": (folder_in_place_of(VAL_IMAGE), "unreadable", VAL_IMAGE),
    "pipe for an image": (pipe_in_place_of(TRAIN_IMAGE), "unreadable", TRAIN_IMAGE),
    "pipe for a label": (pipe_in_place_of(VAL_LABEL), "unreadable", VAL_LABEL),
    "coloured label": (draw(GTA5_LABEL, picture(3)), "unreadable", GTA5_LABEL),
    "16-bit image": (
        draw(GTA5_IMAGE, np.full((72, 104), 999, np.uint16)),
        "unreadable",
        GTA5_IMAGE,
    ),
    "label of another size": (
        draw(GTA5_LABEL, label_ids(3, (64, 104)), "P"),
        "size mismatch",
        GTA5_LABEL,
    ),
    "label id 40": (draw(GTA5_LABEL, with_value(40), "P"), "label values", GTA5_LABEL),
    "two images of one name": (
        copy(GTA5_IMAGE, "GTA5/images/00003.PNG"),
        "two files of one name",
        GTA5_IMAGE,
    ),
    "train id 26": (draw(VAL_LABEL, np.full((72, 104), 26, np.uint8)), "label values", VAL_LABEL),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_found_and_nothing_else(data, case, capsys):
    spoil, kind, path = PROBLEMS[case]
    spoil(data)
    code, record = check("--gta5_root", str(data / "GTA5"), "--cityscapes_root", "Cityscapes")
    assert code == 1
    assert found(record) == [(kind, str(data / path))]
    (finding,) = record["findings"]
    assert finding["problem"] and finding["data_set"] == Path(path).parts[0]
    assert finding["path"] in finding["sentence"] and not record["training_would_run"]
    out, err = capsys.readouterr()
    assert f"problem: {kind}, 1\n  {finding['sentence']}\n" in out
    error = err.strip().splitlines()[-1]
    assert error.startswith(f"main.py: error: training would not run (1 {kind}): ")
    assert training_refuses(data)


def all_labels_of(split):
    return remove_folder(f"Cityscapes/gtFine/{split}")


NOTES = {
    "blank label": (
        draw(GTA5_LABEL, np.full((72, 104), 4, np.uint8), "P"),
        "blank label",
        GTA5_LABEL,
    ),
    "blank train ids": (
        draw(VAL_LABEL, np.full((72, 104), 255, np.uint8)),
        "blank label",
        VAL_LABEL,
    ),
    "duplicate": (copy(GTA5_IMAGE, "GTA5/images/00010.png"), "duplicate image", "00010.png"),
    "duplicate across": (copy(VAL_IMAGE, TRAIN_IMAGE), "duplicate image", VAL_IMAGE),
    "hidden twin": (write("GTA5/images/._00003.png", b"Mac"), "left out", "GTA5/images"),
    "other picture": (copy(GTA5_IMAGE, "GTA5/images/3.bmp"), "left out", "GTA5/images"),
    "image of another name": (
        copy(VAL_IMAGE, "Cityscapes/leftImg8bit/val/ulm/1.png"),
        "left out",
        "Cityscapes/leftImg8bit/val",
    ),
    "no training labels": (all_labels_of("train"), "no training labels", TRAIN_LABELS),
}


@pytest.mark.parametrize("case", NOTES)
def test_a_note_does_not_keep_training_from_running(data, case, capsys):
    spoil, kind, path = NOTES[case]
    spoil(data)
    code, record = check()
    assert code == 0 and record["training_would_run"]
    ((found_kind, found_path),) = found(record)
    assert found_kind == kind and found_path.endswith(path)
    assert not record["findings"][0]["problem"]
    assert f"note: {kind}, 1\n" in capsys.readouterr().out
    assert not training_refuses(data)


def training_refuses(root):
    """Whether training's own way to the files ends in a UserError. Adaptation reads no label of
    Cityscapes' training split, so that there may be none at all."""
    labelled = (root / TRAIN_LABELS).exists()
    try:
        for split in ("train", "val"):
            for files in gta5_files(root / "GTA5", split, 0.2):
                read_pair(files)
        for split in ("train", "val") if labelled else ("val",):
            for files in cityscapes_files(root / "Cityscapes", split):
                read_pair(files)
    except UserError:
        return True
    return False


def test_toy_city_is_clean(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy = ("--toy_train", "4", "--toy_val", "2", "--toy_size", "64", "96", "--toy_root", "toy")
    assert main.main(["--action", "make_toy_data", *toy]) == 0
    code, record = check("--gta5_root", "toy/GTA5", "--cityscapes_root", "toy/Cityscapes")
    assert code == 0 and record["findings"] == [] and record["training_would_run"]
    out, err = capsys.readouterr()
    assert "training would run with these data" in out and "runs/check_data/check_data.json" in out
    assert "check: 100%" in err and "problem" not in out and "note" not in out


def test_counts_by_split_and_city(data):
    save(picture(200, (80, 96)), data / "GTA5/images/00001.png")
    save(label_ids(1, (80, 96)), data / "GTA5/labels/00001.png", "P")
    bern = data / "Cityscapes/leftImg8bit/train/bern/bern_000000_000019_leftImg8bit.png"
    save(picture(201), bern)
    labels = data / "Cityscapes/gtFine/train/bern"
    save(label_ids(5), labels / "bern_000000_000019_gtFine_labelIds.png")
    code, record = check()
    assert code == 0
    small = 72 * 104 / 1e6
    assert record["parts"] == [
        {
            **part("GTA5", "train", "", 8, 7 * small + 80 * 96 / 1e6),
            "sizes": {"104x72": 7, "96x80": 1},
            "proportions": {"1.44": 7, "1.20": 1},
        },
        part("GTA5", "val", "", 2, 2 * small),
        part("Cityscapes", "train", "aachen", 4, 4 * small),
        part("Cityscapes", "train", "bern", 1, small),
        part("Cityscapes", "val", "ulm", 3, 3 * small),
    ]


def part(data_set, split, city, count, megapixels):
    return {
        "data_set": data_set,
        "split": split,
        "city": city,
        "images": count,
        "labels": count,
        "megapixels": pytest.approx(megapixels),
        "sizes": {"104x72": count},
        "proportions": {"1.44": count},
    }


def test_images_of_other_proportions_are_told_with_what_becomes_of_them(data, capsys):
    for number, size in ((1, (96, 128)), (2, (96, 128)), (3, (72, 72))):
        for path in (data / "Cityscapes").rglob(f"aachen_{number:06d}*"):
            array = (
                picture(300 + number, size) if "leftImg8bit" in path.name else label_ids(1, size)
            )
            save(LABEL_ID_TO_TRAIN_ID[array] if "TrainIds" in path.name else array, path)
    code, record = check()
    assert code == 0
    assert found(record) == [("other proportions", "Cityscapes")]
    assert record["parts"][2]["proportions"] == {"1.33": 2, "1.44": 1, "1.00": 1}
    assert (
        "3 of 4 images of Cityscapes train are not of the proportions of 96x64, such as "
        "128x96: they keep theirs and are seen at 96x72, of which training crops 96x64"
    ) in capsys.readouterr().out


def test_class_frequencies_are_those_of_the_arrays_that_were_drawn(data):
    code, record = check()
    assert code == 0
    drawn = {  # what the helpers draw labels from
        ("GTA5", "train"): range(1, 9),
        ("GTA5", "val"): range(9, 11),
        ("Cityscapes", "train"): range(4),
        ("Cityscapes", "val"): range(3),
    }
    assert [(one["data_set"], one["split"]) for one in record["classes"]] == list(drawn)
    for one, seeds in zip(record["classes"], drawn.values(), strict=True):
        maps = [label_ids(seed) for seed in seeds]
        pixels = [sum(int((ids == c.label_id).sum()) for ids in maps) for c in CLASSES]
        assert one["labels"] == len(maps)
        assert one["valid_pixels"] == sum(pixels)
        assert one["ignored_pixels"] == sum(ids.size for ids in maps) - sum(pixels)
        for label_class, count in zip(CLASSES, pixels, strict=True):
            assert one["classes"][label_class.name] == {
                "pixels": count,
                "share_of_valid": pytest.approx(count / sum(pixels)),
                "images": sum(bool((ids == label_class.label_id).any()) for ids in maps),
            }


def test_one_pixel_makes_an_image_of_its_class(data):
    ids = np.full((72, 104), 7, np.uint8)
    ids[40, 50] = 31
    for path in (data / "GTA5/labels").glob("*.png"):
        save(ids, path, "P")
    classes = check()[1]["classes"][0]["classes"]
    assert (classes["train"]["pixels"], classes["train"]["images"]) == (8, 8)
    assert (classes["road"]["images"], classes["bus"]["images"]) == (8, 0)


def test_the_printed_class_table_is_in_percent_of_the_valid_pixels(data, capsys):
    for path in (data / "GTA5/labels").glob("*.png"):
        ids = np.zeros((72, 104), np.uint8)
        ids[:36], ids[36:45] = 7, 26  # half road, an eighth car, the rest of no class
        save(ids, path, "P")
    assert check()[0] == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines if "|" in line}
    assert [float(cell) for cell in cells["road"]] == [80, 8]
    assert [float(cell) for cell in cells["car"]] == [20, 8]
    assert [float(cell) for cell in cells["(none, of all pixels)"]] == [37.5, 8]
    assert [float(cell) for cell in cells["bus"]] == [0, 0]


MISSING = {
    "GTA5": (("--gta5_root", "nowhere"), "nowhere", "Cityscapes", "there is nothing at"),
    "Cityscapes": (("--cityscapes_root", "nowhere"), "nowhere", "GTA5", "there is nothing at"),
    "a folder without either": (("--gta5_root", "."), ".", "Cityscapes", "images is not a folder"),
}


@pytest.mark.parametrize("case", MISSING)
def test_where_one_data_set_is_missing_the_other_is_checked(data, case, capsys):
    words, path, other, sentence = MISSING[case]
    code, record = check(*words)
    assert code == 1 and found(record) == [("missing", path)]
    assert sentence in record["findings"][0]["sentence"]
    assert {part["data_set"] for part in record["parts"]} == {other}
    assert sum(part["images"] for part in record["parts"]) == (7 if other == "Cityscapes" else 10)


def test_without_any_data_it_says_so_twice(data):
    code, record = check("--gta5_root", "nowhere", "--cityscapes_root", "nowhere")
    assert code == 1 and found(record) == [("missing", "nowhere")] * 2
    assert record["parts"] == record["classes"] == []


def test_validation_labels_may_not_be_missing(data):
    all_labels_of("val")(data)
    code, record = check()
    assert code == 1
    assert found(record) == [("missing", str(data / "Cityscapes/gtFine/val"))]


def test_images_of_cityscapes_are_checked_where_it_has_no_label_at_all(data):
    remove_folder("Cityscapes/gtFine")(data)
    cut(TRAIN_IMAGE)(data)
    code, record = check()
    assert code == 1
    assert Counter(kind for kind, _ in found(record)) == {
        "no training labels": 1,
        "missing": 1,
        "truncated": 1,
    }


def test_some_training_labels_are_a_problem_where_none_are_a_note(data):
    name = "aachen_000002_000019_gtFine"
    for kind in ("labelIds", "labelTrainIds"):
        (data / TRAIN_LABELS / "aachen" / f"{name}_{kind}.png").unlink()
    code, record = check()
    assert code == 1 and found(record) == [("unpaired", str(data / TRAIN_IMAGE))]


def test_what_training_refuses_of_whole_files_is_refused(data, capsys):
    code, record = check("--batch_size", "9")
    assert code == 1 and found(record) == [("refused by training", "GTA5")]
    assert "8 images, fewer than a batch of 9" in record["findings"][0]["sentence"]
    code, record = check("--gta5_val_fraction", "0.01")
    assert code == 1 and "too few for a training and a val" in record["findings"][0]["sentence"]


def fill_labels(data, pattern, values):
    for path in data.glob(pattern):
        ids = np.array(values, np.uint8)[label_ids(0) % len(values)]
        save(ids, path, "P" if "GTA5" in pattern else None)


NOTHING_SCORED = {
    "classes of one's own": ("GTA5/labels/*.png", range(5), "0 to 4. Are these train ids, or"),
    "empty labels": ("GTA5/labels/*.png", [0, 4], "0, 4. Are these train ids, or classes of"),
    "ignored": ("Cityscapes/gtFine/val/*/*TrainIds.png", [255], "255, which is ignored: repl"),
}


@pytest.mark.parametrize("case", NOTHING_SCORED)
def test_a_split_without_a_scored_pixel_is_refused_by_the_check_and_by_training(data, case, capsys):
    pattern, values, sentence = NOTHING_SCORED[case]
    fill_labels(data, pattern, values)
    code, record = check()
    assert code == 1 and not record["training_would_run"]
    problems = [one for one in record["findings"] if one["problem"]]
    assert {one["kind"] for one in problems} == {"nothing scored"}
    assert all(f"they hold only {sentence}" in one["sentence"] for one in problems)
    assert len(problems) == (2 if "GTA5" in pattern else 1)  # each split
    action = "train_simple_gta5" if "GTA5" in pattern else "train_fda"
    capsys.readouterr()
    assert main.main(["--action", action, *TINY, "--save_model_path", "runs"]) == 1
    assert f"is scored; they hold only {sentence}" in capsys.readouterr().err
    assert not list(data.glob("runs/*/latest.pth"))


def test_one_scored_pixel_is_enough(data):
    fill_labels(data, "GTA5/labels/*.png", range(5))
    for number in (8, 10):  # the last of each split
        ids = np.zeros((72, 104), np.uint8)
        ids[40, 50] = 7
        save(ids, data / f"GTA5/labels/{number:05d}.png", "P")
    code, record = check()
    assert code == 0 and {one["kind"] for one in record["findings"]} == {"blank label"}


def test_photos_with_names_of_their_own_are_all_counted(data):
    for number in range(6):
        name = f"car/dash_cam_front_{number:04d}_leftImg8bit.png"
        save(picture(300 + number), data / "Cityscapes/leftImg8bit/train" / name)
        name = f"car/dash_cam_front_{number:04d}_gtFine_labelIds.png"
        save(label_ids(number), data / "Cityscapes/gtFine/train" / name)
    code, record = check()
    assert code == 0 and record["findings"] == []
    assert {p["city"]: p["images"] for p in record["parts"]} == {
        **{"": 2, "aachen": 4, "car": 6, "ulm": 3}
    }


def test_empty_folders(data):
    for folder in ("GTA5/images", "GTA5/labels", "Cityscapes/leftImg8bit/val"):
        remove_folder(folder)(data)
        (data / folder).mkdir()
    code, record = check()
    assert code == 1 and found(record) == [
        ("refused by training", "GTA5"),
        ("missing", str(data / "Cityscapes/leftImg8bit/val")),
    ]
    assert "hold no PNG files" in record["findings"][0]["sentence"]


def test_known_bad_pairs_are_left_out_and_not_read(data, capsys):
    make_gta5(data / "GTA5", [15188, 20801])
    cut("GTA5/images/15188.png")(data)
    remove("GTA5/labels/20801.png")(data)
    code, record = check()
    assert code == 0 and record["findings"] == []
    assert record["left_out"] == {"GTA5": 2}
    assert sum(p["images"] for p in record["parts"] if p["data_set"] == "GTA5") == 10
    said = capsys.readouterr()
    assert "2 known bad pairs of GTA5 are left out" in said.out
    assert "left out" not in said.err, "the report says it"


EVERYTHING = several(
    cut("GTA5/images/00001.png"),
    write("GTA5/images/00002.png", b"text"),
    draw("GTA5/labels/00002.png", with_value(40, 2), "P"),
    remove("GTA5/labels/00004.png"),
    draw("GTA5/labels/00005.png", np.zeros((8, 8), np.uint8), "P"),
    copy(VAL_IMAGE, TRAIN_IMAGE),
)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_finding_hides_another_whatever_the_workers(data, workers):
    EVERYTHING(data)
    code, record = check(workers=workers)
    assert code == 1
    assert sorted(found(record)) == [
        ("blank label", str(data / "GTA5/labels/00005.png")),
        ("duplicate image", str(data / VAL_IMAGE)),
        ("label values", str(data / "GTA5/labels/00002.png")),
        ("size mismatch", str(data / "GTA5/labels/00005.png")),
        ("truncated", str(data / "GTA5/images/00001.png")),
        ("unpaired", str(data / "GTA5/images/00004.png")),
        ("unreadable", str(data / "GTA5/images/00002.png")),
    ]
    train = record["parts"][0]
    assert (train["images"], train["labels"]) == (8, 7)
    assert train["sizes"] == {"104x72": 6}  # of the images that can be read
    assert record["classes"][0]["labels"] == 6
    assert record["findings_by_kind"]["truncated"] == 1


def test_many_findings_are_printed_in_part_and_written_whole(data, capsys):
    for number in range(1, 10):
        write(f"GTA5/images/{number:05d}.png", b"")(data)
    code, record = check()
    assert code == 1 and found(record) == [
        ("unreadable", str(data / f"GTA5/images/{number:05d}.png")) for number in range(1, 10)
    ]
    out, err = capsys.readouterr()
    assert "problem: unreadable, 9\n" in out and "  and 4 more\n" in out
    assert out.count("cannot be read as a picture") == report.SHOWN
    assert "training would not run (9 unreadable)" in err


def test_no_exception_of_a_file_ends_the_check(data, monkeypatch):
    def run_out(path, **kinds):
        if path.name == "00003.png":
            raise MemoryError
        return read_image(path, **kinds)

    monkeypatch.setattr(files, "read_image", run_out)
    code, record = check()
    assert code == 1 and found(record) == [("unreadable", str(data / GTA5_IMAGE))]
    assert sum(part["images"] for part in record["parts"]) == 17


def test_names_that_are_no_text_are_printed_all_the_same(data, capsys):
    city = Path(os.fsdecode(os.fsencode(data / "Cityscapes/leftImg8bit/train") + b"/caf\xe9\n"))
    city.mkdir()
    shutil.copy(data / VAL_IMAGE, city / "a_0_0_leftImg8bit.png")
    code, record = check()
    assert code == 1
    assert {kind for kind, _ in found(record)} == {"unpaired", "duplicate image"}
    assert "\\udce9" in capsys.readouterr().out


def test_the_subset_in_its_own_layout_is_checked_alike(data):
    images, labels = ("Cityspaces/images", "Cityspaces/gtFine")
    shutil.rmtree(data / "Cityscapes")
    make_cityscapes(data / "Cityscapes", (images, labels), train=2, val=1)
    cut(f"Cityscapes/{labels}/val/ulm/ulm_000000_000019_gtFine_labelTrainIds.png")(data)
    code, record = check("--save_keyword", "check_data")
    assert code == 1
    assert [kind for kind, _ in found(record) if kind != "duplicate image"] == ["truncated"]


def test_a_keyword_names_the_folder(data):
    check()
    assert check("--save_keyword", "mine")[0] == 0
    assert json.loads(Path("runs/mine/check_data.json").read_text())["training_would_run"]


def test_only_small_things_leave_a_worker(data):
    """A sample of 2 million pixels travels as a few kB, so that memory stays constant."""
    Image.new("RGB", (2048, 1024)).save(data / GTA5_IMAGE)
    Image.new("L", (2048, 1024), 7).save(data / GTA5_LABEL)
    part = Part("GTA5", "train")
    sample = Files(part, data / GTA5_IMAGE, data / GTA5_LABEL, LABEL_IDS)
    reading = files.read(sample)
    assert reading.size == (1024, 2048) and reading.counts[0] == 2048 * 1024
    assert len(pickle.dumps(reading)) < 4096


def test_twins_in_one_split_are_named_and_a_newline_stays_in_its_line(data, capsys):
    images = sorted((data / "GTA5/images").iterdir())
    for path in (images[1], data / "GTA5/labels" / images[1].name):
        path.rename(path.with_name("0\n0.png"))
    images[1].with_name("0\n0.png").write_bytes(images[0].read_bytes())
    assert check()[0] == 0
    printed = capsys.readouterr().out
    assert "note: duplicate image, 1" in printed and "0\\n0.png" in printed
