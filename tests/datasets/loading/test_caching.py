import errno
import multiprocessing
import os
import pickle
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets.cache import digest_of
from datasets.catalog import TrainingFiles, labelled, unlabelled
from datasets.data_set import Role
from datasets.loading import caching
from datasets.loading.caching import attach_cache, prepared_sizes
from datasets.loading.pairs import SOURCE_STREAM
from datasets.loading.sets import training_samples, unlabelled_samples, validation_samples
from datasets.pseudo_labels import pseudo_label_path, with_pseudo_labels
from datasets.reading import SampleFiles
from main import FlatSettings as Settings
from tests.support.data import cityscapes_images
from tests.support.helpers import TINY, claim_size, make_cityscapes, make_gta5, picture, save
from utils.errors import UserError
from utils.transforms import Preparation


@pytest.fixture
def settings(tmp_path):
    return Settings(
        gta5_root=make_gta5(tmp_path / "GTA5"),
        cityscapes_root=make_cityscapes(tmp_path / "Cityscapes"),
        cache_dir=tmp_path / "cache",
        image_size=(64, 96),
        aug_method="C-HF-RS",
        num_workers=0,
    )


def training(settings, domain=Role.SOURCE):
    files = labelled(domain, "train", settings)
    return training_samples(TrainingFiles(domain, files), settings, SOURCE_STREAM)


def without(settings):
    return replace(settings, cache_dir=Path("none"))


def assert_equal(ours, expected, epochs=(0, 3)):
    assert len(ours) == len(expected)
    for epoch in epochs:
        for index in range(len(ours)):
            a, b = ours[epoch, index], expected[epoch, index]
            assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)
            assert a.name == b.name


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_equal_to_decoded_ones_bit_for_bit(settings, workers):
    settings = replace(settings, num_workers=workers)
    cached = training(settings)
    assert cached.cached is not None
    assert_equal(cached, training(without(settings)))
    validation = validation_samples(Role.TARGET, settings, often=True)
    assert validation.cached is not None and validation[0, 0].label.shape == (72, 104)
    assert_equal(validation, validation_samples(Role.TARGET, without(settings)))


def test_nothing_is_decoded_a_second_time(settings, monkeypatch):
    first = training(settings)
    monkeypatch.setattr("datasets.samples.read_pair", None)
    assert_equal(training(settings), first)


def test_images_without_labels_share_the_store_of_the_labelled_ones(settings, monkeypatch):
    training(settings, Role.TARGET)
    stores = sorted(path.name for path in settings.cache_dir.glob("*.u8"))
    assert len(stores) == 2
    monkeypatch.setattr("datasets.samples.read_pair", None)
    files = unlabelled(Role.TARGET, "train", settings)
    target = training_samples(TrainingFiles(Role.TARGET, files), settings, 1)
    assert target.cached is not None and (target[0, 0].label == 255).all()
    assert unlabelled_samples(Role.TARGET, settings).cached is not None
    assert sorted(path.name for path in settings.cache_dir.glob("*.u8")) == stores


def test_stores_of_an_earlier_release_are_named_once_and_kept(settings, capsys):
    settings.cache_dir.mkdir()
    (settings.cache_dir / "0123.u8").write_bytes(bytes(30_000_000))
    training(settings)
    said = capsys.readouterr().out
    assert "0.03 GB of an earlier release, which are not used any more: delete 0123.u8, and" in said
    validation_samples(Role.TARGET, settings, often=True)
    assert "0123.u8" not in capsys.readouterr().out
    assert (settings.cache_dir / "0123.u8").exists()


def test_headers_are_read_once(tmp_path):
    files = [
        SampleFiles(str(number), save(picture(number, size), tmp_path / f"{number}.png"))
        for number, size in enumerate([(64, 96), (64, 200)])
    ]
    sizes = prepared_sizes(files, Preparation((64, 96), True))
    files[1].image.unlink()
    assert prepared_sizes(files, Preparation((64, 96), True)) == sizes == [(64, 96), (64, 200)]


def pseudo_labelled(settings, seed, size=(64, 96)):
    """A making of pseudo-labels, and the training samples with them."""
    root = settings.cityscapes_root
    folder, images = root.parent, cityscapes_images(root, "train")
    for place, files in enumerate(images):
        label = np.random.default_rng([seed, place]).integers(0, 19, size, np.uint8)
        save(label, pseudo_label_path(folder, "train", files))
    files = with_pseudo_labels(images, folder, "train")
    return training_samples(TrainingFiles(Role.TARGET, files), settings, 1)


