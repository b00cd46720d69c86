"""A damaged file gives a result of the right kind or a UserError, and nothing else.

Real files of each kind are damaged in hundreds of seeded ways.
"""

import contextlib
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.labels import LABEL_IDS, TRAIN_IDS
from datasets.reading import picture_size, read_image, read_label
from model.weights.reading import read_state_dict
from tests.support.helpers import claim_size, label_ids, picture
from utils.disk.run_folder import RunFolder
from utils.errors import UserError

CASES = 300
SIZE = (24, 32)


def damaged(content: bytes, case: int) -> bytes:
    """Cut short, bytes changed, a part repeated, swapped for noise, or left out."""
    rng = np.random.default_rng(case)
    data = bytearray(content)
    first, last = sorted(rng.integers(0, len(data), 2).tolist())
    last = min(last, first + 64)
    kind = case % 5
    if kind == 0:
        return bytes(data[:first])
    if kind == 1:
        for place in rng.integers(0, len(data), rng.integers(1, 8)):
            data[place] ^= 1 << rng.integers(0, 8)
        return bytes(data)
    middle = {2: data[first:last] * 2, 3: rng.bytes(last - first), 4: b""}[kind]
    return bytes(data[:first]) + bytes(middle) + bytes(data[last:])


def png(array, path, mode=None):
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    return path


def checked_image(path):
    image = read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def checked_label(path):
    label = read_label(path, LABEL_IDS)
    assert label.dtype == np.uint8 and label.ndim == 2
    assert set(np.unique(label)) <= {*range(19), 255}
    assert picture_size(path) == label.shape


def checked_weights(path):
    tensors = read_state_dict(path)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def weights(path):
    torch.save({"network": {"a.weight": torch.arange(200.0), "b": torch.ones(3)}}, path)
    return path


def old_weights(path):
    torch.save({"a": torch.arange(50.0)}, path, _use_new_zipfile_serialization=False)
    return path


def settings_file(path):
    path.write_text(json.dumps({"action": "train_fda", "fda_beta": 0.05, "list": [1, 2]}))
    return path


KINDS = {
    "PNG": (lambda p: png(picture(0, SIZE), p / "a.png"), checked_image),
    "JPEG": (lambda p: png(picture(0, SIZE), p / "a.jpg"), checked_image),
    "label": (lambda p: png(label_ids(0, SIZE), p / "a.png"), checked_label),
    "palette label": (lambda p: png(label_ids(0, SIZE), p / "a.png", "P"), checked_label),
    "checkpoint": (lambda p: weights(p / "a.pth"), checked_weights),
    "old checkpoint": (lambda p: old_weights(p / "a.pth"), checked_weights),
    "run's checkpoint": (
        lambda p: weights(p / "latest.pth"),
        lambda path: RunFolder(path.parent).load_checkpoint("latest.pth"),
    ),
    "settings": (
        lambda p: settings_file(p / "settings.json"),
        lambda path: RunFolder(path.parent).read_json("settings.json"),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_only_our_own_errors_come_out(tmp_path, kind):
    make, read = KINDS[kind]
    path = make(tmp_path)
    read(path)
    whole, refused = path.read_bytes(), 0
    for case in range(CASES):
        path.write_bytes(damaged(whole, case))
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error), case
            refused += 1
    assert refused > CASES / 10


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    path = weights(tmp_path / "a.pth")
    whole = bytearray(path.read_bytes())
    place = whole.find(np.arange(200, dtype=np.float32).tobytes())
    whole[place + 402] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.pth"):
        read_state_dict(path)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "CMYK"])
def test_other_8_bit_pictures_are_read_as_rgb(tmp_path, mode):
    Image.fromarray(picture(0, SIZE)).convert(mode).save(tmp_path / f"a.{ending(mode)}")
    assert read_image(tmp_path / f"a.{ending(mode)}").shape == (*SIZE, 3)


def ending(mode):
    return "jpg" if mode == "CMYK" else "png"


def test_a_jpeg_named_png_is_read_for_what_it_is(tmp_path):
    Image.fromarray(picture(0, SIZE)).save(tmp_path / "a.png", "JPEG")
    assert read_image(tmp_path / "a.png").shape == (*SIZE, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deeper_pictures_are_refused(tmp_path, dtype):
    path = tmp_path / ("a.png" if dtype == np.uint16 else "a.tiff")
    Image.fromarray(np.full(SIZE, 1000, dtype)).save(path)
    for read in (read_image, lambda path: read_label(path, TRAIN_IDS)):
        with pytest.raises(UserError, match=r"a\.(png|tiff)"):
            read(path)


def test_a_picture_of_10_billion_pixels_is_refused(tmp_path):
    """A PNG's header may say anything."""
    path = png(picture(0, SIZE), tmp_path / "a.png")
    claim_size(path, 100_000)
    with pytest.raises(UserError, match=r"a\.png.*more than 178 million pixels"):
        read_image(path)


def test_no_flipped_bit_of_a_label_makes_another_label(tmp_path):
    """Decoding stops at the last pixel, before the checksum of what was packed."""
    path = png(label_ids(0, SIZE), tmp_path / "a.png")
    whole, right = path.read_bytes(), read_label(path, LABEL_IDS)
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            assert np.array_equal(read_label(path, LABEL_IDS), right), bit


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png.*no file"):
        read_image(tmp_path / "a.png")


def test_a_program_for_ghostscript_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 64\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(UserError, match=r"a\.png.*none of PNG, JPEG\)"):
        read_image(path)


@pytest.mark.parametrize("name", ["with space.png", "ünïcödé 街.png", "new\nline.png"])
def test_names_may_be_strange(tmp_path, name):
    assert read_image(png(picture(0, SIZE), tmp_path / name)).shape == (*SIZE, 3)
