import dataclasses
import json
import os

import pytest

import main
from utils.cli.command_line import parse_settings
from utils.cli.common import PRESETS
from utils.cli.options import flags_of

FLAGS = flags_of(main.FlatSettings)


def parse(*words, action="train_simple_gta5"):
    return parse_settings(["--action", action, *words], main.ACTIONS)


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


@pytest.mark.parametrize("name", [f.name for f in FLAGS if "Path" in str(f.type)])
@pytest.mark.parametrize("word", ["", " "])
def test_an_empty_path_is_refused_where_it_could_be_an_unset_variable(capsys, name, word):
    """The notebook's variable of the pretrained weights may be empty: the training says so."""
    if (name, word) == ("pretrain_path", ""):
        assert parse("--pretrain_path", "").pretrain_path is None
    elif name != "pretrain_path":
        assert f"argument --{name}: the path is empty" in refused(capsys, f"--{name}", word)


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
        (("--gta5_val_fraction", "1"), "at least 0 and below 1"),
        (("--batch", "4"), "--batch: no such flag; did you mean --batch_size?"),
        (("--lerning-rate=1",), "--lerning-rate: no such flag; did you mean --learning_rate?"),
        (("--xyzzy",), "--xyzzy: no such flag; --help all lists them"),
        (("train_fda",), "'train_fda' belongs to no flag; did you mean --action train_fda?"),
        (("--action", "train_fad"), "--action: there is no 'train_fad'; did you mean train_fda?"),
        (("--optimizer", "Adamm"), "--optimizer: there is no 'Adamm'; did you mean adam?"),
        (("--precision", "x"), "there is no 'x'; choose from auto, fp32, tf32, bf16, fp16"),
        (("--help", "fda_bta"), "is called 'fda_bta'; did you mean fda_beta?"),
        (("--configs", "config1", "adam"), "--configs: 'adam' is none of config1, config2"),
        (("--seeds", "0", "-1"), "--seeds: '-1' must lie in 0"),
        (("--base_width", "100000"), "--base_width: '100000' must be an even number from 8 to 512"),
        (("--save_keyword", "  "), "--save_keyword: '  ' must not be blank"),
        (("--save_keyword", "a\nb"), "nor hold a line break"),
        (("--save_keyword", "a\u2028b"), "nor hold a line break"),
    ],
)
def test_a_bad_value_is_one_sentence_with_its_flag(capsys, words, sentence):
    assert sentence in refused(capsys, *words)


def helped(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        parse_settings(words, main.ACTIONS)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_every_field_is_a_flag_with_help(capsys):
    text = helped(capsys, "--help", "all")
    for field in flags_of(main.FlatSettings):
        assert f"--{field.name} " in text
        assert field.metadata["help"]
        assert f"--{field.name} " in helped(capsys, "--help", field.name)
    for action in main.ACTIONS:
        assert f"\n  {action} " in text


def test_help_is_short_and_leads_to_every_action_and_topic(capsys):
    text = helped(capsys, "--help")
    assert len(text.splitlines()) < 60
    topics = {field.metadata["group"] for field in flags_of(main.FlatSettings)}
    for name in (*main.ACTIONS, *topics):
        assert f"\n  {name} " in text
        assert "--" in helped(capsys, "--help", name)
    assert helped(capsys, "--help", "toy").count("\n  --") == 4


@pytest.mark.parametrize("name", main.ACTIONS)
def test_an_action_shows_its_flags_and_examples_that_parse(capsys, name):
    action = main.ACTIONS[name]
    text = helped(capsys, "--action", name, "--help")
    assert text == helped(capsys, "--help", name) and action.help in text
    assert len(set(action.flags)) == text.count("\n  --"), "a flag that does not exist"
    for example in action.examples:
        assert parse(*example.split(), action=name).action == name
        assert f"--action {name} {example}".rstrip() in text
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("action", "words", "readers"),
    [
        ("train_fda", ("--seeds", "1", "2", "3"), "demo, reproduce"),
        ("report", ("--seeds", "1"), "demo, reproduce"),
        ("val_mbt", ("--configs", "config1"), "demo, reproduce"),
        ("train_fda", ("--input", "photos"), "predict"),
        ("reproduce", ("--input", "photos"), "predict"),
        ("train_ada", ("--compare", "a", "b"), "visualize"),
        (
            "val_gta5_transfer",
            ("--mbt_checkpoints", "a"),
            "val_mbt, generate_pseudo_labels, visualize, predict",
        ),
    ],
)
def test_a_flag_that_asks_for_another_job_is_refused(capsys, action, words, readers):
    error = refused(capsys, "--action", action, *words)
    assert f"{words[0]}: {action} cannot take it" in error and f"({readers})" in error


