import itertools
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from datasets import layouts
from datasets.catalog import TrainingFiles, labelled
from datasets.data_set import Role
from datasets.loading import batches
from datasets.loading.batches import batches_of, each_item, scaled_batches, training_batches
from datasets.loading.pairs import SOURCE_STREAM, TARGET_STREAM, TrainingData
from datasets.loading.sets import training_samples, unlabelled_samples, validation_samples
from datasets.reading import read_image
from datasets.samples import SampleDataset
from main import FlatSettings as Settings
from tests.support.data import gta5_files
from tests.support.helpers import label_ids, make_cityscapes, make_gta5, picture, save
from trainings.application.segmenter import as_seen
from utils.errors import UsageError, UserError
from utils.transforms import Preparation, train_transform

CPU = torch.device("cpu")


def samples(root, stream=0):
    transform = train_transform(
        Preparation((72, 104), resizes_label=True),
        crop_to=(64, 96),
        aug_method="C-HF",
        aug_probability=0.5,
    )
    return SampleDataset(gta5_files(root, "train", 0.2), transform, seed=(0, stream))


@pytest.fixture
def data(tmp_path):
    source = samples(make_gta5(tmp_path / "a"))
    target = samples(make_gta5(tmp_path / "b", range(1, 7)), stream=1)
    return TrainingData(source, target, batch_size=3, seed=0)


def names(batches):
    return [(b.source.name, b.target and b.target.name) for b in batches]


def test_an_epoch_is_one_pass_over_the_source(data):
    assert len(data.source) == 8 and data.steps_per_epoch == 2
    epochs = [[key for batch in data.keys(2 * e, 2 * e + 2) for key, _ in batch] for e in range(3)]
    for epoch, keys in enumerate(epochs):
        assert {e for e, _ in keys} == {epoch}
        assert len({index for _, index in keys}) == 6
    assert epochs[0] != epochs[1]


def test_the_target_cycles_with_fresh_shuffles(data):
    keys = [target for batch in data.keys(0, 10) for _, target in batch]
    size = len(data.target)
    passes = [keys[start : start + size] for start in range(0, len(keys), size)]
    for number, part in enumerate(passes[:-1]):
        assert sorted(part) == [(number, index) for index in range(size)]
    assert len({tuple(i for _, i in part) for part in passes[:-1]}) > 1


def test_any_step_can_be_started_from(data):
    whole = list(data.keys(0, 9))
    for start in range(9):
        assert list(data.keys(start, 9)) == whole[start:]


def test_workers_change_nothing(data):
    batches = [list(training_batches(data, 1, 5, num_workers=n, device=CPU)) for n in (0, 1, 4)]
    for other in batches[1:]:
        assert names(other) == names(batches[0])
        for a, b in zip(batches[0], other, strict=True):
            assert torch.equal(a.source.image, b.source.image)
            assert torch.equal(a.source.label, b.source.label)
            assert torch.equal(a.target.image, b.target.image)
            assert a.generator.initial_seed() == b.generator.initial_seed()
    later = training_batches(data, 3, 5, num_workers=0, device=CPU)
    expected = [batch.generator.initial_seed() for batch in batches[0][2:]]
    assert [batch.generator.initial_seed() for batch in later] == expected


class Counting(SampleDataset):
    """Names each sample by the number of processes that load them."""

    def __getitem__(self, key):
        return super().__getitem__(key)._replace(name=get_worker_info().num_workers)


def test_no_more_processes_are_started_than_there_are_batches(data):
    samples = Counting(data.source.files[:3], data.source.transform)
    batches = scaled_batches(samples, (), batch_size=2, num_workers=4, device=CPU)
    assert {name for batch in batches for name in batch.names} == {2}
    assert len(list(each_item(str, ["photo"], num_workers=4))) == 1


def test_a_batch_of_a_training_without_a_target_has_none(data):
    alone = TrainingData(data.source, batch_size=3, seed=0)
    batches = list(training_batches(alone, 0, 2, num_workers=0, device=CPU))
    assert [b.target for b in batches] == [None, None]
    paired = training_batches(data, 0, 2, num_workers=0, device=CPU)
    assert [s for s, _ in names(batches)] == [s for s, _ in names(paired)]
    assert batches[0].source.image.shape == (3, 3, 64, 96)


