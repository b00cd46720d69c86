"""Scoring at scales of the images' own size, and mirrored."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import main
from datasets.data_set import Role
from datasets.labels import TRAIN_IDS
from datasets.loading.batches import scaled_batches
from datasets.loading.sets import validation_samples
from datasets.reading import SampleFiles
from datasets.samples import SampleDataset
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.helpers import TINY, enlarge_by, label_ids, make_cityscapes, picture, save
from trainings.val import evaluate, evaluate_each
from utils.metrics import ConfusionMatrix
from utils.transforms import resize
from utils.upsampling import upsampled_mean_max

CPU = torch.device("cpu")
SIZES = [(128, 192), (128, 192), (72, 104), (128, 192)]


@pytest.fixture
def settings(tmp_path):
    """Cityscapes whose validation images differ in size."""
    root = make_cityscapes(tmp_path / "Cityscapes", val=0)
    for index, size in enumerate(SIZES):
        name = f"ulm/ulm_{index:06d}_000019"
        save(picture(index, size), root / "leftImg8bit/val" / f"{name}_leftImg8bit.png")
        save(label_ids(index, size), root / "gtFine/val" / f"{name}_gtFine_labelIds.png")
    return Settings(
        cityscapes_root=root,
        image_size=(64, 96),
        precision="fp32",
        batch_size=3,
        num_workers=0,
    )


@pytest.fixture
def network():
    torch.manual_seed(0)
    return BiSeNet(base=8).eval()


def samples(settings):
    return validation_samples(Role.TARGET, settings)


def counts(network, settings, **changes):
    settings = replace(settings, **changes)
    return evaluate(network, samples(settings), settings, CPU).matrix.counts


def test_half_of_an_images_size_is_what_that_image_size_gives(settings, network):
    """The "50" protocol, on the images of which 64x96 is half."""
    halved = replace(settings, eval_scales=(0.5,))
    results = []
    for one in (settings, halved):
        large = samples(one).subset([0, 1, 3])
        results.append(evaluate(network, large, one, CPU))
    plain, scaled = results
    assert torch.equal(plain.matrix.counts, scaled.matrix.counts)
    assert plain.image_accuracy == scaled.image_accuracy
    for a, b in zip(plain.rows, scaled.rows, strict=True):
        assert all(map(np.array_equal, a[1:4], b[1:4]))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_unequal_size_keep_their_order_and_are_scaled_each(settings, workers):
    own = samples(replace(settings, eval_scales=(0.5, 1.5)))
    batches = list(scaled_batches(own, (0.5, 1.5), batch_size=3, num_workers=workers, device=CPU))
    assert [len(batch.names) for batch in batches] == [2, 1, 1]
    assert [name for batch in batches for name in batch.names] == [f.name for f in own.files]
    for batch in batches:
        for half, larger, label in zip(*batch.images, batch.labels, strict=True):
            height, width = label.shape
            assert half.shape == (3, height // 2, width // 2)
            assert larger.shape == (3, 3 * height // 2, 3 * width // 2)
    image, _, _ = own[0, 2]
    assert torch.equal(batches[1].images[0][0], resize([36, 52])(image))


def test_the_batch_size_changes_nothing_but_the_rounding(settings, network):
    views = {"eval_scales": (0.5, 1.0), "eval_flip": True}
    one, many = (counts(network, settings, batch_size=size, **views) for size in (1, 4))
    assert one.sum() == many.sum()
    assert (one - many).abs().sum() <= 1e-4 * one.sum()


def test_predictions_are_the_mean_of_enlarged_probabilities_in_float64(settings, network):
    settings = replace(settings, eval_scales=(0.5, 1.0, 1.25), eval_flip=True)
    expected, margins = ConfusionMatrix(), []
    for index, size in enumerate(SIZES):
        image, label, _ = samples(settings)[0, index]
        total = 0
        for scale in settings.eval_scales:
            scaled = resize([round(scale * side) for side in size])(image)[None]
            for mirror in (lambda x: x, lambda x: x.flip(-1)):
                with torch.inference_mode():
                    logits = mirror(network.main_logits(mirror(scaled)))
                total += F.interpolate(
                    logits.double(), size, mode="bilinear", align_corners=True
                ).softmax(1)
        expected.update(total.argmax(1)[0], label)
        best, second = total.topk(2, 1).values[0]
        margins.append((best - second < 1e-4).sum())
    ours = counts(network, settings)
    assert (ours - expected.counts).abs().sum() <= 2 * sum(margins)
    assert not torch.equal(ours, counts(network, settings, eval_flip=False))
    assert not torch.equal(ours, counts(network, settings, eval_scales=(1.0,)))


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("rows_a_band", [1, 3, 1000, None])
def test_bands_of_several_resolutions_meet(rows_a_band, softmax, monkeypatch):
    enlarge_by(rows_a_band, 33, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(19, *size, generator=generator) for size in ((4, 8), (9, 5), (70, 40))]
    total = 0
    for one in maps:
        up = F.interpolate(one[None].double(), (65, 33), mode="bilinear", align_corners=True)
        total += (up.softmax(1) if softmax else up)[0]
    ours = upsampled_mean_max(maps, (65, 33), softmax=softmax)
    taken = total.gather(0, ours[None].long())[0]
    assert (total.amax(0) - taken).max() < 1e-5


class LeftRight:
    """Says class 0 of the left half of any image, and class 1 of the right, a little more surely;
    what its mirrored eye sees is the opposite."""

    def __call__(self, images):
        logits = torch.zeros(len(images), 19, 8, 12)
        logits[:, 0, :, :6], logits[:, 1, :, 6:] = 2, 3
        return [[logits]]


def test_a_mirrored_view_is_mirrored_back(settings):
    """Each half is seen as 0 by one eye and as 1 by the other, which is surer."""
    settings = replace(settings, eval_flip=True)
    (evaluation,) = evaluate_each(
        LeftRight(), samples(settings), settings, CPU, pictured=range(len(SIZES))
    )
    assert all((row.prediction == 1).all() for row in evaluation.rows)


def test_a_symmetric_image_gets_a_symmetric_prediction(settings, network, tmp_path):
    half = picture(0, (128, 96))
    image = save(np.concatenate([half, half[:, ::-1]], 1), tmp_path / "symmetric.png")
    label = save(np.zeros((128, 192), np.uint8), tmp_path / "label.png")
    files = [SampleFiles("symmetric", image, label, TRAIN_IDS)]
    predictions = {}
    for flip in (False, True):
        chosen = replace(settings, eval_flip=flip, eval_scales=(0.5, 1.0))
        own = SampleDataset(files, samples(chosen).transform)
        predictions[flip] = evaluate(network, own, chosen, CPU).rows[0].prediction
    unequal = {flip: (p != p[:, ::-1]).mean() for flip, p in predictions.items()}
    assert unequal[True] < 1e-3 < unequal[False]


def test_an_ensemble_averages_its_members_and_then_its_views(settings, network):
    """Members at the network's resolution, as MBT does; views at the label's."""
    torch.manual_seed(1)
    other = BiSeNet(base=8).eval()
    settings = replace(settings, eval_scales=(0.5, 1.0))

    def maps(images):
        return [[network.main_logits(images), other.main_logits(images)]]

    (evaluation,) = evaluate_each(maps, samples(settings), settings, CPU, pictured=[0])
    image, _, _ = samples(settings)[0, 0]
    total = 0
    for size in ((64, 96), (128, 192)):
        with torch.inference_mode():
            members = maps(resize(size)(image)[None])[0]
        p = sum(logits.double().softmax(1) for logits in members)
        total += F.interpolate(p, SIZES[0], mode="bilinear", align_corners=True)
    assert (evaluation.rows[0].prediction != total.argmax(1)[0].numpy()).mean() < 1e-3


def test_views_of_an_ensemble_are_averaged_as_the_probabilities_they_are(settings):
    """A softmax of probabilities would side with the one view that is certain."""
    settings, calls = replace(settings, eval_scales=(0.5, 1.0, 1.25)), itertools.count()

    def maps(images):
        logits = torch.full((len(images), 19, 8, 12), -30.0)
        if next(calls) % 3:
            logits[:, 1], logits[:, 2] = math.log(0.52), math.log(0.48)
        else:
            logits[:, 0] = 0
        return [[logits, logits]]

    (evaluation,) = evaluate_each(maps, samples(settings), settings, CPU, pictured=[0])
    assert (evaluation.rows[0].prediction == 1).all()


@pytest.mark.slow
def test_the_scores_say_how_and_stand_beside_the_plain_ones(settings, tmp_path, monkeypatch):
    """Through the command, whose training validates plainly whatever the flags say."""
    monkeypatch.chdir(tmp_path)
    views = ("--eval_scales", "0.5", "1", "--eval_flip")
    words = ("--action", "train_simple_cityscapes", *TINY, "--save_model_path", "runs")
    assert main.main([*words, "--num_epochs", "1", *views]) == 0
    run = tmp_path / "runs" / "simple_cityscapes_sgd_noaug"
    trained = json.loads((run / "scores.json").read_text())
    assert trained["validation"]["scales"] == [] and not trained["settings"]["eval_flip"]
    for flags in ((), views):
        assert main.main([*words, "--validation_only", *flags]) == 0
    names = ("validation_cityscapes", "validation_cityscapes_scales_0.5-1.0_flip")
    plain, several = (json.loads((run / f"{name}.json").read_text()) for name in names)
    assert plain["mIoU"] == trained["best"]["mIoU"] != several["mIoU"]
    assert plain["validation"]["image_size"] == [64, 96] and plain["validation"]["flip"] is False
    assert several["validation"]["scales"] == [0.5, 1.0] and several["validation"]["flip"] is True
    assert several["validation"]["image_size"] is None


@pytest.mark.parametrize("action", ["generate_pseudo_labels", "predict", "export"])
def test_actions_that_see_an_image_once_refuse_several_views(capsys, action):
    assert main.main(["--action", action, "--eval_flip"]) == 2
    assert f"{action} sees each image once" in capsys.readouterr().err
