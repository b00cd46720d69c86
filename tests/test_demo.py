import main
from trainings import demo
from utils.command_line import parse_settings


def parsed(*words):
    return parse_settings(("--action", "demo", *words), main.ACTIONS)


METHODS = demo.Methods(
    source_only=main.SIMPLE_GTA5,
    ada=main.ADVERSARIAL,
    fda=main.FOURIER,
    ssl_fda=main.SELF_TRAINING,
    upper_bound=main.SIMPLE_CITYSCAPES,
)


def entries(*words):
    before, self_training, after = demo._plan(METHODS, parsed(*words))
    return [*before, *self_training, *after]


def test_every_training_has_a_folder_of_its_own_whatever_is_asked():
    for words in ((), ("--aug_method", "HF"), ("--aug_method", "C-S-HF"), ("--optimizer", "sgd")):
        folders = [entry.folder for entry in entries(*words)]
        assert len(set(folders)) == len(folders) == 8


def test_an_augmentation_is_that_of_the_augmented_row():
    rows = entries("--aug_method", "HF")
    assert [row.title for row in rows[:2]] == ["Source-only", "Source-only, HF"]
    assert [row.settings.aug_method for row in rows] == ["", "HF", *[""] * 6]


def test_the_recipe_is_the_demos_only_with_its_own_optimiser():
    assert (parsed().optimizer, parsed().learning_rate) == ("adamw", 2e-3)
    for words in (("--optimizer", "sgd"), ("--config", "config2")):
        assert (parsed(*words).optimizer, parsed(*words).learning_rate) == ("sgd", 0.01)
    assert parsed("--learning_rate", "0.1").learning_rate == 0.1


def test_toy_city_is_where_it_is_drawn():
    settings = parsed("--toy_root", "there")
    assert str(settings.gta5_root) == "there/GTA5"
    assert parsed("--toy_size", "64", "128").image_size == (64, 128)
