"""The named recipes set flags, and explicit flags beat them."""

import csv
import json

import pytest

import main
from tests.support.helpers import TINY, make_cityscapes
from tests.support.runs import ROOTS
from trainings.recipes import RECIPES
from utils.cli.command_line import parse_settings

FACTS = {
    "stdc": {
        "num_steps": 60_000,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "head_lr_mult": 10,
        "warmup_steps": 1000,
        "poly_power": 0.9,
        "image_size": (512, 1024),
        "train_scales": (0.125, 1.5, 0.125),
        "ohem": True,
        "detail_guidance": True,
    },
    "mmseg": {"num_steps": 80_000, "train_scales": (0.5, 2)},
    "daformer": {
        "num_steps": 40_000,
        "optimizer": "adamw",
        "learning_rate": 6e-5,
        "head_lr_mult": 10,
        "warmup_steps": 1500,
        "poly_power": 1,
        "rare_class_temperature": 0.01,
    },
}
"""Fan et al. and the official code; mmsegmentation; Hoyer et al., CVPR 2022."""


def parsed(name, *words, action=None):
    action = action or ("train_fda" if RECIPES[name].adapts else "train_simple_cityscapes")
    return parse_settings(["--action", action, "--recipe", name, *words], main.ACTIONS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_the_papers_values(name):
    settings = parsed(name)
    assert {flag: getattr(settings, flag) for flag in FACTS[name]} == FACTS[name]
    images = 2 if name == "daformer" else 48
    assert settings.batch_size * settings.accumulate_steps == images
    for flag, value in RECIPES[name].values.items():
        assert getattr(settings, flag) == value, flag


def test_the_jitter_and_the_flip_of_stdc_change_every_image():
    """Brightness, contrast and saturation by 0.5 to 1.5, and a flip in half of the cases."""
    settings = parsed("stdc")
    assert set(settings.aug_method.split("-")) == {"B", "C", "S", "HF"}
    assert settings.aug_probability == 1


def test_an_explicit_flag_beats_the_recipe_and_takes_along_what_follows_it():
    settings = parsed("stdc", "--optimizer", "adam", "--batch_size", "4", "--num_epochs", "3")
    assert (settings.optimizer, settings.learning_rate, settings.head_lr_mult) == ("adam", 1e-3, 1)
    assert (settings.num_epochs, settings.num_steps) == (3, None)
    assert settings.accumulate_steps == 12 and settings.detail_guidance
    settings = parsed("daformer", "--image_size", "256", "512")
    assert settings.source_resize == (360, 640)
    assert parsed("stdc", "--ohem", "False", "--accumulate_steps", "1").accumulate_steps == 1


def test_a_dry_run_prints_every_value_and_the_published_score_and_trains_nothing(tmp_path, capsys):
    for name, recipe in RECIPES.items():
        action = "train_ada" if recipe.adapts else "train_simple_gta5"
        words = ["--action", action, "--recipe", name, "--dry_run", "--ema_decay", "0.9"]
        assert main.main([*words, "--save_model_path", str(tmp_path), "--warmup_steps", "7"]) == 0
        printed = capsys.readouterr().out
        assert all(f"--{flag} " in printed for flag in recipe.values)
        assert f"(the recipe has {recipe.values['warmup_steps']})" in printed
        assert f"published: {recipe.published}" in printed and "nothing yet" in printed
        assert recipe.score_with is None or f"the same command with {recipe.score_with}" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("action", "words", "sentence"),
    [
        ("train_fda", ("--recipe", "stdc"), "stdc is for supervised training"),
        ("train_simple_gta5", ("--recipe", "daformer"), "daformer is for adaptation"),
        ("train_fda", ("--dry_run",), "--dry_run: train_fda prints what its --recipe sets"),
        ("train_fda", ("--recipe", "daformer", "--config", "config1"), "--config is a recipe, too"),
    ],
)
def test_a_recipe_that_does_not_fit_is_a_sentence(capsys, action, words, sentence):
    assert main.main(["--action", action, *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize("action", ["demo", "reproduce", "predict"])
def test_actions_that_do_not_train_one_network_cannot_take_a_recipe(capsys, action):
    with pytest.raises(SystemExit):
        parse_settings(["--action", action, "--recipe", "stdc"], main.ACTIONS)
    assert f"--recipe: {action} cannot take it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--train_scales", "2", "1"), "give the smallest and the largest"),
        (("--train_scales", "1"), "give the smallest and the largest"),
        (("--train_scales", "0.5", "2", "--aug_method", "RS"), "RS in --aug_method"),
    ],
)
def test_scales_that_make_no_sense_are_a_sentence(capsys, words, problem):
    with pytest.raises(SystemExit):
        parse_settings(["--action", "train_simple_gta5", *words], main.ACTIONS)
    assert f"argument --train_scales: {problem}" in capsys.readouterr().err


def test_a_training_by_a_recipe_runs_and_says_how_to_score_it(tmp_path, monkeypatch, capsys):
    """With a tiny network and few steps, on pictures of their own size."""
    monkeypatch.chdir(tmp_path)
    make_cityscapes(tmp_path / "toy" / "Cityscapes")
    words = ("--action", "train_simple_cityscapes", "--recipe", "stdc", "--save_model_path", "runs")
    small = ("--num_steps", "2", "--accumulate_steps", "2", "--warmup_steps", "0")
    command = [*words, *ROOTS, *TINY, *small, "--save_keyword", "a"]
    assert main.main(command) == 0
    named = capsys.readouterr().out.rpartition("the same command with ")[2].split()
    assert named == ["--validation_only", "True", "--eval_scales", "0.75"]
    assert main.main([*command, *named]) == 0
    (scored,) = (tmp_path / "runs" / "a").glob("validation_*.json")
    assert json.loads(scored.read_text())["validation"]["scales"] == [0.75]
    with (tmp_path / "runs" / "a" / "history.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["detail_source"]) > 0 and int(row["step"]) == 2
