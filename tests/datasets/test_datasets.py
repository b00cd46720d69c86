import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.catalog import unlabelled
from datasets.data_set import Role
from datasets.gta5 import BAD_PAIRS
from datasets.labels import IGNORE, LABEL_ID_TO_TRAIN_ID, LABEL_IDS, TRAIN_IDS
from datasets.layouts import validation_positions
from datasets.reading import read_image, read_label, read_pair
from datasets.samples import SampleDataset
from main import FlatSettings as Settings
from tests.support.data import cityscapes_files, cityscapes_images, gta5_files, left_out
from tests.support.helpers import label_ids, make_cityscapes, make_gta5, picture, save
from utils.errors import UserError
from utils.transforms import Preparation, train_transform


def test_gta5_labels_are_palette_indices_of_label_ids(tmp_path):
    root = make_gta5(tmp_path)
    file = gta5_files(root, "train", 0.2)[0]
    assert file.name == "00001"
    image, label = read_pair(file)
    assert np.array_equal(image, picture(1))
    assert np.array_equal(label, LABEL_ID_TO_TRAIN_ID[label_ids(1)])


def test_gta5_split_is_by_name_disjoint_and_contiguous(tmp_path):
    root = make_gta5(tmp_path)
    train = [f.name for f in gta5_files(root, "train", 0.2)]
    val = [f.name for f in gta5_files(root, "val", 0.2)]
    assert sorted(train + val) == [f"{n:05d}" for n in range(1, 11)]
    assert val == ["00009", "00010"]


def test_gta5_without_a_validation_split_is_all_for_training(tmp_path):
    root = make_gta5(tmp_path, range(1, 6))
    assert [f.name for f in gta5_files(root, "train", 0)] == [f"{i:05d}" for i in range(1, 6)]
    with pytest.raises(UserError, match="no validation split with --gta5_val_fraction 0"):
        gta5_files(root, "val", 0)


def test_gta5_validation_blocks_keep_neighbours_together():
    positions = sorted(validation_positions(24_904, 0.2))
    assert abs(len(positions) - 0.2 * 24_904) < 10
    starts = [p for p in positions if p - 1 not in set(positions)]
    assert len(starts) == 10 and max(np.diff(starts)) - min(np.diff(starts)) <= 1


def test_known_bad_pairs_are_left_out(tmp_path):
    root = make_gta5(tmp_path, [15187, 15188, 15189, 17705, 20801, 20860, 20861, 20862, 20863])
    names = {f.name for s in ("train", "val") for f in gta5_files(root, s, 0.4)}
    assert names == {"15187", "15189", "20861", "20862", "20863"}
    assert left_out(root) == 4
    assert len(BAD_PAIRS) == 62


@pytest.mark.parametrize(
    "layout",
    [("leftImg8bit", "gtFine"), ("Cityspaces/images", "Cityspaces/gtFine"), ("images", "gtFine")],
)
def test_cityscapes_layouts(tmp_path, layout):
    root = make_cityscapes(tmp_path, layout)
    files = cityscapes_files(root, "train")
    assert [f.name for f in files] == [f"aachen_{i:06d}_000019" for i in range(4)]
    assert all(f.kind == TRAIN_IDS for f in files)
    image, label = read_pair(files[2])
    assert np.array_equal(image, picture(2))
    assert np.array_equal(label, LABEL_ID_TO_TRAIN_ID[label_ids(2)])
    assert len(cityscapes_files(root, "val")) == 3


def test_label_ids_serve_where_train_ids_are_missing(tmp_path):
    root = make_cityscapes(tmp_path)
    before = [read_pair(f)[1] for f in cityscapes_files(root, "train")]
    for path in root.glob("gtFine/*/*/*labelTrainIds.png"):
        path.unlink()
    files = cityscapes_files(root, "train")
    assert all(f.kind == LABEL_IDS for f in files)
    assert all(np.array_equal(read_pair(f)[1], b) for f, b in zip(files, before, strict=True))


