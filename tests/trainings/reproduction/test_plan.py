"""The plan of a reproduction, without carrying it out."""

import shlex
import statistics

import pytest

import main
from tests.support.helpers import TINY, make_cityscapes, make_gta5
from trainings import catalog
from trainings.engine import timing
from trainings.reproduction import estimate
from trainings.reproduction.demo import demo_steps, recipe
from trainings.reproduction.plan import make_plan
from utils import processes
from utils.cli.command_line import parse_settings
from utils.disk.run_folder import RunFolder
from utils.errors import UsageError

TINY_STEP = ("--action", "train_fda", *TINY, "--batch_size", "4", "--device", "cpu")


def parsed(*words):
    return parse_settings(words, main.ACTIONS)


def plan(*words):
    return make_plan(catalog.STEPS, parsed("--action", "reproduce", *words))


def demo_plan(*words):
    settings = parsed("--action", "demo", *words)
    own = recipe(settings.explicit())
    return make_plan(demo_steps(catalog.STEPS), settings, recipe=own)


def test_the_steps_are_the_users_in_their_order_for_each_config_and_seed():
    steps = plan("--seeds", "0", "1", "2")
    numbers = ["1.A", "1.B", "1.C", "1.D", "2", *["3.A"] * 3, "3.B", *["3.C"] * 5, "4", "5", "6"]
    assert [step.number for step in steps] == numbers * 6
    trials = list(dict.fromkeys((step.seed, step.config) for step in steps))
    assert trials == [(seed, config) for seed in (0, 1, 2) for config in ("config1", "config2")]
    trained = [command for step in steps for command in step.commands if command.trains]
    assert len(trained) == 6 * (1 + 2 + 1 + 3 + 3 + 3)


@pytest.mark.parametrize(
    "steps",
    [
        plan("--num_epochs", "3", "--aug_method", "HF", "--pretrain_path", "a b.tar"),
        plan("--source", "synthia", "--target", "photos/my dashcam"),
        plan("--config", "config1", "--batch_size", "6", "--seed", "4", "--ohem"),
        demo_plan("--toy_root", "there", "--toy_size", "64", "128"),
        demo_plan("--configs", "config2", "--learning_rate", "0.1"),
        demo_plan("--num_steps", "40", "--validation_steps", "20", "--checkpoint_steps", "10"),
    ],
)
def test_a_step_is_what_its_command_means(steps):
    """Typed by hand, every command has the very settings of the plan."""
    for step in steps:
        for command in step.commands:
            python, main_py, *words = shlex.split(command.text())
            assert (python, main_py) == ("python", "main.py")
            assert parsed(*words) == command.settings, command.text()


def test_another_pair_is_trained_and_scored_by_the_general_actions():
    steps = plan("--configs", "config2", "--target", "acdc")
    commands = [command for step in steps for command in step.commands]
    actions = {command.settings.action for command in commands}
    assert {"train_source", "train_target", "val_transfer"} <= actions
    assert not [name for name in actions if "gta5" in name or "cityscapes" in name]
    assert {command.folder.parents[2].name for command in commands} == {"reproduce_gta5_to_acdc"}


def test_every_training_has_a_folder_of_its_own_whatever_is_asked():
    for words in ((), ("--aug_method", "HF"), ("--aug_method", "C-S-HF"), ("--optimizer", "sgd")):
        steps = plan("--seeds", "0", "1", *words)
        folders = [s.folder for s in steps if any(c.trains for c in s.commands)]
        assert len(set(folders)) == len(folders) == 13 * len({(s.config, s.seed) for s in steps})


def test_explicit_flags_go_on_to_all_steps_and_beat_the_preset():
    for step in plan("--batch_size", "6", "--num_epochs", "7"):
        for command in step.commands:
            settings = command.settings
            assert (settings.batch_size, settings.num_epochs) == (6, 7)
            assert settings.optimizer == {"config1": "adam", "config2": "sgd"}[step.config]
            assert settings.learning_rate == {"config1": 0.001, "config2": 0.01}[step.config]


def test_an_augmentation_is_that_of_the_augmented_step():
    for words, codes in (((), "C-S-HF"), (("--aug_method", "HF"), "HF")):
        augmented = {
            step.number: {command.settings.aug_method for command in step.commands}
            for step in plan("--config", "config1", *words)
        }
        assert augmented.pop("1.D") == {codes}
        assert set.union(*augmented.values()) == {""}


def test_an_optimiser_takes_the_place_of_the_presets():
    assert {step.config for step in plan("--optimizer", "rmsprop")} == {"rmsprop"}
    with pytest.raises(UsageError, match="config1 and config2 are the same"):
        plan("--optimizer", "sgd", "--configs", "config1", "config2")


def test_the_recipe_is_the_demos_only_with_its_own_optimiser():
    def trained(*words):
        settings = demo_plan(*words)[0].commands[0].settings
        return settings.optimizer, settings.learning_rate

    assert trained() == ("adamw", 8e-3)
    for words in (("--optimizer", "sgd"), ("--config", "config2"), ("--configs", "config2")):
        assert trained(*words) == ("sgd", 0.01)
    assert trained("--learning_rate", "0.1") == ("adamw", 0.1)


