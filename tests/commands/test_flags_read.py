"""Each action reads exactly the flags that it lists; the flags that a run reads are recorded."""

import dataclasses
import sys

import pytest

import main
from datasets.options import DataOptions
from tests.support.helpers import make_cityscapes, make_gta5
from tests.support.layouts import pair
from trainings.application import benchmark_speed
from utils.cli.command_line import parse_settings
from utils.cli.options import Options, flags_of

FIELDS = {field.name for field in flags_of(main.FlatSettings) if not field.metadata["everywhere"]}
COPIES = {
    *(dataclasses.replace.__code__, getattr(dataclasses, "_replace", dataclasses.replace).__code__),
    *(Options.of.__func__.__code__, Options.values.__code__, Options.__post_init__.__code__),
    DataOptions.__post_init__.__code__,
}
"""Functions that read fields only to copy them, or to derive the defaults of others."""


def read_by(action, *words):
    """Run an action; return the names of the flags whose values it read, from the settings or from
    the options of a method."""
    settings = parse_settings(["--action", action, *map(str, words)], main.ACTIONS)
    own, read, plain = settings.values(), set(), Options.__getattribute__

    def recorded(options, name):
        value = plain(options, name)
        if name in FIELDS and value == own[name]:
            frame = sys._getframe(1)
            if not {frame.f_code, frame.f_back.f_code} & COPIES:
                read.add(name)
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Options, "__getattribute__", recorded)
        main.ACTIONS[action].run(settings)
    return read


ROOTS = (
    *("--save_model_path", "runs", "--gta5_root", "GTA5", "--cityscapes_root", "Cityscapes"),
    *("--num_workers", "0", "--precision", "fp32", "--device", "cpu", "--cache_dir", "none"),
)
NETWORK = ("--base_width", "10", "--image_size", "64", "96")
SCORED = (*NETWORK, "--optimizer", "adam", "--batch_size", "2", "--fda_beta", "0.02")
TRAINED = (
    *(*SCORED, "--num_epochs", "2", "--validation_step", "2", "--log_every", "2"),
    *("--source_resize", "80", "120", "--eval_flip", "--eval_scales", "0.5"),
)
BEST = [f"runs/fda{beta}_adam_noaug/best.pth" for beta in ("01", "05", "09")]
TARGET = ("--bn_statistics", "target")
MASKED = ("--mask_ratio", "0.5")
"""The other flags of masked consistency are only read with a ratio."""

COMMANDS = [
    ("train_simple_cityscapes", *TRAINED),
    ("train_simple_gta5", *TRAINED, "--aug_method", "C-S"),
    ("val_gta5_transfer", *SCORED, "--aug_method", "C-S"),
    ("train_ada", *TRAINED, *MASKED),
    *(("train_fda", *TRAINED, *MASKED, "--fda_beta", beta) for beta in ("0.01", "0.05", "0.09")),
    ("val_mbt", *SCORED, *TARGET),
    ("val_mbt", *SCORED, *TARGET, "--mbt_checkpoints", *BEST, "--save_keyword", "named"),
    ("generate_pseudo_labels", *SCORED, "--save_keyword", "unread"),
    ("train_ssl_fda", *TRAINED, *MASKED),
    ("train_dacs", *TRAINED, *MASKED),
    ("visualize", *SCORED, *TARGET),
    ("visualize", *SCORED, *TARGET, "--compare", *BEST),
    ("visualize", *SCORED, *TARGET, "--load_model_path", BEST[0], "--save_keyword", "named"),
    ("predict", *NETWORK, "--input", "GTA5/images", "--load_model_path", BEST[0]),
    *(
        (action, *NETWORK, "--target", "photos", *TARGET, "--load_model_path", BEST[0], *more)
        for action, *more in (
            ("generate_pseudo_labels", "--pseudo_label_path", "labels"),
            ("visualize", "--save_keyword", "of_photos"),
            ("predict", "--input", "photos/images", "--output", "predicted"),
            ("export", "--output", "of_photos.pt2"),
        )
    ),
    ("val_mbt", *SCORED, "--target", "photos", "--mbt_checkpoints", *BEST),
    ("check_data", *NETWORK),
    (
        *("benchmark", *NETWORK, "--backends", "eager", "--precisions", "fp32"),
        *("--batch_size", "2", "--warmup_steps", "3", *MASKED),
    ),
    ("export", *NETWORK, *TARGET, "--load_model_path", BEST[0], "--output", "network.pt2"),
    ("make_toy_data", "--toy_root", "toy", "--toy_train", "2", "--toy_val", "1"),
]
"""All but `reproduce`, `demo` and `report`, which hand flags on to these."""

SCORES_ONLY = ("--validation_only", *SCORED, *TARGET, "--source_resize", "80", "120")
SCORED_ALONE = {
    "train_simple_cityscapes": (),
    "train_simple_gta5": ("--aug_method", "C-S"),
    "train_fda": ("--fda_beta", "0.05"),
}


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
    """The flags that the commands of each action have read; those of scoring by another name."""
    folder = tmp_path_factory.mktemp("work")
    make_gta5(folder / "GTA5")
    make_cityscapes(folder / "Cityscapes", val=2)
    for number in range(10):
        name = f"{number}.png"
        pair(folder / "photos" / "images" / name, folder / "photos" / "labels" / name, 3)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(benchmark_speed, "SECONDS", 0.0)
        for action, *words in COMMANDS:
            found.setdefault(action, set()).update(read_by(action, *ROOTS, *words))
        for action, words in SCORED_ALONE.items():
            found[f"{action} scoring"] = read_by(action, *ROOTS, *SCORES_ONLY, *words)
    return found


@pytest.mark.parametrize("action", dict.fromkeys(command[0] for command in COMMANDS))
def test_an_action_reads_the_flags_that_it_lists(reads, action):
    assert reads[action] == main.ACTIONS[action].read_flags(scoring=False) & FIELDS


@pytest.mark.parametrize("action", SCORED_ALONE)
def test_scoring_reads_the_flags_that_a_training_lists(reads, action):
    listed, found = main.ACTIONS[action], reads[f"{action} scoring"]
    assert found <= listed.read_flags(scoring=True)
    assert set(listed.reads_to_score) <= found


@pytest.mark.parametrize(
    ("action", "words", "unread"),
    [
        ("generate_pseudo_labels", ("--save_keyword", "k"), "save_keyword"),
        ("benchmark", ("--num_epochs", "7"), "num_epochs"),
        ("check_data", ("--aug_method", "C", "--on_bad_sample", "skip"), "aug_method, --on_bad_sa"),
        ("visualize", ("--source_resize", "720", "1300"), "source_resize"),
        ("train_simple_cityscapes", ("--source_resize", "720", "1300"), "source_resize"),
        ("train_simple_cityscapes", ("--gta5_val_fraction", "0.3"), "gta5_val_fraction"),
    ],
)
def test_a_flag_that_changes_nothing_is_named(capsys, action, words, unread):
    parse_settings(["--action", action, *words], main.ACTIONS)
    assert f"note: {action} makes no use of --{unread}" in capsys.readouterr().out