USUAL = (
    *("--pretrain_path", "a.tar", "--num_epochs", "3", "--learning_rate", "0.1", "--optimizer"),
    *("adam", "--batch_size", "6", "--aug_method", "C-S-HF", "--fda_beta", "0.05", "--num_workers"),
    *("1", "--save_keyword", "mine", "--save_model_path", "runs", "--load_model_path", "a.pth"),
    *("--validation_only", "True", "--seed", "0", "--dry_run", "False"),
)
"""Flags that users give to every action alike."""


@pytest.mark.parametrize(
    ("action", "unread"),
    [
        ("val_gta5_transfer", "--fda_beta, --learning_rate, --num_epochs, --pretrain_path"),
        ("val_mbt", "--fda_beta, --learning_rate, --load_model_path, --num_epochs, --pretrain"),
        ("visualize", "--fda_beta, --learning_rate, --num_epochs, --pretrain_path"),
        ("generate_pseudo_labels", "--batch_size, --fda_beta, --learning_rate, --num_epochs"),
        ("train_simple_gta5", "--fda_beta"),
        ("train_fda", None),
    ],
)
def test_the_usual_flags_work_everywhere_and_unread_ones_are_named(capsys, action, unread):
    assert parse(*USUAL, action=action).learning_rate == 0.1
    told = capsys.readouterr().out
    assert told.startswith(f"note: {action} makes no use of {unread}") if unread else told == ""


def test_a_training_reads_the_flags_of_scoring_only_where_it_scores(capsys):
    words = ("--eval_flip", "--select", "last")
    parse(*words)
    assert "train_simple_gta5 makes no use of --eval_flip, --select\n" in capsys.readouterr().out
    parse(*words, "--validation_only", "True")
    assert capsys.readouterr().out == ""


def test_every_flag_is_read_by_some_action():
    read = set().union(*(action.read_flags(scoring=True) for action in main.ACTIONS.values()))
    fields = flags_of(main.FlatSettings)
    everywhere = {field.name for field in fields if field.metadata["everywhere"]}
    assert read | everywhere == {field.name for field in fields}


def test_a_note_names_the_value_that_counts_of_a_flag_given_twice(capsys):
    words = ("--seed", "1", "--image_size", "64", "96", "--seed=2", "--image_size", "96", "128")
    assert parse(*words).seed == 2
    told = capsys.readouterr().out
    assert "note: --seed is given more than once; the last one counts: 2\n" in told
    assert "note: --image_size is given more than once; the last one counts: 96 128\n" in told


