"""TensorBoard reads curves, pictures and the table of runs from a run's files."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets.labels import CLASS_NAMES
from tests.support.helpers import TINY
from tests.support.runs import ROOTS, make_toy
from trainings.engine import loop
from trainings.engine import run as training
from trainings.engine.loop import Training
from trainings.engine.tensorboard import COMPARED, METRICS, class_curves
from trainings.train_FDA import FDA
from utils.disk.run_folder import LATEST

EventAccumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
).EventAccumulator
plugin_data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")

SPEED = "images_per_second"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A working directory with a Toy City and three runs: of FDA, of FDA without its pictures, and
    supervised."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_toy(folder, train=4, val=2)
        assert train("whole") == 0
        assert train("supervised", action="train_simple_gta5") == 0
        patch.setattr(FDA, "pictures", lambda self, batch: {})
        assert train("plain") == 0
    return folder


def train(name, *more, action="train_fda"):
    words = ("--action", action, "--save_model_path", "runs", "--save_keyword", name, *ROOTS, *TINY)
    return main.main([*words, "--num_epochs", "3", "--log_every", "1", *more])


def board(folder, name):
    """All that TensorBoard reads of a run."""
    everything = EventAccumulator(
        str(folder / "runs" / name / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    )
    return everything.Reload()


def curves(of):
    return {
        tag: [(entry.step, entry.value) for entry in of.Scalars(tag)]
        for tag in of.Tags()["scalars"]
        if tag != SPEED
    }


def columns(of):
    """A run's row in the table of runs, and the table's columns."""
    content = of.PluginTagToContent("hparams")
    parsed = {tag: plugin_data.HParamsPluginData.FromString(data) for tag, data in content.items()}
    row = parsed["_hparams_/session_start_info"].session_start_info.hparams
    table = parsed["_hparams_/experiment"].experiment
    assert parsed["_hparams_/session_end_info"].session_end_info.status
    return row, table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "scaled"),
    [(torch.float16, True), (torch.bfloat16, False), (torch.float32, False)],
)
def test_the_loss_is_scaled_under_float16_alone_which_has_a_curve(
    here, monkeypatch, precision, scaled
):
    monkeypatch.chdir(here)
    monkeypatch.setattr(loop, "resolve_precision", lambda *_: precision)  # a CPU has no fp16
    name = f"in_{precision}"
    words = ("--num_epochs", "1", "--image_size", "64", "64")  # a CPU is slow in float16
    assert train(name, *words, action="train_simple_gta5") == 0
    curve = curves(board(here, name)).get("loss_scale", [])
    assert [step for step, _ in curve] == ([1, 2] if scaled else [])
    assert all(scale >= 2**10 for _, scale in curve)


def test_every_class_that_is_there_has_a_curve(here):
    of = curves(board(here, "whole"))
    classes = {tag.partition("/")[2] for tag in of if tag.startswith("val_IoU/")}
    assert {"road", "sky"} <= classes <= set(CLASS_NAMES)
    assert [step for step, _ in of["val_IoU/road"]] == [2, 4, 6]
    assert {"val/mIoU", "train/seg_source", "train/ent_target", "learning_rate"} <= set(of)
    assert class_curves({"road": 0.5, "train": math.nan}) == {"val_IoU/road": 0.5}


def test_the_picture_of_a_validation_is_that_of_the_run_folder(here):
    *_, last = board(here, "whole").Images("validation")
    shown = np.array(Image.open(io.BytesIO(last.encoded_image_string)))
    assert (last.height, last.width) == shown.shape[:2]
    assert np.array_equal(shown, np.array(Image.open(here / "runs/whole/validation.png")))


def test_the_stylised_image_lies_beside_its_source_and_target(here):
    images = board(here, "whole").Images("training")
    assert [image.step for image in images] == [2, 4], "after epochs 1, 2, 4, ..."
    sheet = np.array(Image.open(io.BytesIO(images[0].encoded_image_string)))
    lines = [sheet[100:200, x : x + 320] for x in (14, 340, 666)]
    source, target, stylised = (line.astype(float) for line in lines)
    assert abs(stylised.mean((0, 1)) - target.mean((0, 1))).max() < 40
    assert np.corrcoef(stylised.ravel(), source.ravel())[0, 1] > 0.7
    assert "training" not in board(here, "supervised").Tags()["images"]


def test_looking_changes_nothing(here):
    whole, plain = (
        torch.load(here / "runs" / name / LATEST, weights_only=True)["method"]
        for name in ("whole", "plain")
    )
    assert all(torch.equal(value, plain[name]) for name, value in whole.items())


def test_runs_are_rows_of_one_table(here):
    fda, table = columns(board(here, "whole"))
    supervised, other = columns(board(here, "supervised"))
    assert table == other, "TensorBoard takes the columns of any one run for all"
    of_methods = {
        *("fda_beta", "ent_weight", "adv_weight", "discriminator", "confidence", "mask_ratio"),
        *("mix_weight", "distill_weight"),
    }
    found = {info.name for info in table.hparam_infos}
    assert found >= {*COMPARED, "weights"} | of_methods and "num_steps" not in fda
    assert tuple(info.name.tag for info in table.metric_infos) == METRICS
    assert fda["fda_beta"].number_value == 0.01 and "fda_beta" not in supervised
    assert fda["image_size"].string_value == "64x96"
    assert supervised["action"].string_value == "train_simple_gta5"


@pytest.mark.slow
@pytest.mark.parametrize("place", [(Training, "save"), (training, "training_record")])
def test_a_continued_run_has_no_entry_twice(here, monkeypatch, place):
    monkeypatch.chdir(here)
    name = f"continued_{place[1]}"

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == lives:
            raise OSError("the machine has gone")
        return before(*arguments)

    calls, before = [], getattr(*place)
    lives = 3 if place[1] == "save" else 1  # in the last epoch, before its checkpoint; at the end
    with monkeypatch.context() as patch:
        patch.setattr(*place, broken)
        with pytest.raises(OSError):
            train(name)
    assert train(name) == 0
    of = board(here, name)
    assert curves(of) == curves(board(here, "whole"))
    assert [image.step for image in of.Images("training")] == [2, 4]
    assert [image.step for image in of.Images("validation")] == [2, 4, 6]
    assert columns(of)[0]["action"].string_value == "train_fda"
