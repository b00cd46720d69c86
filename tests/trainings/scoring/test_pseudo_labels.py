import contextlib
import json
import shlex
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets.labels import CITYSCAPES, CLASS_NAMES, IGNORE, NUM_CLASSES, PSEUDO_LABELS
from datasets.loading.pairs import TARGET_STREAM
from datasets.loading.sets import training_samples
from datasets.pseudo_labels import pseudo_label_path, with_pseudo_labels
from datasets.reading import read_pair
from datasets.samples import SampleDataset
from tests.support.data import cityscapes_images
from tests.support.helpers import picture, save
from tests.support.labels import Toy
from trainings.scoring import pseudo_label_making, pseudo_labels
from trainings.scoring.pseudo_label_folder import PICTURE, PROGRESS, SUMMARY
from trainings.scoring.pseudo_labelled import pseudo_labelled_target, self_training_target
from trainings.scoring.pseudo_labels import generate_pseudo_labels
from trainings.scoring.thresholds import BINS, ConfidenceHistogram, confidence_bins
from utils.cli.command_line import parse_settings
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError, UserError
from utils.transforms import Preparation, train_transform

CPU = torch.device("cpu")


def confident_predictions(count=20_000):
    """Classes and probabilities as a network of moderate confidence gives them."""
    rng = np.random.default_rng(0)
    classes = rng.choice(NUM_CLASSES - 1, count, p=rng.dirichlet(np.ones(NUM_CLASSES - 1) / 2))
    probability = rng.beta(3 + classes % 5, 2, count).astype(np.float32)
    return torch.from_numpy(classes), torch.from_numpy(probability)


def sorted_threshold(values: np.ndarray) -> float:
    """The paper's rule on all probabilities of a class."""
    rank = min(round(0.66 * len(values)), len(values) - 1)
    return min(0.9, np.sort(values)[rank])


def test_thresholds_equal_a_sort_within_one_bin():
    classes, probability = confident_predictions()
    histogram = ConfidenceHistogram()
    for part in range(4):  # as image after image
        histogram.update(classes[part::4], confidence_bins(probability[part::4]))
    seen = 0
    for train_id, threshold in enumerate(histogram.thresholds()):
        values = probability[classes == train_id].numpy()
        if len(values) == 0:
            assert threshold is None
            continue
        assert abs(threshold / BINS - sorted_threshold(values)) <= 1 / BINS
        kept = (values >= threshold / BINS).mean()
        assert histogram.kept_share()[train_id] == pytest.approx(kept, abs=1e-3)
        seen += 1
    assert seen > 8


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pixels_have_a_threshold_too(count):
    values = np.linspace(0.3, 0.6, count, dtype=np.float32)
    histogram = ConfidenceHistogram()
    bins = confidence_bins(torch.from_numpy(values))
    histogram.update(torch.zeros(count, dtype=torch.int64), bins)
    assert histogram.thresholds()[0] / BINS == pytest.approx(sorted_threshold(values), abs=1 / BINS)