def test_a_length_in_steps_goes_on_to_every_training():
    words = ("--num_steps", "40", "--validation_steps", "20")
    for made in (plan(*words), demo_plan(*words)):
        trainings = [c.settings for step in made for c in step.commands if c.trains]
        assert {(s.num_steps, s.validation_steps) for s in trainings} == {(40, 20)}


@pytest.mark.slow
def test_the_time_of_a_training_follows_from_its_steps(tmp_path):
    """Half an epoch of ten steps was made in 40 seconds."""
    words = ("--config", "config1", *TINY, "--batch_size", "4", "--validation_step", "1000")

    def seconds(*length):
        made = plan(*words, "--save_model_path", str(tmp_path), *length)
        row = {"epoch": 0.5, "step": 5, "loss": 1.0, "train_seconds": 40.0}
        RunFolder(made[0].folder).write_history([row])
        sizes = estimate.DataSizes(40, 0, 40, 0, label_size=(64, 96))
        return estimate.Estimator(made, sizes).seconds(made[0])

    two_epochs, twenty_steps, forty_steps = (
        seconds(*length)
        for length in (("--num_epochs", "2"), ("--num_steps", "20"), ("--num_steps", "40"))
    )
    assert twenty_steps == pytest.approx(two_epochs, abs=20)  # what loading takes is measured
    assert forty_steps == pytest.approx(two_epochs + 160, abs=20)


def test_the_demo_keeps_to_one_beta_of_self_training():
    titles = [step.title for step in demo_plan()]
    added = ["DACS", "MIC", "Distillation of MIC"]
    assert titles[-5:] == ["Pseudo-labels", "SSL-FDA 0.05", *added]


def test_mic_alone_has_masks():
    commands = [c for s in plan() for c in s.commands if c.trains]
    ratios = {c.settings.action: c.settings.mask_ratio for c in commands}
    assert ratios.pop("train_mic") == 0.7
    assert set(ratios.values()) == {0}


