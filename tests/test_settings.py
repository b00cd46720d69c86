import dataclasses

import pytest

import main
from utils.command_line import parse_settings
from utils.settings import PRESETS, setting_fields

HELP = {name: action.help for name, action in main.ACTIONS.items()}
DEFAULTS = {name: action.defaults for name, action in main.ACTIONS.items()}


def parse(*words, action="train_simple_gta5"):
    return parse_settings(["--action", action, *words], HELP, DEFAULTS)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((), False),
        (("--validation_only",), True),
        (("--validation_only", "True"), True),
        (("--validation_only", "False"), False),
        (("--validation_only", "false"), False),
    ],
)
def test_false_means_false(words, value):
    assert parse(*words).validation_only is value


def test_the_optimizer_decides_what_is_not_given():
    sgd, adam = parse(), parse("--optimizer", "adam")
    assert (sgd.learning_rate, sgd.head_lr_mult) == (0.01, 10)
    assert (adam.learning_rate, adam.head_lr_mult) == (0.001, 1)
    assert parse("--optimizer", "adam", "--learning_rate", "0.5").learning_rate == 0.5


def test_an_explicit_flag_beats_the_preset():
    config1, config2 = parse("--config", "config1"), parse("--config", "config2")
    assert (config1.optimizer, config1.batch_size) == ("adam", 4)
    assert (config2.optimizer, config2.batch_size) == ("sgd", 4)
    mixed = parse("--config", "config1", "--batch_size", "6")
    assert (mixed.optimizer, mixed.batch_size) == ("adam", 6)
    assert set(PRESETS) == {"config1", "config2"}


def test_source_is_resized_as_fda_does_or_in_proportion():
    assert parse().source_resize == (720, 1280)
    assert parse("--image_size", "128", "256").source_resize == (180, 320)
    assert parse("--source_resize", "512", "1024").source_resize == (512, 1024)


@pytest.mark.parametrize(
    ("words", "stem", "name"),
    [
        ((), "simple_cityscapes", "simple_cityscapes_sgd_noaug"),
        (("--aug_method", "nonorm"), "ada", "ada_sgd_noaug"),
        (("--aug_method", "C-S-HF", "--optimizer", "adam"), "simple_gta5", "simple_gta5_adam_aug"),
        (("--save_keyword", "mine"), "simple_gta5", "mine"),
        (("--save_keyword", ""), "simple_gta5", "simple_gta5_sgd_noaug"),
    ],
)
def test_runs_are_named_as_the_users_name_them(words, stem, name):
    assert parse(*words).run_name(stem) == name


def test_demo_follows_the_toy_flags():
    demo = parse("--toy_size", "64", "128", "--toy_root", "x", action="demo")
    assert demo.image_size == demo.source_resize == (64, 128)
    assert str(demo.gta5_root) == "x/GTA5"
    assert parse("--image_size", "96", "96", action="demo").image_size == (96, 96)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--batch_size", "0"), "--batch_size: '0' must be at least 1"),
        (("--batch_size", "x"), "--batch_size: 'x' is not a whole number"),
        (("--learning_rate", "nan"), "must be above 0"),
        (("--learning_rate", "0"), "must be above 0"),
        (("--image_size", "32", "64"), "--image_size: '32' must be at least 64"),
        (("--source_resize", "300", "300"), "smaller than --image_size 512 1024"),
        (("--aug_method", "C-X"), "'X'; the codes are C, S, B, H, GS, HF, RP, R, BL, SO, RS"),
        (("--validation_only", "maybe"), "neither True nor False"),
        (("--optimizer", "lion"), "'lion'"),
        (("--save_keyword", "a/b"), "is a name, not a path"),
        (("--save_keyword", ".."), "is a name, not a path"),
        (("--seed", str(2**70)), "2^63"),
        (("--gta5_val_fraction", "1"), "between 0 and 1"),
        (("--batch", "4"), "unrecognized arguments: --batch"),
        (("--configs", "config1", "adam"), "--configs: 'adam' is none of config1, config2"),
        (("--seeds", "0", "-1"), "--seeds: '-1' must lie in 0"),
    ],
)
def test_a_bad_value_is_one_sentence_with_its_flag(capsys, words, sentence):
    assert sentence in refused(capsys, *words)


def test_every_field_is_a_flag_with_help(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for field in setting_fields():
        assert f"--{field.name} " in text
        assert field.metadata["help"]
    for action in main.ACTIONS:
        assert f"\n  {action} " in text


def test_what_the_command_line_held_is_told_from_what_it_did_not():
    words = ("--config", "config1", "--seeds", "0", "2", "--num_epochs", "50", "--ohem")
    settings = parse(*words, "--configs", "config2", action="reproduce")
    assert settings.explicit() == {
        "action": "reproduce",
        "config": "config1",
        "configs": ("config2",),
        "seeds": (0, 2),
        "num_epochs": 50,
        "ohem": True,
    }
    assert "given" not in settings.to_json()


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().batch_size = 3
