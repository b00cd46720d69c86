"""Soft pseudo-labels, from the teacher to the loss, and labels of any origin."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datasets.labels import IGNORE, NUM_CLASSES, SOFT_LABELS
from datasets.loading.pairs import TARGET_STREAM
from datasets.loading.sets import training_samples
from datasets.pseudo_labels import pseudo_label_path
from datasets.reading import check_scored, probabilities_path, read_pair
from datasets.samples import SampleDataset
from model.model_stages import BiSeNet
from tests.support.helpers import save
from tests.support.labels import Toy
from trainings.scoring import pseudo_label_making, pseudo_labels
from trainings.scoring.pseudo_label_folder import PICTURE, PROGRESS, SUMMARY
from trainings.scoring.pseudo_labelled import pseudo_labelled_target
from utils.errors import UsageError, UserError
from utils.losses import pseudo_label_loss, segmentation_loss
from utils.transforms import Preparation, train_transform

SOFT = {"soft": 3}


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path)


def probabilities(toy, index):
    with torch.inference_mode():
        small = toy.probabilities(index)
    return F.interpolate(small, (64, 96), mode="bilinear", align_corners=True)[0]


def test_soft_labels_round_trip(toy):
    """A training reads the teacher's probabilities of the three best classes, to 8 bits."""
    toy.make(**SOFT)
    found = pseudo_labelled_target(toy.settings)
    assert {one.kind for one in found.files} == {SOFT_LABELS}
    for index, files in enumerate(found.files):
        image, label = read_pair(files)
        assert image.shape == (72, 104, 3) and label.shape == (6, 64, 96)
        ids, shares = np.split(label, 2)
        expected = probabilities(toy, index)
        of_ids = expected.gather(0, torch.from_numpy(ids).long())
        assert (of_ids - torch.from_numpy(shares) / 255).abs().max() <= 0.5 / 255 + 1e-5
        best = expected.topk(3, dim=0).values
        torch.testing.assert_close(of_ids, best, rtol=0, atol=1e-5)


def test_soft_labels_have_no_thresholds_and_a_picture(toy, capsys):
    toy.make(**SOFT)
    summary = toy.folder.read_json(SUMMARY)
    assert summary["soft"] == 3 and "classes" not in summary
    assert min(Image.open(toy.folder.path / PICTURE).size) > 400
    pseudo_labels._print_summary(toy.folder)
    assert "5 soft pseudo-labels of Cityscapes in" in capsys.readouterr().out


def test_a_training_says_that_ohem_leaves_soft_labels_as_they_are(toy):
    toy.make(**SOFT)
    assert "--ohem" not in pseudo_labelled_target(toy.settings).note
    object.__setattr__(toy.settings, "ohem", True)
    assert "--ohem leaves soft labels as they are" in pseudo_labelled_target(toy.settings).note


def test_soft_labels_go_on_where_they_stopped(tmp_path, monkeypatch):
    whole = Toy(tmp_path / "whole").make(**SOFT)
    toy, predict, calls = Toy(tmp_path / "cut"), pseudo_label_making.predict_soft, []

    def counting(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pseudo_label_making, "predict_soft", counting)
        with pytest.raises(KeyboardInterrupt):
            toy.make(**SOFT)
    assert toy.folder.has(PROGRESS) and len(toy.labels()) == 2 * 2
    with pytest.raises(UserError, match="no finished pseudo-labels"):
        pseudo_labelled_target(toy.settings)
    object.__setattr__(toy.settings, "pseudo_label_path", toy.folder.path)
    with pytest.raises(UserError, match="no finished pseudo-labels"):
        pseudo_labelled_target(toy.settings)
    assert toy.make(**SOFT) == whole and len(whole) == 2 * 5


def test_hard_and_soft_labels_do_not_mix(toy):
    toy.make(**SOFT)
    with pytest.raises(UsageError, match=r"another making.*hard and soft"):
        toy.making().begin(overwrite=False)
    assert not toy.making().begin(overwrite=True) and not toy.labels()
    toy.make()
    assert len(toy.labels()) == 5
    with pytest.raises(UsageError, match=r"another making.*hard and soft"):
        toy.making(**SOFT).begin(overwrite=False)


# --------------------------------------------------------------------------- labels of any origin


def with_foreign_labels(toy, tmp_path, write):
    """Labels of another program: nothing but the files."""
    folder = tmp_path / "foreign"
    for number, files in enumerate(toy.samples.files):
        write(number, pseudo_label_path(folder, "train", files))
    object.__setattr__(toy.settings, "pseudo_label_path", folder)
    return folder


def hard(number, path):
    save(np.full((32, 48), number, np.uint8), path)


def soft(number, path, channels=2):
    ids = np.stack([np.full((32, 48), c, np.uint8) for c in range(number, number + channels)], 2)
    save(ids, path)
    save(np.full((32, 48, channels), 100, np.uint8), probabilities_path(path))


@pytest.mark.parametrize("write, planes", [(hard, ()), (soft, (4,))])
def test_labels_of_any_origin_are_trained_on(toy, tmp_path, write, planes):
    with_foreign_labels(toy, tmp_path, write)
    found = pseudo_labelled_target(toy.settings)
    assert found.problem is None
    samples = training_samples(found, toy.settings, TARGET_STREAM)
    for index in range(5):
        label = samples[0, index].label
        assert label.shape == (*planes, 64, 96) and label.dtype == torch.uint8
        assert (label[0] == index).all()