def test_a_sure_class_is_cut_at_0_9():
    histogram = ConfidenceHistogram()
    bins = confidence_bins(torch.full((100,), 0.99))
    histogram.update(torch.full((100,), 7), bins)
    assert histogram.thresholds()[7] == round(0.9 * BINS) and histogram.kept_share()[7] == 1


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The labels that are made in one go."""
    return Toy(tmp_path_factory.mktemp("whole")).make()


def expected_labels(toy):
    """The method once more, on all pixels of the split in memory."""
    with torch.inference_mode():
        probabilities = [
            torch.nn.functional.interpolate(
                toy.probabilities(index),
                (64, 96),
                mode="bilinear",
                align_corners=True,
            )[0]
            for index in range(len(toy.samples))
        ]
    confidence, classes = torch.stack(probabilities).max(1)
    labels = classes.clone()
    for train_id in range(NUM_CLASSES):
        mine = classes == train_id
        if mine.any():
            threshold = sorted_threshold(confidence[mine].numpy())
            floor = int(np.float32(threshold) * np.float32(BINS)) / BINS
            labels[mine & (confidence < floor)] = IGNORE
    return {files.name: one for files, one in zip(toy.samples.files, labels, strict=True)}


def test_labels_are_what_the_ensemble_is_sure_of(toy):
    toy.make()
    differing, expected = 0, expected_labels(toy)
    for files in toy.samples.files:
        path = pseudo_label_path(toy.folder.path, "train", files)
        assert path == toy.folder.path / f"train/aachen/{files.name}_pseudo_labelTrainIds.png"
        label = torch.from_numpy(np.array(Image.open(path)))
        assert label.shape == (64, 96) and label.dtype == torch.uint8
        differing += (label != expected[files.name]).sum().item()
    assert differing <= 5  # pixels on the edge of a bin
    summary = toy.folder.read_json(SUMMARY)
    assert list(summary["classes"]) == list(CLASS_NAMES)
    never = [row for row in summary["classes"].values() if row["predicted_pixels"] == 0]
    assert never and all(row["threshold"] is None and row["kept_share"] is None for row in never)
    total = sum(row["predicted_pixels"] for row in summary["classes"].values())
    assert total == 5 * 64 * 96


def test_a_label_belongs_to_its_image_whatever_the_order(toy, tmp_path):
    first = toy.make()
    toy.samples.files.reverse()
    other = Toy(tmp_path / "other")
    other.samples.files.reverse()
    assert other.make() == first and len(first) == 5


def test_batch_size_and_workers_change_nothing(tmp_path, whole):
    two = Toy(tmp_path / "two", batch_size=3)
    object.__setattr__(two.settings, "num_workers", 2)
    assert two.make() == whole


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 6, 9])
def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch, whole, after):
    """Stopped at any image of either pass; no image is predicted again that is done."""
    toy, predict, calls = Toy(tmp_path / "cut"), pseudo_label_making.predict, []

    def counting(*arguments, limit):
        if len(calls) == limit:
            raise Interrupted
        calls.append(1)
        return predict(*arguments)

    monkeypatch.setattr(pseudo_label_making, "SAVE_EVERY", 1)
    monkeypatch.setattr(pseudo_label_making, "predict", lambda *a: counting(*a, limit=after))
    with pytest.raises(Interrupted):
        toy.make()
    assert not toy.folder.has(SUMMARY)
    monkeypatch.setattr(pseudo_label_making, "predict", lambda *a: counting(*a, limit=100))
    assert toy.make() == whole
    assert len(calls) == 10


def test_labels_are_encoded_beside_the_predictions_and_counted_once_they_are_written(
    toy, monkeypatch
):
    save_picture, threads = RunFolder.save_picture, set()

    def failing(self, name, picture, **options):
        threads.add(threading.current_thread())
        if "000004" in name:
            raise UserError("the disk is full")
        return save_picture(self, name, picture, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_picture", failing)
        with pytest.raises(UserError, match="the disk is full"):
            toy.make()
    assert threads and threading.main_thread() not in threads
    assert len(toy.labels()) == 4 and not toy.folder.has(SUMMARY)
    assert len(toy.make()) == 5 and toy.folder.has(SUMMARY)


def test_finished_labels_stay_and_other_ones_are_refused(toy):
    labels = toy.make()
    assert toy.making().begin(overwrite=False) and toy.labels() == labels
    with pytest.raises(UsageError, match=r"another making.*image_size was"):
        toy.making(image_size=[32, 32]).begin(overwrite=False)
    other = [{"path": "a/best.pth", "sha256": "1" * 64}]
    with pytest.raises(UsageError, match=r"\(a/best.pth: changed since\): name another"):
        toy.making(checkpoints=other).begin(overwrite=False)
    moved = [{"path": "b/best.pth", "sha256": "1" * 64}]
    with pytest.raises(UsageError, match=r"made with a/best.pth, not b/best.pth"):
        toy.making(checkpoints=moved).begin(overwrite=False)
    assert not toy.making(checkpoints=other).begin(overwrite=True) and not toy.labels()


@pytest.mark.parametrize(
    "other",
    [{"data": "x"}, {"images": 6}, {"precision": "bfloat16"}, {"bn_statistics": "target"}],
)
def test_labels_of_anything_else_are_refused_finished_or_not(toy, other):
    making = toy.making()
    making._save(ConfidenceHistogram(), making.counted)
    with pytest.raises(UsageError, match=f"{next(iter(other))} was"):
        toy.making(**other).begin(overwrite=False)
    toy.make()
    assert not toy.folder.has(PROGRESS)
    with pytest.raises(UsageError, match=f"{next(iter(other))} was"):
        toy.making(**other).begin(overwrite=False)


def test_a_summary_of_something_else_is_another_making(toy):
    toy.folder.write_json(SUMMARY, {"images": 5})
    with pytest.raises(UsageError, match=r"another making.*made with unknown checkpoints, not"):
        toy.making().begin(overwrite=False)
    with pytest.raises(UserError, match="5 of 5 pseudo-labels are missing"):
        pseudo_labelled_target(toy.settings)


def test_a_summary_that_names_no_networks_is_a_problem_and_no_defect(toy):
    toy.make()
    toy.folder.write_json(SUMMARY, {"images": 5})
    found = pseudo_labelled_target(toy.settings)
    assert "were made at --image_size None" in found.problem
    assert found.note.endswith("train, made with unknown checkpoints")


def test_self_training_begins_with_round_1(toy):
    object.__setattr__(toy.settings, "ssl_round", 0)
    with pytest.raises(UsageError, match="round 1"):
        self_training_target(toy.settings)


def test_two_processes_cannot_make_the_same_labels(toy, monkeypatch):
    member = toy.settings.save_model_path / "member.pth"
    member.parent.mkdir(exist_ok=True)
    torch.save(toy.networks[0].state_dict(), member)
    monkeypatch.setattr(pseudo_labels, "find_members", lambda *_: [member])
    monkeypatch.setattr(
        "utils.disk.run_folder.locked", lambda *_, **__: contextlib.nullcontext(False)
    )
    monkeypatch.setattr("utils.disk.run_folder.owner", lambda path: "process 1")
    with pytest.raises(UserError, match="is being written by process 1"):
        generate_pseudo_labels(None, None, toy.settings)


def test_a_lost_label_is_made_again(toy):
    labels = toy.make()
    next(toy.folder.path.glob("train/*/*.png")).unlink()
    assert toy.make() == labels


def test_an_image_that_is_skipped_has_the_label_of_the_same_other_one_again(tmp_path):
    """The label does not depend on which images are left to do."""
    toy = Toy(tmp_path, on_bad_sample="skip")
    toy.samples.files[1].image.write_bytes(b"no picture")
    labels = toy.make()
    for files in toy.samples.files[:2]:
        pseudo_label_path(toy.folder.path, "train", files).unlink()
    assert toy.make() == labels


def stored(toy, content: bytes, sha256: str) -> None:
    """A finished making by one checkpoint."""
    checkpoint = toy.settings.save_model_path / "a" / "best.pth"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_bytes(content)
    toy.make(checkpoints=[{"path": "a/best.pth", "sha256": sha256}])


SHA_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_training_takes_labels_of_unchanged_checkpoints(toy):
    stored(toy, b"abc", SHA_OF_ABC)
    found = pseudo_labelled_target(toy.settings)
    assert found.problem is None
    assert len(found.files) == 5 and all(f.kind == PSEUDO_LABELS for f in found.files)
    image, label = read_pair(found.files[0])
    assert image.shape == (72, 104, 3) and label.shape == (64, 96)


def test_labels_are_said_where_a_training_begins_not_where_they_are_asked_for(toy, capsys):
    stored(toy, b"abc", SHA_OF_ABC)
    capsys.readouterr()
    found = pseudo_labelled_target(toy.settings)
    assert not capsys.readouterr().out
    training_samples(found, toy.settings, TARGET_STREAM)
    said = f"pseudo-labels: 5 in {toy.folder.path}/train, made with a/best.pth\n"
    assert said in capsys.readouterr().out


def test_one_file_name_in_two_cities_has_a_label_of_each(tmp_path):
    for seed, place in enumerate(("ulm/a_0_0", "bonn/a_0_0", "bonn/a_0_0_1")):
        save(picture(seed), tmp_path / f"Cityscapes/leftImg8bit/train/{place}_leftImg8bit.png")
    images = cityscapes_images(tmp_path / "Cityscapes", "train")
    for seed, files in enumerate(images):
        path = pseudo_label_path(tmp_path / "labels", "train", files)
        save(np.full((4, 6), seed, np.uint8), path)
    labelled = with_pseudo_labels(images, tmp_path / "labels", "train", CITYSCAPES)
    assert [read_pair(files)[1].max() for files in labelled] == [0, 1, 2]
    paths = {one.relative_to(tmp_path).as_posix() for one in tmp_path.glob("labels/**/*.png")}
    assert paths == {
        f"labels/train/{place}_pseudo_labelTrainIds.png"
        for place in ("ulm/a_0_0", "bonn/a_0_0", "bonn/a_0_0_1")
    }


def test_training_refuses_stale_labels_unless_told(toy):
    stored(toy, b"retrained since", SHA_OF_ABC)
    problem = pseudo_labelled_target(toy.settings).problem
    assert "best.pth has changed since" in problem and "--accept_pseudo_labels" in problem
    object.__setattr__(toy.settings, "accept_pseudo_labels", True)
    assert pseudo_labelled_target(toy.settings).problem is None


def test_training_says_that_a_checkpoint_is_gone(toy, capsys):
    stored(toy, b"abc", SHA_OF_ABC)
    (toy.settings.save_model_path / "a" / "best.pth").unlink()
    assert pseudo_labelled_target(toy.settings).problem is None
    assert "best.pth, which made the pseudo-labels, is not there" in capsys.readouterr().out


def test_training_refuses_labels_of_another_size(toy):
    stored(toy, b"abc", SHA_OF_ABC)
    object.__setattr__(toy.settings, "image_size", (64, 64))
    problem = pseudo_labelled_target(toy.settings).problem
    assert "made at --image_size [64, 96], this training is at [64, 64]" in problem


def test_training_names_the_command_that_makes_missing_labels(toy):
    with pytest.raises(UserError, match="--action generate_pseudo_labels --optimizer sgd"):
        self_training_target(toy.settings)
    stored(toy, b"abc", SHA_OF_ABC)
    next(toy.folder.path.glob("train/*/*.png")).unlink()
    with pytest.raises(UserError, match="1 of 5 pseudo-labels are missing"):
        pseudo_labelled_target(toy.settings)


def test_the_command_for_labels_of_another_size_can_be_typed(toy):
    summary = {"settings": {"load_model_path": "my runs/teacher/latest.pth", "soft": True}}
    stored(toy, b"abc", SHA_OF_ABC)
    path = toy.folder.path / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | summary))
    object.__setattr__(toy.settings, "image_size", (64, 64))
    object.__setattr__(toy.settings, "given", frozenset(["save_model_path"]))
    problem = pseudo_labelled_target(toy.settings).problem
    _, _, command = problem.partition("make them again with ")
    command, _, _ = command.partition(", or ")
    words = shlex.split(command)
    parsed = parse_settings(words, main.ACTIONS)
    assert str(parsed.load_model_path) == "my runs/teacher/latest.pth"
    assert parsed.soft and parsed.overwrite and parsed.image_size == (64, 64)
    assert parsed.save_model_path == toy.settings.save_model_path


def test_distillation_knows_no_rounds_and_names_the_folder_that_it_looks_into(toy):
    object.__setattr__(toy.settings, "ssl_round", 2)
    with pytest.raises(UserError, match=r"pseudo_labels_sgd_round2 holds.*--ssl_round 2"):
        self_training_target(toy.settings)
    with pytest.raises(UserError, match=r"pseudo_labels_sgd holds.*--pseudo_label_path") as error:
        pseudo_labelled_target(toy.settings)
    assert "--ssl_round" not in str(error.value)


def test_image_and_pseudo_label_move_together(toy):
    """A label that marks the image's left half still does so after augmentation."""
    image = np.zeros((72, 104, 3), np.uint8)
    image[:, :52] = 255
    label = np.full((64, 96), 2, np.uint8)
    label[:, :48] = 5
    (first, *_) = cityscapes_images(toy.root, "train")
    save(image, first.image)
    save(label, pseudo_label_path(toy.folder.path, "train", first))
    files = with_pseudo_labels([first], toy.folder.path, "train", CITYSCAPES)
    transform = train_transform(
        Preparation((64, 96), resizes_label=True),
        crop_to=(64, 96),
        aug_method="HF-RS",
        aug_probability=1.0,
    )
    dataset = SampleDataset(files, transform, seed=(0,))
    for epoch in range(8):
        sample = dataset[epoch, 0]
        bright = sample.image[0].float() > 200
        dark = (sample.image[0] < 50) & (sample.label != IGNORE)
        assert (sample.label[bright] == 5).float().mean() > 0.9
        assert (sample.label[dark] == 2).float().mean() > 0.9


def test_a_picture_shows_images_with_their_labels(toy):
    toy.make()
    assert min(Image.open(toy.folder.path / PICTURE).size) > 400