def test_pseudo_labels_leave_no_cache_of_them_behind(settings, monkeypatch):
    """Every making has new ones; the images are those that the target has without labels."""
    files = unlabelled(Role.TARGET, "train", settings)
    training_samples(TrainingFiles(Role.TARGET, files), settings, 1)
    stores = sorted(settings.cache_dir.iterdir())
    monkeypatch.setattr("datasets.samples.read_pair", None)
    labels = []
    for seed in (1, 2):
        samples = pseudo_labelled(settings, seed)
        assert samples.cached is not None
        labels.append(samples[0, 0].label)
        assert sorted(settings.cache_dir.iterdir()) == stores
    assert not torch.equal(*labels)


@pytest.mark.parametrize("skip", ["skip", "error"])
@pytest.mark.parametrize("size", [(64, 96), (32, 48)])
def test_pseudo_labels_beside_cached_images_are_those_beside_decoded_ones(settings, size, skip):
    settings = replace(settings, on_bad_sample=skip)
    cached = pseudo_labelled(settings, 1, size)
    assert cached.cached is not None
    assert_equal(cached, pseudo_labelled(without(settings), 1, size))
    assert_equal(cached.subset([3, 1]), pseudo_labelled(without(settings), 1, size).subset([3, 1]))


@pytest.mark.parametrize("bad", ["image", "label"])
def test_an_unreadable_pseudo_label_is_skipped_with_and_without_a_cache(settings, bad):
    skipping = replace(settings, on_bad_sample="skip")
    path = getattr(pseudo_labelled(without(skipping), 1).files[1], bad)
    content = path.read_bytes()

    def broken(settings):
        path.write_bytes(content)
        files = pseudo_labelled(without(settings), 1).files
        path.write_bytes(b"no picture")
        return training_samples(TrainingFiles(Role.TARGET, files), settings, 1)

    assert_equal(broken(skipping), broken(without(skipping)))


def test_a_broken_pseudo_label_is_a_sentence(settings):
    samples = pseudo_labelled(settings, 1)
    samples.files[0].label.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"_pseudo_labelTrainIds\.png cannot be read as a picture"):
        samples[0, 0]


def test_a_changed_file_is_seen(settings):
    training(settings)
    image = settings.gta5_root / "images" / "00001.png"
    save(picture(99), image)
    assert_equal(training(settings), training(without(settings)))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_that_was_replaced_with_equal_size_and_time_is_seen(settings, kind):
    """`rsync -t` and `tar` replace files so. Only the upper half differs."""
    path = settings.gta5_root / "images" / "00001.png"
    contents = []
    for value in (10, 200):
        pixels = picture(1)
        pixels[:36] = value
        options = {"compress_level": 0} if kind == "png" else {}
        Image.fromarray(pixels).save(path, kind, **options)
        contents.append(path.read_bytes())
    if kind == "jpeg":
        contents = [content.ljust(10**5, b"\0") for content in contents]
    assert len(contents[0]) == len(contents[1])
    for content in contents:
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        assert_equal(training(settings), training(without(settings)))


def test_a_copied_folder_has_the_cache_of_the_first(settings, monkeypatch):
    """The copy has other inodes and change times."""
    training(settings)
    copy = settings.gta5_root.with_name("copy") / "GTA5"
    shutil.copytree(settings.gta5_root, copy)
    monkeypatch.setattr("datasets.samples.read_pair", None)
    assert training(replace(settings, gta5_root=copy)).cached is not None


def test_another_size_is_another_cache(settings):
    training(settings)
    other = replace(settings, image_size=(64, 64), source_resize=None)
    assert training(other)[0, 0].image.shape == (3, 64, 64)


def test_a_subset_reads_its_own_places(settings):
    cached, plain = training(settings), training(without(settings))
    assert_equal(cached.subset([5, 2]), plain.subset([5, 2]), epochs=(0,))


def test_scoring_once_builds_nothing(settings):
    assert validation_samples(Role.TARGET, settings).cached is None
    assert not settings.cache_dir.exists()


class Interrupted(Exception):
    pass