def test_other_labels_of_the_same_names_are_another_run(toy, tmp_path):
    folder = with_foreign_labels(toy, tmp_path, soft)
    before = pseudo_labelled_target(toy.settings).origin
    assert pseudo_labelled_target(toy.settings).origin == before
    path = next(folder.rglob("*_probabilities.png"))
    save(np.full((32, 48, 2), 99, np.uint8), path)
    assert pseudo_labelled_target(toy.settings).origin != before


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda path: path.unlink(), "4 of 5 pseudo-labels have probabilities, others not"),
        (
            lambda path: save(np.zeros((32, 48), np.uint8), path),
            "picture of mode L, not a PNG of 2",
        ),
        (
            lambda path: save(np.zeros((32, 48, 3), np.uint8), path),
            "2 channels of 48x32 pixels, .*3",
        ),
        (lambda path: path.write_bytes(b"no picture"), "cannot be read as a picture"),
    ],
)
def test_broken_probabilities_end_in_a_sentence(toy, tmp_path, change, sentence):
    folder = with_foreign_labels(toy, tmp_path, soft)
    change(sorted(folder.rglob("*_probabilities.png"))[0])
    with pytest.raises(UserError, match=sentence):
        read_pair(pseudo_labelled_target(toy.settings).files[0])


def test_soft_labels_of_unknown_classes_end_in_a_sentence(toy, tmp_path):
    folder = with_foreign_labels(toy, tmp_path, soft)
    save(np.full((32, 48, 2), 19, np.uint8), sorted(folder.rglob("*_labelTrainIds.png"))[0])
    with pytest.raises(
        UserError, match=r"should hold soft pseudo-labels \(0 to 18, 255\) but holds 19"
    ):
        check_scored(pseudo_labelled_target(toy.settings).files)


def test_image_and_soft_label_move_together(toy, tmp_path):
    """Classes and probabilities, too; pixels from beyond the picture have no class."""
    with_foreign_labels(toy, tmp_path, soft)
    (first, *_) = pseudo_labelled_target(toy.settings).files
    image = np.zeros((72, 104, 3), np.uint8)
    image[:, :52] = 255
    save(image, first.image)
    ids = np.full((64, 96, 3), 2, np.uint8)
    ids[:, :48] = (5, 6, 7)
    shares = np.full((64, 96, 3), 20, np.uint8)
    shares[:, :48] = (150, 70, 30)
    save(ids, first.label)
    save(shares, probabilities_path(first.label))
    transform = train_transform(
        Preparation((64, 96), resizes_label=True),
        crop_to=(64, 96),
        aug_method="HF-RS-R-RP",
        aug_probability=1.0,
    )
    dataset = SampleDataset([first], transform, seed=(0,))
    beyond = 0
    for epoch in range(8):
        sample = dataset[epoch, 0]
        bright = sample.image[0].float() > 200
        expected = torch.tensor([5, 6, 7, 150, 70, 30], dtype=torch.uint8)
        right = (sample.label[:, bright] == expected[:, None]).all(0)
        assert right.float().mean() > 0.9
        beyond += (sample.label == IGNORE).all(0).sum()
    assert beyond > 0


# ------------------------------------------------------------------------------------------- loss


def test_the_soft_loss_is_the_cross_entropy_of_the_scaled_probabilities():
    torch.manual_seed(0)
    heads = [torch.randn(2, NUM_CLASSES, 8, 12, requires_grad=True) for _ in range(3)]
    ids = torch.rand(2, NUM_CLASSES, 64, 96).topk(3, dim=1).indices
    shares = torch.randint(1, 80, ids.shape)
    ids[:, :, :8] = IGNORE
    label = torch.cat([ids, shares], 1).byte()
    truth = torch.zeros(2, NUM_CLASSES + 1, 64, 96, dtype=torch.float64)
    truth.scatter_(1, ids.clamp(max=NUM_CLASSES), shares / shares.sum(1, keepdim=True).double())
    expected = 0
    for logits in heads:
        up = F.interpolate(logits.double(), (64, 96), mode="bilinear", align_corners=True)
        losses = -(truth[:, :NUM_CLASSES] * up.log_softmax(1)).sum(1)
        expected = expected + losses[:, 8:].mean()
    found = pseudo_label_loss(heads, label)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = torch.autograd.grad(found, heads, retain_graph=True)
    for mine, true in zip(ours, torch.autograd.grad(expected, heads), strict=True):
        torch.testing.assert_close(mine, true.float(), rtol=1e-3, atol=1e-6)


def test_a_sure_soft_label_is_a_hard_one():
    torch.manual_seed(0)
    heads = BiSeNet(base=8).train().heads(torch.randint(0, 256, (2, 3, 64, 96)).byte())
    hard = torch.randint(0, NUM_CLASSES, (2, 64, 96)).byte()
    other = (hard + 1) % NUM_CLASSES
    sure = torch.stack([hard, other, torch.full_like(hard, 255), torch.zeros_like(hard)], 1)
    torch.testing.assert_close(pseudo_label_loss(heads, sure), segmentation_loss(heads, hard))
