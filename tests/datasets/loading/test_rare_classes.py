import itertools

import numpy as np
import pytest
import torch

from datasets.cache import PictureStore
from datasets.catalog import TrainingFiles, labelled
from datasets.data_set import Role
from datasets.labels import IGNORE, LABEL_ID_TO_TRAIN_ID, NUM_CLASSES
from datasets.loading.batches import training_batches
from datasets.loading.class_counts import class_counts
from datasets.loading.pairs import SOURCE_STREAM, TrainingData
from datasets.loading.rare_classes import MIN_SHARE, TRIES, RareClasses
from datasets.loading.sets import training_samples
from datasets.samples import SampleDataset
from main import FlatSettings as Settings
from tests.support.data import gta5_files
from tests.support.helpers import make_gta5, picture, save
from utils import processes
from utils.transforms import Preparation, train_transform

SIZE, CROP = (72, 104), (32, 48)
PIXELS = SIZE[0] * SIZE[1]
ROAD, POLE, TRAIN = 0, 5, 16
PREPARATION = Preparation(SIZE, resizes_label=True)


def counts(*rows: dict[int, int]) -> np.ndarray:
    """Return the counts of labels whose classes have so many pixels; the others have none."""
    made = np.zeros((len(rows), NUM_CLASSES + 1), np.int64)
    for row, pixels in zip(made, rows, strict=True):
        row[list(pixels)] = list(pixels.values())
        row[-1] = PIXELS - row.sum()
    return made


COUNTS = counts(
    {ROAD: 4000, POLE: 200},
    {ROAD: 5000, 1: 1500, POLE: 5},
    {ROAD: 3000, 2: 2500, 8: 900},
    {ROAD: 6000, TRAIN: 3},
)


def samples(root, aug_method=""):
    transform = train_transform(
        PREPARATION, crop_to=CROP, aug_method=aug_method, aug_probability=0.5
    )
    return SampleDataset(gta5_files(root, "train", 0.2), transform, seed=(0, 0))


@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5])
def test_classes_are_drawn_as_often_as_the_paper_says(temperature):
    """P(c) = softmax((1 - f_c) / T) over the classes of the labels, within the sampling error."""
    pixels = COUNTS[:, :NUM_CLASSES].sum(0).astype(float)
    present = pixels > 0
    f = pixels[present] / pixels.sum()
    weights = np.exp((1 - f) / temperature)
    expected = weights / weights.sum()
    rare, draws = RareClasses(COUNTS, temperature, pixels=PIXELS, seed=(3,)), 6000
    drawn = rare.drawn(0, draws)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(np.array(list(drawn.values())) - expected) <= 4 * error + 1e-12).all()


def test_at_a_high_temperature_all_classes_are_drawn_alike():
    drawn = RareClasses(COUNTS, 1e6, pixels=PIXELS, seed=(0,)).drawn(0, 6000)
    assert list(drawn.values()) == pytest.approx([1 / 6] * 6, abs=4 * (1 / 6 * 5 / 6 / 6000) ** 0.5)


def test_a_class_is_drawn_with_an_image_that_holds_enough_of_it():
    """Or, where none does, with one that holds some."""
    assert 5 < MIN_SHARE * PIXELS < 200
    keys = list(itertools.islice(RareClasses(COUNTS, 1.0, pixels=PIXELS, seed=(0,)).keys(0), 600))
    found = {number: {index for _, index, one in keys if one == number} for *_, number in keys}
    assert found == {ROAD: {0, 1, 2, 3}, POLE: {0}, 1: {1}, 2: {2}, 8: {2}, TRAIN: {3}}


def paired(root):
    rare = RareClasses(class_counts(samples(root), num_workers=0), 0.1, pixels=PIXELS, seed=(0, 0))
    return TrainingData(samples(root), samples(root), batch_size=4, seed=0, passes=2, rare=rare)


