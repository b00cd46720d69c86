import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import main
from datasets.data_set import Role
from datasets.loading.sets import validation_samples
from main import FlatSettings as Settings
from model.ensemble import joint_scores
from model.model_stages import BiSeNet
from tests.support.helpers import make_cityscapes
from trainings.application import visualize
from trainings.application.shown import named_predictors, single
from trainings.application.visualize import comparison_sheet, telling_images
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from utils.errors import UserError

COMPARED = "comparison_a_best_b_best_a_latest"


class Constant(nn.Module):
    """Gives every pixel the same logits."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits, self.calls = torch.tensor(logits), 0

    def main_logits(self, x):
        self.calls += 1
        return self.logits.view(1, -1, 1, 1).expand(len(x), -1, 8, 12)


def test_an_ensemble_is_the_mean_of_probabilities_and_each_network_runs_once(tmp_path):
    """The mean of the logits would follow the one that is certain (see test_ensemble.py)."""
    a, b, c = paths = [tmp_path / name for name in "abc"]
    networks = dict(zip(paths, (Constant(8, 0), Constant(0, 2), Constant(0, 2)), strict=True))
    predictors = [Predictor("a", (a,)), Predictor("b", (b,)), Predictor("all", (a, b, c))]
    loaded = LoadedPredictors(predictors, networks)
    one, two, together = map(joint_scores, loaded(torch.zeros(1, 3, 64, 96)))
    assert one[0, :, 0, 0].tolist() == [8, 0] and two[0, :, 0, 0].tolist() == [0, 2]
    expected = torch.tensor([[8.0, 0], [0, 2], [0, 2]]).softmax(1).mean(0)
    torch.testing.assert_close(together[0, :, 0, 0], expected)
    assert [network.calls for network in networks.values()] == [1, 1, 1]
    (alone,) = loaded.only(2)(torch.zeros(1, 3, 64, 96))
    assert torch.equal(joint_scores(alone), together)


def test_telling_images_by_pixel_accuracy():
    accuracy = [0.5, 0.9, math.nan, 0.1, 0.7]
    chosen = telling_images(accuracy, Settings(picture_index=2, seed=3))
    assert chosen["fixed"] == [2]
    assert chosen["worst"] == [3, 0] and chosen["best"] == [1, 4]
    assert chosen["random"] == telling_images(accuracy, Settings(seed=3))["random"]
    drawn = {telling_images(accuracy, Settings(seed=seed))["random"][0] for seed in range(40)}
    assert drawn == set(range(5))


@pytest.fixture
def settings(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        torch.save(BiSeNet(base=8).state_dict(), tmp_path / name / "best.pth")
    (tmp_path / "a" / "latest.pth").write_bytes((tmp_path / "b" / "best.pth").read_bytes())
    return Settings(
        cityscapes_root=make_cityscapes(tmp_path / "Cityscapes"),
        save_model_path=tmp_path / "runs",
        image_size=(64, 96),
        base_width=8,
        num_workers=0,
        compare=(tmp_path / "a/best.pth", tmp_path / "b/best.pth", tmp_path / "a/latest.pth"),
    )


def test_named_checkpoints_keep_their_own_pictures(settings):
    """Two files of one folder, and two folders, none of them a run."""
    visualize.visualize(None, None, (), settings)
    pictures = settings.save_model_path / "visualize_sgd_noaug" / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == sorted(
        [
            f"{COMPARED}.json",
            f"{COMPARED}.png",
            *(
                f"{kind}_{name}.png"
                for kind in ("fixed", "random", "worst", "best")
                for name in ("a_best", "b_best", "a_latest")
            ),
        ]
    )
    titles = [predictor.title for predictor in named_predictors(settings)]
    assert titles == ["a", "b", "a/latest"]


@pytest.mark.slow
def test_runs_are_compared_by_their_scores(settings, monkeypatch, capsys):
    """From the lowest mIoU to the highest; what the command names keeps its order."""
    shown = []
    monkeypatch.setattr(
        visualize,
        "comparison",
        lambda rows, titles, title, **_: shown.append(titles) or rows[0].image,
    )
    object.__setattr__(settings, "save_keyword", "sheet")
    predictors = named_predictors(settings)
    visualize.visualize(None, None, (), settings)
    pictures = settings.save_model_path / "sheet" / "pictures"
    records = json.loads((pictures / f"{COMPARED}.json").read_text())["predictors"]
    assert [record["title"] for record in records] == ["a", "b", "a/latest"]
    assert shown[-1] == [f"{r['title']}, {100 * r['mIoU']:.2f} %" for r in records]

    object.__setattr__(settings, "compare", ())
    for found in (predictors, predictors[::-1]):
        monkeypatch.setattr(visualize, "runs_to_show", lambda *_: {})
        monkeypatch.setattr(visualize, "found_predictors", lambda *_, found=found: found)
        visualize.visualize(None, None, (), settings)
        ascending = sorted(found, key=lambda p: [r["mIoU"] for r in records if r["title"] == p[0]])
        assert [title.split(",")[0] for title in shown[-1]] == [p.title for p in ascending]
    table = capsys.readouterr().out.split("side by side")[0]
    assert all(f"| {record['title']} " in table for record in records)
    assert all(f"{100 * record['mIoU']:.2f} |\n" in table for record in records)


def test_folders_of_one_name_are_told_apart(settings, tmp_path):
    other = tmp_path / "elsewhere" / "a"
    other.mkdir(parents=True)
    (other / "best.pth").write_bytes((tmp_path / "b" / "best.pth").read_bytes())
    object.__setattr__(settings, "compare", (tmp_path / "a/best.pth", other / "best.pth"))
    titles = [predictor.title for predictor in named_predictors(settings)]
    assert titles == [str(tmp_path / "a/best.pth"), str(other / "best.pth")]


@pytest.mark.slow
def test_pictures_with_the_targets_statistics_have_names_of_their_own(settings):
    object.__setattr__(settings, "bn_statistics", "target")
    visualize.visualize(None, None, (), settings)
    pictures = settings.save_model_path / "visualize_sgd_noaug" / "pictures"
    assert all("target_statistics" in path.name for path in pictures.iterdir())


def test_a_sheet_shows_what_each_network_predicts(settings, monkeypatch):
    shown = []
    monkeypatch.setattr(
        visualize, "comparison", lambda rows, titles, **_: shown.append((rows, titles))
    )
    predictors = [single(path) for path in settings.compare]
    loaded = load_predictors(predictors, Role.TARGET, settings)
    samples = validation_samples(Role.TARGET, settings)
    comparison_sheet(loaded, {2: "worst", 0: ""}, samples, settings)
    ((rows, titles),) = shown
    assert titles == ["a", "b", "a/latest"]
    assert [row.name for row in rows] == [samples.files[2].name, samples.files[0].name]
    assert [row.note for row in rows] == ["worst", ""]
    for row, place in zip(rows, (2, 0), strict=True):
        image, truth, _ = samples[0, place]
        assert np.array_equal(row.image, image.permute(1, 2, 0)) and np.array_equal(
            row.truth, truth
        )
        first, second, third = row.predictions
        assert np.array_equal(second, third) and not np.array_equal(first, second)


def as_run(folder, size, action="train_ada", width=8, **more):
    """Makes a run of that size of a folder with a checkpoint."""
    run = Settings(action=action, image_size=size, base_width=width, **more)
    (folder / "settings.json").write_text(json.dumps(run.to_json()))


def drawn(tmp_path, *words, width=("--base_width", "8")):
    """`visualize` of the folders in that path, without a size."""
    places = ("--save_model_path", str(tmp_path), "--cityscapes_root", str(tmp_path / "Cityscapes"))
    small = (*width, "--num_workers", "0", "--precision", "fp32")
    return main.main(["--action", "visualize", *places, *small, *words])


def test_what_is_named_is_drawn_at_the_size_of_its_run(settings, tmp_path, capsys):
    as_run(tmp_path / "a", (64, 96))
    best = ("--load_model_path", str(tmp_path / "a/best.pth"))
    assert drawn(tmp_path, *best) == 0
    out = capsys.readouterr().out
    assert "drawn at 64x96 with the batch-norm" in out and "scored" not in out
    assert drawn(tmp_path, *best, "--image_size", "96", "128") == 0
    out = capsys.readouterr().out
    assert "drawn at 96x128, in proportion and scaled to cover it, with the batch-norm" in out
    kinds = ("fixed", "random", "worst", "best")
    names = {path.name for path in (tmp_path / "a/pictures").iterdir()}
    assert names == {f"{kind}{end}.png" for kind in kinds for end in ("", "_96x128")}


def test_each_checkpoint_that_is_named_has_the_width_of_its_own_run(settings, tmp_path, capsys):
    torch.save(BiSeNet(base=16).state_dict(), tmp_path / "b" / "best.pth")
    paths = [str(tmp_path / name / "best.pth") for name in "ba"]
    for name, width in (("a", 8), ("b", 16)):
        as_run(tmp_path / name, (64, 96), width=width)
    for words in (("--load_model_path", paths[0]), ("--mbt_checkpoints", *paths)):
        assert drawn(tmp_path, *words, width=()) == 0
        assert "drawn at 64x96" in capsys.readouterr().out
    assert drawn(tmp_path, "--load_model_path", paths[0], width=("--base_width", "8")) == 1
    assert "use --base_width 16" in capsys.readouterr().err


def test_runs_of_one_size_are_drawn_at_it_and_of_several_only_those_of_the_commands(
    settings, tmp_path, capsys
):
    for name in "ab":
        as_run(tmp_path / name, (64, 96))
    assert drawn(tmp_path) == 0
    out = capsys.readouterr().out
    assert "drawn at 64x96" in out and "left out" not in out
    as_run(tmp_path / "b", (96, 128))
    assert drawn(tmp_path) == 1
    error = capsys.readouterr().err
    assert "was trained at --image_size 512 1024 (a at 64 96, b at 96 128)" in error
    assert drawn(tmp_path, "--image_size", "96", "128") == 0
    out = capsys.readouterr().out
    assert "not trained at --image_size 96 128: a at 64 96" in out and "\na: " not in out


def test_runs_of_another_width_are_named_with_it(settings, tmp_path, capsys):
    as_run(tmp_path / "a", (64, 96))
    assert drawn(tmp_path, width=("--base_width", "16")) == 1
    error = capsys.readouterr().err
    assert "(a is of --base_width 8): give the flags of one of them" in error
    assert "train one" not in error


def test_runs_of_any_width_are_drawn_where_the_command_names_no_network(settings, tmp_path, capsys):
    as_run(tmp_path / "a", (64, 96))
    assert drawn(tmp_path, width=()) == 0
    assert "\na: " in capsys.readouterr().out


def test_runs_of_another_source_or_target_are_left_out(settings, tmp_path, capsys):
    as_run(tmp_path / "a", (64, 96), source="synthia")
    as_run(tmp_path / "b", (64, 96), action="train_target", source="synthia")
    assert drawn(tmp_path) == 0
    out = capsys.readouterr().out
    assert "left out, because they are of another source or target: a\n" in out
    assert "\nb: " in out  # train_target has no source, whatever it records
    (tmp_path / "b" / "settings.json").unlink()
    assert drawn(tmp_path) == 1
    error = capsys.readouterr().err
    assert "no run from GTA5 to Cityscapes" in error and "(SYNTHIA to Cityscapes)" in error


def test_the_folder_of_a_training_is_refused_before_anything_is_drawn(settings, tmp_path, capsys):
    for name in "ab":
        as_run(tmp_path / name, (64, 96))
    assert drawn(tmp_path, "--save_keyword", "a") == 2
    error = capsys.readouterr().err
    assert "a is the folder of a training" in error
    assert f"--load_model_path {tmp_path / 'a' / 'best.pth'}" in error
    assert not list(tmp_path.rglob("pictures"))
    assert drawn(tmp_path, "--load_model_path", str(tmp_path / "a/best.pth")) == 0


def test_no_run_and_no_such_image_are_sentences(settings):
    object.__setattr__(settings, "compare", ())
    with pytest.raises(
        UserError,
        match=r"no run of --optimizer sgd .*: train one, or .*--load_model_path",
    ):
        visualize.visualize(None, None, (), settings)
    object.__setattr__(settings, "load_model_path", settings.save_model_path.parent / "a/best.pth")
    object.__setattr__(settings, "picture_index", 3)
    with pytest.raises(UserError, match="--picture_index: 3 is not below the 3 images"):
        visualize.visualize(None, None, (), settings)


def test_one_checkpoint_needs_no_sheet(settings):
    object.__setattr__(settings, "compare", settings.compare[:1])
    visualize.visualize(None, None, (), settings)
    pictures = settings.save_model_path / "visualize_sgd_noaug" / "pictures"
    assert not (pictures / "comparison.png").exists()
    assert min(Image.open(pictures / "worst_a_best.png").size) > 300