def test_missing_and_surplus_partners_are_listed(tmp_path):
    gta5 = make_gta5(tmp_path / "g")
    for number in (2, 3, 4, 5):
        (gta5 / "labels" / f"{number:05d}.png").unlink()
    with pytest.raises(UserError, match=r"4 of 10 files have no label.*00002.png.* and 1 more"):
        gta5_files(gta5, "train", 0.2)
    cityscapes = make_cityscapes(tmp_path / "c")
    next(cityscapes.glob("leftImg8bit/val/ulm/*")).unlink()
    with pytest.raises(UserError, match=r"1 of 3 files have no image"):
        cityscapes_files(cityscapes, "val")


def add_cityscapes_pair(root, place, seed, ending=".png", split="train"):
    save(picture(seed), root / f"leftImg8bit/{split}/{place}_leftImg8bit{ending}")
    save(label_ids(seed), root / f"gtFine/{split}/{place}_gtFine_labelIds.png")


OWN_PLACES = (
    *(f"car/dash_cam_front_{number:04d}" for number in range(3)),
    *("ulm/a_0_0", "bonn/a_0_0", "ulm/a_0_0_1", "ulm/x", "flat", "deep/er/y_0_0_0_0"),
)


def test_cityscapes_images_of_any_name_keep_their_own_labels(tmp_path):
    for seed, place in enumerate(OWN_PLACES):
        add_cityscapes_pair(tmp_path, place, seed)
    files = cityscapes_files(tmp_path, "train")
    assert sorted(one.place for one in files) == sorted(OWN_PLACES)
    for one in files:
        image, label = read_pair(one)
        seed = OWN_PLACES.index(one.place)
        assert np.array_equal(image, picture(seed))
        assert np.array_equal(label, LABEL_ID_TO_TRAIN_ID[label_ids(seed)])
    names = [one.name for one in files]
    assert len(set(names)) == len(OWN_PLACES) and {"ulm/a_0_0", "bonn/a_0_0", "flat"} <= {*names}
    assert [one.name for one in cityscapes_images(tmp_path, "train")] == names


def test_the_same_file_name_in_another_city_is_no_partner(tmp_path):
    add_cityscapes_pair(tmp_path, "ulm/a_0_0", 0)
    (tmp_path / "gtFine/train/ulm").rename(tmp_path / "gtFine/train/bonn")
    with pytest.raises(UserError, match=r"1 of 1 files have no label.*ulm/a_0_0_leftImg8bit.png"):
        cityscapes_files(tmp_path, "train")


def test_pictures_may_be_jpegs_and_end_in_capitals(tmp_path):
    cityscapes, gta5 = tmp_path / "c", make_gta5(tmp_path / "g", range(1, 5))
    for number, ending in enumerate((".jpg", ".PNG", ".JPEG", ".png")):
        add_cityscapes_pair(cityscapes, f"ulm/{number}", number, ending)
        image = gta5 / f"images/{number + 1:05d}.png"
        save(picture(number), image.with_suffix(ending))
        if ending != ".png":
            image.unlink()
    label = gta5 / "labels/00002.png"
    label.rename(label.with_suffix(".PNG"))
    assert [one.name for one in cityscapes_files(cityscapes, "train")] == ["0", "1", "2", "3"]
    files = [one for split in ("train", "val") for one in gta5_files(gta5, split, 0.25)]
    assert [one.name for one in files] == ["00001", "00002", "00003", "00004"]
    assert all(read_pair(one)[0].shape == (72, 104, 3) for one in files)


def test_two_files_of_one_name_are_refused(tmp_path):
    cityscapes, gta5 = make_cityscapes(tmp_path / "c"), make_gta5(tmp_path / "g")
    image = next((cityscapes / "leftImg8bit/train").glob("*/*"))
    save(picture(9), image.with_suffix(".jpg"))
    for find in (cityscapes_files, cityscapes_images):
        with pytest.raises(UserError, match=r"\.jpg and .*\.png have the same name but for"):
            find(cityscapes, "train")
    save(label_ids(9), gta5 / "labels/00003.PNG")
    with pytest.raises(UserError, match=r"00003.PNG and .*00003.png have the same name"):
        gta5_files(gta5, "train", 0.2)


def test_a_jpeg_is_no_label(tmp_path):
    gta5 = make_gta5(tmp_path)
    label = gta5 / "labels/00001.png"
    label.unlink()
    save(label_ids(1), label.with_suffix(".jpg"))
    with pytest.raises(UserError, match=r"00001.jpg is a JPEG .*not keep class ids exactly"):
        read_pair(gta5_files(gta5, "train", 0.2)[0])


