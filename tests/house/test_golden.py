"""First losses, scores, a run and a checkpoint are those of the release before.

They prove that moving code changes no number. `OMP_NUM_THREADS=1 python -m tests.house.test_golden`
rewrites the losses and scores in golden/ for the instructions of this CPU, with one thread as the
tests have, only where a change of numbers is meant; the run and the pseudo-labels there stay as the
release wrote them.
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from tests.support.helpers import make_cityscapes, make_gta5
from tests.support.reports import KINDS_TABLE, LINES, markdown_rows

GOLDEN = Path(__file__).resolve().parent / "golden"

INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()
VALUES = "avx2" if INSTRUCTIONS == "AVX2" else "avx512"
LOSSES, SCORES = GOLDEN / f"losses_{VALUES}.json", GOLDEN / f"scores_{VALUES}.json"
"""A CPU with AVX2 alone adds up in another order than one with AVX-512, and each step of a tiny
network amplifies the difference: both have values of their own."""

OLD_RUN, PSEUDO_LABELS = GOLDEN / "run", GOLDEN / "pseudo_labels"
CHECKPOINT = OLD_RUN / "best.pth"

TINY = (
    *("--base_width", "8", "--image_size", "64", "96", "--batch_size", "2", "--num_workers", "0"),
    *("--device", "cpu", "--save_model_path", "runs"),
)
TRAININGS = {
    "simple_cityscapes": ("train_simple_cityscapes",),
    "simple_gta5": ("train_simple_gta5",),
    "simple_hard_augmented": ("train_simple_gta5", "--aug_method", "C-S-HF", "--ohem"),
    "simple_averaged": (
        *("train_simple_gta5", "--optimizer", "adamw", "--ema_decay", "0.9"),
        *("--clip_grad_norm", "1", "--accumulate_steps", "2"),
    ),
    "ada": ("train_ada", "--optimizer", "adam", "--adv_weight", "0.1"),
    "ada_light": ("train_ada", "--discriminator", "light", "--adv_weight", "0.1"),
    "fda": ("train_fda", "--fda_beta", "0.05", "--ent_weight", "0.5"),
    "ssl_fda": (
        *("train_ssl_fda", "--fda_beta", "0.05", "--accept_pseudo_labels"),
        *("--pseudo_label_path", str(PSEUDO_LABELS)),
    ),
    "dacs": ("train_dacs", "--optimizer", "adam", "--confidence", "0.15"),
    "mic": ("train_mic", "--confidence", "0.15", "--mask_block", "64"),
    "ada_masked": (
        *("train_ada", "--discriminator", "light", "--mask_ratio", "0.5"),
        *("--confidence", "0.15"),
    ),
    "distill": (
        *("train_distill", "--accept_pseudo_labels"),
        *("--pseudo_label_path", str(PSEUDO_LABELS)),
    ),
}
TOLERANCES = {"fp32": 1e-3, "bf16": 0.05}
"""Largest relative difference of a loss: CPUs differ in the order in which they add up."""

RELEASE = "2.14."
"""The torch that wrote the values."""

STEPS_OF_OTHERS, TOLERANCE_OF_OTHERS = {"fp32": 3, "bf16": 2}, 0.05
"""With another torch, which rounds differently, so many losses are compared, to this difference:
every step of a tiny network amplifies it."""

is_same_release = torch.__version__.startswith(RELEASE)

LOSS = re.compile(r"train/(?!disc_accuracy|confident_|agreement).*")

HAS_BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()

same_numbers = pytest.mark.skipif(
    INSTRUCTIONS not in ("AVX2", "AVX512"),
    reason="without AVX2, torch draws other weights and rounds otherwise as it resizes pictures",
)

CONTINUED = (
    *("--action", "train_fda", "--save_keyword", "golden", "--fda_beta", "0.05"),
    *("--num_epochs", "3", "--precision", "fp32", *TINY),
)
DEMO = (
    *("--action", "demo", "--toy_train", "8", "--toy_val", "4", "--toy_size", "64", "128"),
    *("--num_epochs", "2", "--precision", "fp32", "--num_workers", "0", "--device", "cpu"),
    *("--base_width", "8", "--learning_rate", "0.002", "--ohem", "False"),
    *("--save_model_path", "runs"),
)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Make the folder the working directory of the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(*words: str) -> None:
    assert main.main(words) == 0


def make_data(folder: Path) -> Path:
    """Ten updates of two images in each data set."""
    make_gta5(folder / "GTA5", range(1, 26))
    make_cityscapes(folder / "Cityscapes", train=20, val=3)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("golden"))


def first_losses(name: str, precision: str) -> dict[str, list[float]]:
    """Each loss term of a training's first ten updates, by its name in TensorBoard."""
    keyword, words = f"{name}_{precision}", TRAININGS[name]
    epochs = "2" if "--accumulate_steps" in words else "1"  # of ten updates, or of five
    length = ("--num_epochs", epochs, "--log_every", "1", "--validation_step", "9")
    start = ("--load_model_path", str(CHECKPOINT), "--precision", precision)
    run("--action", *words, *TINY, *length, *start, "--save_keyword", keyword)
    (events,) = Path("runs", keyword).rglob("events.out.tfevents*")
    curves = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in sorted(curves.Tags()["scalars"]) if LOSS.fullmatch(tag)]
    return {tag: [event.value for event in curves.Scalars(tag)] for tag in tags}