def test_errors_are_red_on_a_terminal_only(capsys, monkeypatch):
    for colour, no_color, is_terminal in ((True, "", True), (False, "1", True), (False, "", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        assert ("\033[31merror:" in refused(capsys, "--batch", "4")) is colour


def test_workers_are_a_number_that_the_machine_can_start_or_auto(capsys):
    assert parse().num_workers == parse("--num_workers", "auto").num_workers == "auto"
    assert parse("--num_workers", "64").num_workers == 64
    for value, sentence in (
        ("5000", "'5000' must lie in 0 to "),
        ("-1", "'-1' must lie in 0 to "),
        ("many", "'many' is not a whole number or auto"),
    ):
        assert sentence in refused(capsys, "--num_workers", value)


@pytest.fixture
def config_file(tmp_path):
    def write(**values):
        (tmp_path / "run.json").write_text(json.dumps(values))
        return "--config_file", str(tmp_path / "run.json")

    return write


def parse_file(file, *words):
    return parse_settings((*file, *words), main.ACTIONS)


def test_a_run_s_settings_run_it_again(config_file):
    words = ("--optimizer", "adam", "--image_size", "64", "96", "--eval_scales", "1", "2", "--ohem")
    before = parse(*words, "--overwrite", "--learning_rate", "0.00005", action="train_fda")
    file = config_file(**before.to_json(), data="a digest", weights=None)
    again = parse_file(file)
    changed = {"config_file": again.config_file, "overwrite": False}
    assert again == dataclasses.replace(before, **changed)
    assert again.result_settings() == before.result_settings()


def test_flags_beat_the_file_and_the_file_the_presets_and_the_action(config_file):
    file = config_file(action="demo", config="config1", batch_size=6, base_width=16, num_workers=2)
    settings = parse_file(file, "--base_width", "8")
    assert (settings.optimizer, settings.batch_size, settings.base_width) == ("adam", 6, 8)
    assert settings.num_workers == 2, "as older runs recorded it"
    assert settings.num_epochs == 15, "the demo's own default"
    assert parse_file(file, "--config", "config2").optimizer == "sgd"
    assert parse_file(file, "--action", "train_ada").action == "train_ada"


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [
        ("num_epochs", "num_steps"),
        ("validation_step", "validation_steps"),
        ("checkpoint_step", "checkpoint_steps"),
    ],
)
def test_a_time_is_given_in_epochs_or_in_steps(config_file, capsys, epochs, steps):
    error = refused(capsys, "--action", "train_ada", f"--{epochs}", "3", f"--{steps}", "40")
    assert f"argument --{steps}: it replaces --{epochs}; give one of them" in error
    file = config_file(**parse(f"--{steps}", "40").to_json())
    assert getattr(parse_file(file), steps) == 40
    in_epochs = parse_file(file, f"--{epochs}", "3")
    assert (getattr(in_epochs, epochs), getattr(in_epochs, steps)) == (3, None)


def test_defaults_that_depend_on_a_changed_setting_change_with_it(config_file):
    file = config_file(**parse("--weight_decay", "0.1").to_json())
    adam = parse_file(file, "--optimizer", "adam")
    assert (adam.learning_rate, adam.head_lr_mult, adam.weight_decay) == (0.001, 1, 0.1)
    assert parse_file(file, "--image_size", "128", "256").source_resize == (180, 320)
    assert parse_file(file).source_resize == (720, 1280)
    assert parse_file(config_file(action="demo", learning_rate=0.01)).learning_rate == 0.01


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": 0}, "run.json: argument --batch_size: '0' must be at least 1"),
        ({"batch_size": [1, 2]}, "run.json: '2' belongs to no flag"),
        ({"optimizer": "adm"}, "run.json: argument --optimizer: there is no 'adm'; did you mean"),
        ({"batchsize": 4}, "no such setting: batchsize; did you mean batch_size?"),
        ({"newer": 1, "newest": 2, "data": "x"}, "run.json: no such setting: newer, newest"),
        ({"help": "all"}, "no such setting: help"),
        ({"learning_rate": "NaN"}, "must be above 0"),
    ],
)
def test_a_file_passes_the_same_checks(capsys, config_file, values, sentence):
    assert sentence in refused(capsys, *config_file(**values))


def test_flags_in_a_file_of_another_action_are_left_to_it(capsys, config_file):
    values = {"seeds": [1, 2], "toy_train": 8}
    file = config_file(action="demo", **values)
    assert parse_file(file, "--action", "train_fda").seeds == (1, 2)
    assert capsys.readouterr().out == ""
    for words in (config_file(**values), config_file(action="train_fda", **values)):
        assert "--seeds: train_fda cannot take it" in refused(
            capsys, "--action", "train_fda", *words
        )


def test_a_file_that_is_none_is_said(capsys, tmp_path):
    assert f"such as {tmp_path}/settings.json" in refused(capsys, "--config_file", str(tmp_path))
    (tmp_path / "list.json").write_text("[1]")
    assert "should hold settings" in refused(capsys, "--config_file", str(tmp_path / "list.json"))
    for content in (b"batch_size: 4", b"", b"\xff"):
        (tmp_path / "a.yaml").write_bytes(content)
        sentence = refused(capsys, "--config_file", str(tmp_path / "a.yaml"))
        assert "it is not JSON" in sentence and "such as a run's settings.json" in sentence
    os.mkfifo(tmp_path / "pipe")
    sentence = "pipe is a pipe, a socket or a device: name a regular file"
    assert sentence in refused(capsys, "--config_file", str(tmp_path / "pipe"))


def test_an_action_must_come_from_somewhere(capsys, config_file):
    for words in ((), config_file(batch_size=4)):
        with pytest.raises(SystemExit):
            parse_settings(words, main.ACTIONS)
        assert "--action is missing: one of demo, reproduce, report" in capsys.readouterr().err


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


def test_another_action_takes_from_a_file_only_what_was_chosen_there(config_file):
    run = parse("--fda_beta", "0.05", "--load_model_path", "a.pth", action="train_fda")
    file = config_file(**run.to_json())
    scored = parse_file(file, "--action", "val_mbt")
    assert (scored.ssl_round, scored.fda_beta, scored.load_model_path) == (0, 0.05, None)
    assert parse_file(file).load_model_path == run.load_model_path
    adam = config_file(**parse("--config", "config1").to_json())
    assert parse_file(adam, "--config", "config2").optimizer == "sgd"