def test_hidden_twins_and_other_pictures_are_left_out_and_said(tmp_path, capsys):
    cityscapes, gta5 = make_cityscapes(tmp_path / "c"), make_gta5(tmp_path / "g")
    for root in (cityscapes, gta5):
        for path in list(root.rglob("*.png")):
            path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    save(picture(1), gta5 / "images/00011.bmp")
    assert len(cityscapes_files(cityscapes, "train")) == 4
    assert len(gta5_files(gta5, "train", 0.2)) == 8
    said = capsys.readouterr().err
    images, train = gta5 / "images", cityscapes / "leftImg8bit/train/aachen"
    assert f"left out (hidden files): 10, such as {images}/._00001.png\n" in said
    assert f"left out (hidden files): 4, such as {train}/._aachen_000000_000019_left" in said
    assert f"left out (not named *.png or .jpg): 1, such as {images}/00011.bmp\n" in said


def test_links_between_folders_of_data_are_followed_once(tmp_path, capsys):
    root = make_cityscapes(tmp_path / "c")
    for kind in ("leftImg8bit", "gtFine"):
        elsewhere = tmp_path / "elsewhere" / kind
        (root / kind / "train/aachen").rename(elsewhere.parent.mkdir(exist_ok=True) or elsewhere)
        for link, target in {"aachen": elsewhere, "up": "..", "again": elsewhere}.items():
            (root / kind / "train" / link).symlink_to(target)
        (elsewhere / "round").symlink_to(root / kind / "train")
    names = [f"aachen_{number:06d}_000019" for number in range(4)]
    files = cityscapes_files(root, "train")
    assert [one.name for one in files] == names and files[0].place == f"aachen/{names[0]}"
    assert "links that lead up): 3, such as" in capsys.readouterr().err


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match=r"images is not a folder.*--gta5_root"):
        gta5_files(tmp_path, "train", 0.2)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(UserError, match="no PNG files"):
        gta5_files(tmp_path, "train", 0.2)
    with pytest.raises(UserError, match=r"leftImg8bit with gtFine.*--cityscapes_root"):
        cityscapes_files(tmp_path, "train")


def test_labels_of_the_other_kind_are_named_with_their_values(tmp_path):
    path = save(np.array([[0, 18, IGNORE]], np.uint8), tmp_path / "train.png")
    assert read_label(path, TRAIN_IDS).tolist() == [[0, 18, IGNORE]]
    with pytest.raises(UserError, match=r"train.png should hold label ids.* 255 too"):
        read_label(path, LABEL_IDS)
    path = save(np.array([[7, 26, 33]], np.uint8), tmp_path / "ids.png")
    assert read_label(path, LABEL_IDS).tolist() == [[0, 13, 18]]
    with pytest.raises(UserError, match=r"ids.png should hold train ids.* 26, 33 too"):
        read_label(path, TRAIN_IDS)


@pytest.mark.parametrize("value, kind", [(19, TRAIN_IDS), (254, TRAIN_IDS), (35, LABEL_IDS)])
def test_the_first_value_beyond_the_labels_is_refused(tmp_path, value, kind):
    path = save(np.array([[0, value]], np.uint8), tmp_path / "label.png")
    with pytest.raises(UserError, match=f"holds {value} too"):
        read_label(path, kind)


def test_the_first_sample_replaces_a_last_one_that_is_skipped(tmp_path):
    files = gta5_files(make_gta5(tmp_path), "train", 0.2)
    files[-1].image.write_bytes(b"no picture")
    skipping = SampleDataset(files, train_transform, skips_bad=True)
    assert np.array_equal(skipping.decoded(len(files) - 1)[0], skipping.decoded(0)[0])