def test_a_study_on_another_pair_finds_what_it_has_trained(tmp_path, monkeypatch):
    """A training on the target alone records the usual source, not the study's."""
    monkeypatch.chdir(tmp_path)
    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")
    words = ("--source", "cityscapes", "--target", "gta5", "--optimizer", "sgd", *TINY)
    words += ("--save_model_path", str(tmp_path / "runs"))
    (command,) = [
        c
        for step in plan(*words, "--num_epochs", "1")
        for c in step.commands
        if c.trains and c.settings.action == "train_target"
    ]
    assert not command.is_done()
    assert main.main(shlex.split(command.text())[2:]) == 0
    assert command.is_done()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [("--warmup_steps", "100"), ("--pretrain_path", "missing.tar")], ids=" ".join
)
def test_overwriting_removes_nothing_where_no_training_can_begin(tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    make_gta5(tmp_path / "GTA5")
    make_cityscapes(tmp_path / "Cityscapes")
    kept = tmp_path / "runs" / "reproduce" / "sgd" / "seed0" / "fda05_sgd_noaug" / "best.pth"
    kept.parent.mkdir(parents=True)
    kept.touch()
    words = ("--action", "reproduce", "--optimizer", "sgd", *TINY, "--num_epochs", "1")
    words = (*words, "--save_model_path", "runs", "--device", "cpu", "--overwrite", *flags)
    assert main.main(words) > 0
    assert kept.exists()


@pytest.mark.parametrize(
    "flag",
    [
        *("load_model_path", "fda_beta", "ssl_round", "validation_only"),
        *("soft", "mask_ratio"),  # soft labels have no thresholds, and MIC is DACS with masks
    ],
)
def test_flags_of_a_single_step_are_refused(flag):
    with pytest.raises(UsageError, match=f"argument --{flag}: reproduce decides it"):
        plan(f"--{flag}", "0")


def test_averaged_weights_label_where_a_step_makes_them():
    """A teacher is an average without --ema_decay."""
    labels = {
        command.made_from[0].parent.name: {path.name for path in command.made_from}
        for step in plan("--select", "ema", "--config", "config1")
        for command in step.commands
        if command.flags["action"] == "generate_pseudo_labels"
    }
    assert labels == {"fda01_adam_noaug": {"latest.pth"}, "mic_adam_noaug": {"ema.pth"}}
    steps = plan("--select", "ema", "--ema_decay", "0.9")
    decays = {s.title: s.commands[-1].settings.ema_decay for s in steps}
    assert (decays["ADA"], decays["DACS"], decays["MIC"]) == (0.9, 0, 0), "a teacher is an average"


@pytest.mark.slow
def test_what_a_step_takes_beside_its_images_is_estimated():
    """Loading, drawing and starting workers; with small images it was most of the time."""
    nothing = estimate.DataSizes(0, 0, 0, 0, label_size=(64, 96))
    words = ("--config", "config1", *TINY, "--num_epochs", "4")
    estimator = estimate.Estimator(plan(*words), nothing)
    seconds = [estimator.seconds(step) for step in plan(*words)]
    assert min(seconds) > 0

    def supervised(*more):
        return estimator.seconds(plan(*words, *more)[0])

    scored_once = supervised("--validation_step", "4")
    assert seconds[0] == pytest.approx(supervised("--validation_step", "1"))
    averaged = supervised("--validation_step", "4", "--ema_decay", "0.9")
    assert 0 < scored_once < averaged < seconds[0]
    (ensemble,) = [s for s, step in zip(seconds, plan(*words), strict=True) if step.number == "3.B"]
    assert ensemble > scored_once  # of three networks


@pytest.mark.slow
def test_a_teacher_is_scored_as_often_as_the_network():
    nothing = estimate.DataSizes(0, 0, 0, 0, label_size=(64, 96))
    words = ("--config", "config1", *TINY, "--num_epochs", "4", "--validation_step")
    estimator = estimate.Estimator(plan(*words, "1"), nothing)

    def of_validations(action):
        often, once = (
            next(s for s in plan(*words, n) if s.commands[0].settings.action == action)
            for n in ("1", "4")
        )
        return estimator.seconds(often) - estimator.seconds(once)

    assert of_validations("train_dacs") == pytest.approx(2 * of_validations("train_fda"))


@pytest.mark.parametrize(("count", "images"), [(1, 4), (2, 2)])
def test_a_step_is_estimated_by_each_process_on_its_share_of_the_batch(monkeypatch, count, images):
    steps = []
    monkeypatch.setattr(processes, "count", lambda: count)
    monkeypatch.setattr(timing, "train_step", lambda _, parts, __: steps.append(parts))
    estimate.step_seconds(catalog.FOURIER, parsed(*TINY_STEP, "--accumulate_steps", "3"))
    assert len(steps) == estimate.MOST_REPEATS
    shapes = {tuple(part.target.image.shape) for parts in steps for part in parts}
    assert shapes == {(images, 3, 64, 96)} and {len(parts) for parts in steps} == {3}


@pytest.mark.gpu
def test_an_estimate_on_a_gpu_is_of_the_steps_after_the_first(gpu_device):
    """The first one compiles kernels and chooses algorithms."""
    settings = parsed(*TINY_STEP, "--device", str(gpu_device))
    estimated = estimate.step_seconds(catalog.FOURIER, settings)
    step = timing.training_step(catalog.FOURIER, settings, gpu_device)
    later = timing.timed(step, gpu_device, at_least=5, at_most=5, budget=0, warm_up=3)
    assert estimated < 5 * statistics.median(later)


def test_a_batch_that_cannot_be_shared_is_refused_before_it_is_measured(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(UsageError, match="4 images cannot be shared equally by 3 processes"):
        estimate.step_seconds(catalog.FOURIER, parsed(*TINY_STEP))


@pytest.mark.parametrize("count", [1, 2])
def test_the_images_of_a_validation_are_shared_by_the_processes(monkeypatch, count):
    monkeypatch.setattr(processes, "count", lambda: count)
    monkeypatch.setattr(estimate, "timed", lambda *_, **__: [9.0, 8.0])
    assert estimate.image_seconds(parsed(*TINY_STEP), (64, 96)) == 8.0 / 4 / count


@pytest.mark.parametrize("flag", ["--gta5_root", "--cityscapes_root", "--target_root"])
def test_the_demo_refuses_data_of_the_user(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    assert main.main(["--action", "demo", "--dry_run", flag, "mine"]) == 2
    error = capsys.readouterr().err
    assert f"argument {flag}: demo draws and trains on Toy City" in error
    assert "--action reproduce takes your data" in error


def test_distillation_learns_from_the_soft_labels_of_the_mic_network_of_its_seed():
    for seed in (0, 1):
        (step,) = [s for s in plan("--config", "config1", "--seed", str(seed)) if s.number == "6"]
        label, train, *scores = step.commands
        here = f"reproduce/config1/seed{seed}"
        assert label.settings.load_model_path.as_posix().endswith(
            f"{here}/mic_adam_noaug/latest.pth"
        )
        assert label.passes == (0, 1), "soft labels need no thresholds"
        assert label.settings.soft and label.made_from == (label.settings.load_model_path,)
        assert label.settings.pseudo_label_path == train.settings.pseudo_label_path == label.folder
        assert train.trains is catalog.DISTILLATION and train.folder.name == "distill_adam_noaug"
        assert len(scores) == 3


def test_details_are_printed_for_one_step_at_a_time(capsys):
    with pytest.raises(SystemExit):
        parsed("--action", "demo", "--jobs", "2", "--verbose")
    assert "argument --verbose: it prints one step at a time" in capsys.readouterr().err


def test_processes_of_torchrun_work_on_one_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert main.main(["--action", "demo", "--dry_run", "--jobs", "2"]) == 2
    assert "argument --jobs: under torchrun all processes work on one step" in (
        capsys.readouterr().err
    )