@same_numbers
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TRAININGS)
def test_the_first_ten_losses_have_not_changed(data, name, precision):
    if precision == "bf16" and not HAS_BF16:
        pytest.skip("this CPU has no bfloat16 instructions")
    with inside(data):
        losses = first_losses(name, precision)
    expected = json.loads(LOSSES.read_text())[name][precision]
    assert losses.keys() == expected.keys()
    tolerance = TOLERANCES[precision] if is_same_release else TOLERANCE_OF_OTHERS
    compared = None if is_same_release else STEPS_OF_OTHERS[precision]
    for term, values in expected.items():
        assert len(values) == len(losses[term]) == 10
        near = pytest.approx(values[:compared], rel=tolerance, abs=tolerance / 10)
        assert losses[term][:compared] == near, term


def epoch_losses(run_folder: Path) -> list[float]:
    with (run_folder / "history.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def scores_of_old_run() -> dict[str, Any]:
    """Continue the old run, which was stopped in its second epoch of three, and score its
    checkpoint."""
    folder = Path("runs", "golden")
    shutil.copytree(OLD_RUN, folder)
    run(*CONTINUED)
    run(*CONTINUED, "--validation_only", "True", "--select", "last")
    transfer = ("--action", "val_gta5_transfer", "--load_model_path", str(CHECKPOINT))
    run(*transfer, *TINY, "--precision", "fp32", "--save_keyword", "transfer")
    record = Path("runs", "transfer", "validation_cityscapes_run_best.json")
    last = json.loads((folder / "scores.json").read_text())["last"]
    return {
        "losses": epoch_losses(folder),
        "last": last["pixel_accuracy"],
        "transfer": json.loads(record.read_text())["pixel_accuracy"],
    }


@pytest.mark.slow
def test_an_old_run_is_continued_scored_and_reported(data, capsys):
    expected = json.loads(SCORES.read_text())["old_run"]
    with inside(data):
        now = scores_of_old_run()
        assert "continuing runs/golden after epoch 1 of 3 and 14 of 30 steps" in (
            capsys.readouterr().out
        )
        shutil.copytree("runs/golden", "runs/reproduce/config2/seed0/fda05_sgd_noaug")
        run("--action", "report", "--save_model_path", "runs", "--cityscapes_root", "Cityscapes")
        assert "FDA" in Path("runs/reproduce/results.md").read_text()
    assert now["losses"][0] == expected["losses"][0]
    assert now["losses"] == pytest.approx(expected["losses"], rel=1e-3)
    assert now["last"] == pytest.approx(expected["last"], abs=5e-3)
    assert now["transfer"] == pytest.approx(expected["transfer"], abs=5e-3)


class Demo(NamedTuple):
    """A demo that has run: its folder, the mIoU of each row, and all that it printed."""

    folder: Path
    scores: dict[str, float]
    printed: str


def demo_scores() -> dict[str, float]:
    """The mIoU of each row of the demo's table, in percent."""
    run(*DEMO)
    with Path("runs", "demo", "results.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        identity = ("Step", "beta", "Epoch", "Batch-norm statistics")
        return {" | ".join(row[name] for name in identity): float(row["mIoU %"]) for row in rows}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    with inside(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        return Demo(folder, demo_scores(), printed.getvalue())


@pytest.mark.slow
@same_numbers
@pytest.mark.skipif(not is_same_release, reason="another torch rounds differently")
def test_the_scores_of_a_tiny_demo_have_not_changed(demo):
    expected = json.loads(SCORES.read_text())["demo"]
    assert expected.keys() <= demo.scores.keys()
    assert {row: demo.scores[row] for row in expected} == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
def test_the_demo_has_each_step_in_its_table_and_then_nothing_to_do(demo, capsys):
    assert " 1/14  1.A Supervised" in demo.printed
    assert "14/14  6 Distillation of MIC" in demo.printed
    results = demo.folder / "runs" / "demo"
    rows = markdown_rows(results / "results.md", KINDS_TABLE)
    one_beta = [line for line in LINES if "SSL-FDA" not in line[1] or line[2] == "0.05"]
    assert [(number, method, beta) for number, method, _, beta in rows] == one_beta
    assert "stdc1 of width 8, 64x128, adamw 0.002" in (results / "results.md").read_text()
    with Image.open(results / "predictions_adamw.png") as sheet:
        assert min(sheet.size) > 400
    with inside(demo.folder):
        run(*DEMO, "--dry_run")
    assert "14 steps in runs/demo, all finished." in capsys.readouterr().out


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, inside(make_data(Path(folder))):
        losses = {
            name: {
                precision: first_losses(name, precision)
                for precision in TOLERANCES
                if precision == "fp32" or HAS_BF16
            }
            for name in TRAININGS
        }
        LOSSES.write_text(json.dumps(losses, indent=1) + "\n")
        scores = {"old_run": scores_of_old_run(), "demo": demo_scores()}
        SCORES.write_text(json.dumps(scores, indent=1) + "\n")