def test_broken_pictures_are_named(tmp_path):
    whole = save(picture(0), tmp_path / "whole.png").read_bytes()
    for name, content in {
        "cut.png": whole[: len(whole) // 2],
        "empty.png": b"",
        "x.png": b"no",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_image(path)
    with pytest.raises(UserError, match=r"whole.png is a RGB picture, not a map of class ids"):
        read_label(tmp_path / "whole.png", TRAIN_IDS)


def test_image_and_label_of_different_size(tmp_path):
    root = make_gta5(tmp_path)
    save(label_ids(1, (64, 96)), root / "labels" / "00001.png", "P")
    with pytest.raises(UserError, match=r"104x72 pixels but its label .* is 96x64"):
        read_pair(gta5_files(root, "train", 0.2)[0])


def test_grey_and_rgba_images_become_rgb(tmp_path):
    Image.new("L", (5, 4), 7).save(tmp_path / "grey.png")
    Image.new("RGBA", (5, 4), (1, 2, 3, 4)).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[7, 7, 7]] * 5] * 4
    assert read_image(tmp_path / "rgba.png").tolist() == [[[1, 2, 3]] * 5] * 4


def dataset(root, seed=0):
    transform = train_transform(
        Preparation((80, 112), resizes_label=True),
        crop_to=(64, 96),
        aug_method="C-RP-HF",
        aug_probability=1,
    )
    return SampleDataset(gta5_files(root, "train", 0.2), transform, seed=(seed, 0))


def test_a_sample_is_a_function_of_seed_epoch_and_index(tmp_path):
    make_gta5(tmp_path)
    first = dataset(tmp_path)[3, 2]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = dataset(tmp_path)[3, 2]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.image, again.image) and torch.equal(first.label, again.label)
    for other in (dataset(tmp_path)[4, 2], dataset(tmp_path, seed=1)[3, 2]):
        assert not torch.equal(first.image, other.image)
    assert first.image.dtype == torch.uint8 and first.image.shape == (3, 64, 96)
    assert first.label.dtype == torch.uint8 and first.label.shape == (64, 96)
    assert type(first.image) is torch.Tensor


def test_pictures_of_cityscapes_without_its_ending_are_counted_with_the_remedy(tmp_path):
    root = make_cityscapes(tmp_path)
    for folder in ("train/aachen", "val/ulm"):
        for path in (root / "leftImg8bit" / folder).iterdir():
            path.rename(path.with_name(path.name.replace("_leftImg8bit", "")))
    for read, split, count in ((cityscapes_files, "val", 3), (cityscapes_images, "train", 4)):
        named = rf"{count} pictures there are not named \*_leftImg8bit.png or .jpg, such as \w+.png"
        with pytest.raises(UserError, match=rf"{named}: rename them, for .*_leftImg8bit\.png"):
            read(root, split)


def test_cityscapes_without_any_label_names_what_is_missing(tmp_path):
    root = make_cityscapes(tmp_path)
    shutil.rmtree(root / "gtFine")
    with pytest.raises(UserError, match="holds leftImg8bit but no gtFine: put the labels there"):
        cityscapes_files(root, "val")
    assert len(cityscapes_images(root, "train")) == 4


def test_a_video_that_cannot_be_read_is_left_out_of_a_folder_and_said(tmp_path, capsys):
    pytest.importorskip("av")
    street = tmp_path / "street"
    for number in range(3):
        save(np.full((64, 96, 3), number, np.uint8), street / f"{number}.png")
    (street / "IMG_1.MOV").write_bytes(b"no video")
    settings = Settings(target="folder", target_root=street, cache_dir=tmp_path / "cache")
    files = unlabelled(Role.TARGET, "train", settings)
    assert [one.name for one in files] == ["0", "1", "2"]
    said = "".join(capsys.readouterr())
    assert "left out: " in said and "IMG_1.MOV cannot be read as a video" in said
    (street / "0.png").unlink()
    (street / "1.png").unlink()
    with pytest.raises(UserError, match="needed at least: put more there"):
        unlabelled(Role.TARGET, "train", settings)


def test_a_root_one_level_too_high_is_told_the_right_one(tmp_path):
    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")
    (tmp_path / "ACDC" / "images").mkdir(parents=True)  # a part of what GTA5 has
    (tmp_path / "Archive").mkdir()
    with pytest.raises(UserError, match=r"with --gta5_root, such as .*/GTA5$"):
        gta5_files(tmp_path, "train", 0.2)
    (tmp_path / "ACDC" / "images").rmdir()
    (tmp_path / "GTA5" / "images").rename(tmp_path / "GTA5" / "pictures")
    with pytest.raises(UserError, match=r"with --cityscapes_root, such as .*/Cityscapes$"):
        cityscapes_images(tmp_path, "train")