def test_the_order_is_a_function_of_seed_and_step(tmp_path, monkeypatch):
    data = paired(make_gta5(tmp_path))
    whole = list(data.keys(0, 9))
    for start in range(9):
        assert list(data.keys(start, 9)) == whole[start:]
    assert len({source for batch in whole for source, _ in batch}) == 36
    alone = list(data.own_keys(0, 9))
    monkeypatch.setattr(processes, "count", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(list(TrainingData.own_keys(data, 0, 9)))
    assert sum(map(len, shares)) == 2 * len(alone)
    together = [key for step in zip(*shares, strict=True) for part in step for key in part]
    assert sorted(together) == sorted(key for part in alone for key in part)


def test_workers_change_nothing(tmp_path):
    data = paired(make_gta5(tmp_path))
    alone, others = (
        list(training_batches(data, 1, 4, num_workers=n, device=torch.device("cpu")))
        for n in (0, 2)
    )
    for one, other in zip(alone, others, strict=True):
        assert one.source.name == other.source.name
        assert torch.equal(one.source.image, other.source.image)
        assert torch.equal(one.source.label, other.source.label)


def corner_of_poles(root):
    """Draw samples of road with a pole in a corner, which most crops miss."""
    ids = np.full(SIZE, 7, np.uint8)
    ids[:16, :16] = 17
    for number in range(1, 11):
        save(picture(number, SIZE), root / "images" / f"{number:05d}.png")
        save(ids, root / "labels" / f"{number:05d}.png", "P")
    return root


def test_crops_are_drawn_anew_until_they_hold_the_class(tmp_path):
    source = samples(corner_of_poles(tmp_path))
    rare = RareClasses(class_counts(source, num_workers=0), 0.5, pixels=PIXELS, seed=(0, 0))
    least = 0.5 * MIN_SHARE * PIXELS

    def held(crops):
        return np.mean([(crop.label == POLE).sum().item() >= least for crop in crops])

    keys = [(draw, draw % 8, POLE) for draw in range(60)]
    first = held(source[draw * TRIES, index] for draw, index, _ in keys)
    redrawn = held(rare.sample(source, key) for key in keys)
    assert 0 < first < 0.5 and redrawn == pytest.approx(1 - (1 - first) ** TRIES, abs=0.15)
    one, again = (rare.sample(source, keys[7]) for _ in range(2))
    assert torch.equal(one.image, again.image)


def test_a_class_that_every_crop_loses_ends_with_the_last_one(tmp_path):
    source = samples(corner_of_poles(tmp_path))
    rare = RareClasses(counts(*[{TRAIN: 200}] * 8), 0.5, pixels=PIXELS, seed=(0, 0))
    sample = rare.sample(source, (5, 3, TRAIN))
    assert torch.equal(sample.image, source[5 * TRIES + TRIES - 1, 3].image)


# --------------------------------------------------------------------------------------- the counts


def plain_counts(files):
    """Count the train ids of labels without our code."""
    from PIL import Image

    labels = [LABEL_ID_TO_TRAIN_ID[np.array(Image.open(one.label))] for one in files]
    ids = [*range(NUM_CLASSES), IGNORE]
    return np.array([[(label == number).sum() for number in ids] for label in labels])


@pytest.mark.parametrize("workers", [0, 2])
def test_classes_are_counted(tmp_path, workers):
    source = samples(make_gta5(tmp_path))
    assert (class_counts(source, num_workers=workers) == plain_counts(source.files)).all()


def test_counts_lie_beside_the_cache_and_are_read_from_there(tmp_path, monkeypatch, capsys):
    settings = Settings(
        gta5_root=make_gta5(tmp_path / "GTA5"),
        cache_dir=tmp_path / "cache",
        image_size=(64, 96),
        num_workers=0,
    )
    files = TrainingFiles(Role.SOURCE, labelled(Role.SOURCE, "train", settings))
    source = training_samples(files, settings, SOURCE_STREAM)
    first = class_counts(source, num_workers=0)
    (path,) = (tmp_path / "cache").glob("*.counts")
    assert (first.sum(1) == 90 * 120).all()
    for number, one in enumerate(source.cached.labels.read(place) for place in range(8)):
        assert first[number].tolist()[:NUM_CLASSES] == [(one == n).sum() for n in range(19)]
    with monkeypatch.context() as patch:
        patch.setattr(PictureStore, "read", lambda *_: pytest.fail("the labels are read again"))
        assert (class_counts(source, num_workers=0) == first).all()
    content = path.read_bytes()
    for damaged in (content[:-1], content[:200] + b"x" + content[201:], b"", b"nonsense"):
        path.write_bytes(damaged)
        assert (class_counts(source, num_workers=0) == first).all()
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()  # like a folder that cannot be written, which root always can
    assert (class_counts(source, num_workers=0) == first).all()
    assert f"{path} cannot be written" in capsys.readouterr().out