def test_batch_size_is_checked(data):
    with pytest.raises(UsageError, match="at least 2"):
        TrainingData(data.source, batch_size=1, seed=0)
    with pytest.raises(UserError, match="8 images, fewer than a batch of 9"):
        TrainingData(data.source, batch_size=9, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_one_sentence_also_from_a_worker(data, workers):
    data.source.files[0].image.write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as a picture") as caught:
        list(training_batches(data, 0, 6, num_workers=workers, device=CPU))
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_the_callers_handler_of_dead_children_is_back_after_the_last_batch():
    def handler(signum, frame):
        pass

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        items = each_item(int, [1, 2], num_workers=1)
        assert next(items) == 1 and signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        assert list(items) == [2] and signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("lost", [ConnectionResetError, EOFError, FileNotFoundError])
def test_a_batch_whose_worker_died_before_it_was_fetched_is_one_sentence(lost):
    def fetching():
        raise lost("the worker is gone")
        yield

    with pytest.raises(UserError, match="a process that loads data has died"):
        list(batches._raising(fetching()))


def test_validation_sees_every_image_once_with_labels_at_their_size(tmp_path):
    files = gta5_files(make_gta5(tmp_path), "train", 0.2)
    dataset = SampleDataset(files, Preparation((64, 96), resizes_label=False))
    batches = list(scaled_batches(dataset, (), batch_size=3, num_workers=0, device=CPU))
    assert [n for b in batches for n in b.names] == [f.name for f in files]
    assert all(image.shape[1:] == (3, 64, 96) for b in batches for image in b.images)
    assert all(label.shape == (72, 104) for b in batches for label in b.labels)


def test_another_seed_is_another_order_and_the_domains_draw_apart(tmp_path):
    both = [samples(make_gta5(tmp_path), stream) for stream in (0, 1)]
    first, other = (list(TrainingData(*both, batch_size=3, seed=n).keys(0, 2)) for n in (0, 1))
    assert first != other
    source, target = zip(*(pair for batch in first for pair in batch), strict=True)
    assert source != target
    assert not torch.equal(both[0][0, 0].image, both[1][0, 0].image)


@pytest.mark.parametrize("settled", [True, False])
def test_gta5_is_listed_once_until_a_file_is_added(tmp_path, monkeypatch, settled):
    """A list of a folder that has just been changed is made again: the next change may have the
    same time."""
    settings = Settings(gta5_root=make_gta5(tmp_path / "GTA5", range(15181, 15191)))
    folders = [settings.gta5_root / name for name in ("images", "labels")]
    scan, listed = os.scandir, []

    def counting(folder):
        listed.append(Path(folder).name)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", counting)

    def samples():
        return [len(labelled(Role.SOURCE, split, settings)) for split in ("train", "val")]

    def change(number, seconds):
        save(picture(number), folders[0] / f"{number}.png")
        save(label_ids(number), folders[1] / f"{number}.png", "P")
        now = time.time() - (layouts.SETTLED if settled else 0)
        for folder in folders:
            os.utime(folder, (now + seconds,) * 2)

    change(15191, -2)
    assert samples() == [8, 2] and samples() == [8, 2]  # 15188 is left out
    assert listed == ["images", "labels"] * (1 if settled else 8)
    change(15192, -1 if settled else -2)
    assert samples() == [9, 2]


@pytest.fixture
def broken(tmp_path):
    """Settings for Cityscapes with a training and a validation image that are none, to skip."""
    root = make_cityscapes(tmp_path)
    for split in ("train", "val"):
        next((root / "leftImg8bit" / split).glob("*/*")).write_bytes(b"no picture")
    return Settings(
        cityscapes_root=root, image_size=(64, 96), on_bad_sample="skip", cache_dir=Path("none")
    )


def test_bad_samples_are_skipped_in_training_and_statistics_and_never_in_validation(broken):
    without_labels = unlabelled_samples(Role.TARGET, broken)
    files = TrainingFiles(Role.TARGET, labelled(Role.TARGET, "train", broken))
    for data in (
        without_labels,
        without_labels.subset(range(4)),
        training_samples(files, broken, 0),
    ):
        assert all(data[0, index].image.shape == (3, 64, 96) for index in range(len(data)))
    validation = validation_samples(Role.TARGET, broken)
    with pytest.raises(UserError, match="cannot be read as a picture"):
        for index in range(len(validation)):
            validation[0, index]


def test_the_streams_of_two_domains_are_drawn_apart(tmp_path):
    settings = Settings(
        gta5_root=make_gta5(tmp_path),
        image_size=(64, 96),
        aug_method="C-RP",
        aug_probability=1.0,
        cache_dir=Path("none"),
    )
    files = TrainingFiles(Role.SOURCE, labelled(Role.SOURCE, "train", settings))
    source, target = (training_samples(files, settings, n) for n in (SOURCE_STREAM, TARGET_STREAM))
    assert not torch.equal(source[0, 0].image, target[0, 0].image)


def fill_memory(way, _item):
    """Find no room in a worker's shared memory, in one of the two ways that torch has."""
    if way == "killed":
        os.kill(os.getpid(), signal.SIGBUS)
    raise RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on "
        "device (28)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "refused"])
def test_too_little_shared_memory_is_a_sentence_with_both_remedies(way):
    with pytest.raises(UserError, match=r"--shm-size 8g.*--num_workers 0"):
        list(each_item(partial(fill_memory, way), [0], num_workers=1))
    assert not multiprocessing.active_children()


@pytest.fixture
def photos(tmp_path):
    """Settings for Cityscapes' layout with training and validation photos of several proportions:
    4:3, the network's, 4:1 and upright. The right third of each is red, and of another class."""
    sizes = [(96, 128), (64, 128), (48, 192), (128, 96)]
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for number, (height, width) in enumerate(sizes):
            image = np.full((height, width, 3), 40, np.uint8)
            label = np.full((height, width), 7, np.uint8)
            image[:, -width // 3 :, 0], label[:, -width // 3 :] = 250, 8
            name = f"{city}_{number:06d}_000019"
            save(image, tmp_path / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            save(label, tmp_path / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png")
    return Settings(
        cityscapes_root=tmp_path,
        image_size=(64, 128),
        cache_dir=tmp_path / "cache",
        num_workers=0,
    )


@pytest.mark.parametrize("cache", ["cache", "none"])
def test_photos_of_other_proportions_keep_them_alike_in_training_and_validation(
    photos, cache, capsys
):
    settings = replace(
        photos, cache_dir=photos.cityscapes_root / cache if cache == "cache" else Path(cache)
    )
    validation = validation_samples(Role.TARGET, settings, often=True)
    assert (validation.cached is None) == (cache == "none")
    seen = [validation[0, index] for index in range(4)]
    shapes = [(96, 128), (64, 128), (64, 256), (171, 128)]
    assert [tuple(sample.image.shape[1:]) for sample in seen] == shapes
    labels = [(96, 128), (64, 128), (48, 192), (128, 96)]  # whole, at their own sizes
    assert [tuple(sample.label.shape) for sample in seen] == labels
    for path, sample in zip(validation.files, seen, strict=True):
        own = read_image(path.image)
        assert torch.equal(as_seen(own, settings.image_size), sample.image)
    files = TrainingFiles(Role.TARGET, labelled(Role.TARGET, "train", settings))
    training = training_samples(files, settings, 0)
    assert (training.cached is None) == (cache == "none")
    for epoch, index in itertools.product(range(8), range(4)):
        image, label, _ = training[epoch, index]
        assert image.shape == (3, 64, 128) and label.shape == (64, 128)
        edge = (image[0].float() - 145).abs() < 100  # pixels between both colours
        red = image[0] > 145
        assert torch.equal(red[~edge], (label == 1)[~edge])
    note = "Cityscapes: 3 of 4 pictures are not of the proportions of 64x128: they keep theirs"
    assert note in capsys.readouterr().err or cache == "none"  # said once in a process


def test_photos_of_other_proportions_give_statistics_and_pseudo_labels(photos):
    cropped = unlabelled_samples(Role.TARGET, photos)
    assert {cropped[0, index].image.shape for index in range(4)} == {(3, 64, 128)}
    whole = unlabelled_samples(Role.TARGET, photos, whole=True)
    assert whole[0, 0].image.shape == (3, 96, 128)
    (images,) = batches_of(cropped, [range(4)], num_workers=0, device=CPU)
    assert images.shape == (4, 3, 64, 128)


def test_skipping_among_photos_of_several_proportions_does_without_a_cache(photos, capsys):
    skipping = replace(photos, on_bad_sample="skip")
    files = TrainingFiles(Role.TARGET, labelled(Role.TARGET, "train", skipping))
    files.files[1].image.write_bytes(b"no picture")
    samples = training_samples(files, skipping, 0)
    assert samples.cached is None and "no cache: " in capsys.readouterr().out
    assert samples[0, 1].image.shape == (3, 64, 128)