def test_building_goes_on_where_it_stopped(settings, monkeypatch):
    monkeypatch.setattr(caching, "MARK_EVERY", 2)
    write, decoded = caching._write, []

    def counting(limit, *arguments):
        if len(decoded) == limit:
            raise Interrupted
        decoded.append(arguments[-1])
        return write(*arguments)

    monkeypatch.setattr(caching, "_write", partial(counting, 5))
    with pytest.raises(Interrupted):
        training(settings)
    monkeypatch.setattr(caching, "_write", partial(counting, 100))
    usage = shutil.disk_usage("/")._replace(free=100_000)  # what is built has its room already
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda folder: usage)
    assert_equal(training(settings), training(without(settings)))
    assert decoded == [0, 1, 2, 3, 4, 4, 5, 6, 7]


def test_too_small_a_disk_is_said_and_training_goes_on(settings, monkeypatch, capsys):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda folder: usage)
    samples = training(settings)
    assert samples.cached is None
    assert "no cache: it would take" in capsys.readouterr().out
    assert_equal(samples, training(without(settings)))


def test_a_disk_that_fills_up_is_found_before_a_worker_writes(settings, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("datasets.cache.os.posix_fallocate", full)
    samples = training(settings)
    assert samples.cached is None and "No space left on device" in capsys.readouterr().out
    assert_equal(samples, training(without(settings)))
    monkeypatch.undo()
    assert_equal(training(settings), training(without(settings)))


def test_a_folder_that_cannot_be_written_is_said_and_training_goes_on(settings, capsys):
    settings.cache_dir.write_text("a file")
    samples = training(settings)
    assert samples.cached is None and "no cache in" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_a_sentence(settings, workers):
    (settings.gta5_root / "images" / "00003.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"00003\.png cannot be read as a picture"):
        training(replace(settings, num_workers=workers))


def build_slowly(settings, seconds, builds):
    write = caching._write

    def slow(*arguments):
        builds.put(arguments[-1])
        time.sleep(seconds)
        return write(*arguments)

    caching._write = slow
    samples = training(settings)
    assert samples.cached is not None
    builds.put(int(np.sum([samples[0, i].image.sum().item() for i in range(len(samples))])))


@pytest.mark.slow
def test_one_process_builds_while_another_waits(settings):
    context = multiprocessing.get_context("spawn")
    builds = context.Queue()
    processes = [
        context.Process(target=build_slowly, args=(settings, 0.1, builds)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
    values = [builds.get() for _ in range(10)]
    built, sums = [v for v in values if v < 8], [v for v in values if v >= 8]
    assert sorted(built) == list(range(8)) and sums[0] == sums[1]


def test_a_cut_file_is_built_again(settings):
    first = training(settings)
    (store, *_) = settings.cache_dir.glob("*.u8")
    with store.open("r+b") as file:
        file.truncate(100)
    assert_equal(training(settings), training(without(settings)))
    assert first.cached is not None


def test_attaching_to_no_samples_does_nothing(settings):
    samples = training(without(settings)).subset([])
    attach_cache(samples, None, [], settings, build=True)
    assert samples.cached is None


@pytest.mark.slow
def test_a_cache_that_is_built_or_there_changes_no_weight(settings, tmp_path, monkeypatch):
    """The discriminator's too, which are drawn after the network's."""
    monkeypatch.chdir(tmp_path)
    words = ("--action", "train_ada", "--num_epochs", "1", "--save_model_path", "runs", *TINY)
    for name, cache in (("built", "one"), ("there", "one"), ("without", "none")):
        assert main.main([*words, "--save_keyword", name, "--cache_dir", cache]) == 0
    built, *others = (
        torch.load(tmp_path / "runs" / name / "latest.pth", weights_only=True)["method"]
        for name in ("built", "there", "without")
    )
    for other in others:
        assert all(torch.equal(other[name], built[name]) for name in built)


def test_an_unreadable_file_is_skipped_on_demand_with_and_without_a_cache(settings, capsys):
    """A picture, and the label of the one after it: both are replaced by the third."""
    (settings.gta5_root / "images" / "00002.png").write_bytes(b"no picture")
    (settings.gta5_root / "labels" / "00003.png").write_bytes(b"no label")
    with pytest.raises(UserError, match=r"00002\.png"):
        training(settings)
    skipping = replace(settings, on_bad_sample="skip", aug_method="")
    cached, decoded = training(skipping), training(without(skipping))
    assert cached.cached is not None
    assert_equal(cached, decoded)
    names = [files.name for files in decoded.files]
    bad = names.index("00002")
    for place in (bad, bad + 1):
        assert np.array_equal(decoded.decoded(place)[0], decoded.decoded(bad + 2)[0])
        assert not np.array_equal(decoded.decoded(place)[0], decoded.decoded(bad - 1)[0])
    said = capsys.readouterr().err
    assert said.count("skipped: ") == 2 and "00002.png" in said and "00003.png" in said


def test_an_image_that_a_bad_label_has_replaced_is_itself_without_labels(settings):
    """The same Cityscapes images with labels, and as a target without."""
    skipping = replace(settings, on_bad_sample="skip", aug_method="")
    label = next((settings.cityscapes_root / "gtFine" / "train").glob("*/*_labelTrainIds.png"))
    label.write_bytes(b"no label")
    training(skipping, Role.TARGET)
    files = unlabelled(Role.TARGET, "train", skipping)
    data = TrainingFiles(Role.TARGET, files)
    target = training_samples(data, skipping, SOURCE_STREAM)
    plain = training_samples(data, without(replace(settings, aug_method="")), SOURCE_STREAM)
    assert_equal(target, plain)


def test_nothing_readable_ends_even_when_skipping(settings):
    for path in (settings.gta5_root / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of 8 samples can be read"):
        training(replace(settings, on_bad_sample="skip"))


@pytest.mark.parametrize("cache", ["cache", "none"])
@pytest.mark.parametrize("target", ["00002.png", "nowhere.png"])
def test_a_link_to_itself_or_to_nowhere_is_named(settings, cache, target):
    path = settings.gta5_root / "images" / "00002.png"
    path.unlink()
    path.symlink_to(path.with_name(target))
    settings = replace(settings, cache_dir=settings.cache_dir.with_name(cache))
    with pytest.raises(UserError, match=r"00002\.png"):
        samples = training(
            replace(settings, cache_dir=Path(cache)) if cache == "none" else settings
        )
        epoch = [samples[0, index] for index in range(len(samples))]
        assert not epoch


def test_a_flipped_byte_is_noticed_and_decoded_anew(settings, capsys):
    training(settings)
    for store in settings.cache_dir.glob("*.u8"):
        pixels = bytearray(store.read_bytes())
        pixels[len(pixels) // 2] ^= 1
        store.write_bytes(pixels)
    samples = training(settings)
    assert samples.cached is not None
    assert_equal(samples, training(without(settings)))
    assert capsys.readouterr().err.count("is damaged: remove it") == 1


def test_marks_of_a_cache_are_lost_with_its_pixels(settings):
    training(settings)
    for store in settings.cache_dir.glob("*.u8"):
        store.unlink()
    assert_equal(training(settings), training(without(settings)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_another_users_cache_is_read_or_left_alone(settings, capsys):
    training(settings)
    for mode, cached in ((0o444, True), (0, False)):
        for path in settings.cache_dir.iterdir():
            path.chmod(mode)
        samples = training(settings)
        assert (samples.cached is not None) == cached
        assert_equal(samples, training(without(settings)))
    assert "no cache in" in capsys.readouterr().out


def test_a_size_of_as_many_pixels_is_another_cache(settings):
    for size in ((64, 96), (96, 64), (64, 96)):
        turned = replace(settings, image_size=size, source_resize=None)
        assert_equal(training(turned), training(without(turned)))


def test_a_store_is_named_by_what_its_files_are(tmp_path):
    def digest(name="aachen/a.png", content=b"four", time=1, how=""):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        return digest_of([path], how)

    others = ({"name": "ulm/a.png"}, {"name": "aachen/b.png"}, {"content": b"fives"}, {"time": 2})
    digests = [digest(), *(digest(**other) for other in others), digest(how="smaller")]
    assert len(set(digests)) == len(digests) and digest() == digests[0]


def test_what_is_read_is_a_copy_and_no_pixel_travels_to_a_worker(settings):
    samples = training(settings)
    image, label = samples.cached[0]
    image[:], label[:] = 0, 0
    assert samples.cached[0] is not None
    assert_equal(samples, training(without(settings)))
    assert len(pickle.dumps(samples.cached)) < 10_000


def test_a_validation_label_of_10_billion_pixels_is_a_sentence(settings):
    for path in (settings.cityscapes_root / "gtFine/val").glob("*/*_labelTrainIds.png"):
        claim_size(path, 100_000)
    with pytest.raises(UserError, match="cannot be read as a picture"):
        validation_samples(Role.TARGET, settings, often=True)
