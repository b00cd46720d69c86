import json
from dataclasses import replace

import pytest
import torch

import main
from main import FlatSettings as Settings
from model.model_stages import BiSeNet
from tests.support.helpers import make_cityscapes
from trainings import catalog
from trainings.scoring.mbt import ensemble_folder, find_members
from utils.disk.run_folder import BEST, SETTINGS, RunFolder
from utils.errors import UsageError, UserError

PATHS = [f"runs/fda{beta}/{BEST}" for beta in (0.01, 0.05, 0.09)]
SGD = Settings(optimizer="sgd")


def make_run(root, action, name, **changes):
    run = RunFolder(root / name)
    run.write_json(SETTINGS, replace(SGD, action=action, **changes).to_json())
    run.write_text(BEST, "")


def members(root, ssl_round=0, **changes):
    settings = replace(SGD, save_model_path=root, **changes)
    return find_members(catalog.FOURIER, catalog.SELF_TRAINING, ssl_round, settings)


def test_the_three_betas_whatever_they_were_augmented_with(tmp_path, capsys):
    for beta, codes in ((0.01, "C"), (0.05, "C-S-HF"), (0.09, "")):
        make_run(tmp_path, "train_fda", f"run{beta}", fda_beta=beta, aug_method=codes)
    found = members(tmp_path, aug_method="RP", save_keyword="the_ensembles_name")
    assert found == [tmp_path / f"run{beta}" / BEST for beta in (0.01, 0.05, 0.09)]
    output = capsys.readouterr().out
    assert "run0.05/best.pth: trained with augmentation C-S-HF" in output
    assert "warning: the members were not trained with the same augmentation" in output


def test_a_set_of_one_augmentation_beats_a_closer_single_run(tmp_path, capsys):
    for beta in (0.01, 0.05, 0.09):
        make_run(tmp_path, "train_fda", f"flipped{beta}", fda_beta=beta, aug_method="HF")
    make_run(tmp_path, "train_fda", "fda01_sgd_noaug", fda_beta=0.01)
    assert [path.parent.name for path in members(tmp_path)] == [
        f"flipped{beta}" for beta in (0.01, 0.05, 0.09)
    ]
    assert "warning" not in capsys.readouterr().out
    for beta in (0.05, 0.09):
        make_run(tmp_path, "train_fda", f"plain{beta}", fda_beta=beta)
    assert [path.parent.name for path in members(tmp_path)] == [
        "fda01_sgd_noaug",
        "plain0.05",
        "plain0.09",
    ]
    with pytest.raises(UserError, match=r"several augmentations \(HF, nonorm\).*--aug_method"):
        members(tmp_path, aug_method="RP")


def test_members_of_another_augmentation_than_an_explicit_one_are_warned_of(tmp_path, capsys):
    for beta in (0.01, 0.05, 0.09):
        make_run(tmp_path, "train_fda", f"fda{beta}", fda_beta=beta)
    asked = {"aug_method": "C-S-HF"}
    assert members(tmp_path, **asked) and "warning" not in capsys.readouterr().out
    assert members(tmp_path, **asked, given=frozenset(asked))
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        "warning: no runs of train_fda at every beta have augmentation C-S-HF; those with none are "
        "taken"
    )
    assert len(rest) == 3 and not any("warning" in line for line in rest)


def test_an_ensemble_is_named_by_its_members_augmentation(tmp_path):
    make_run(tmp_path, "train_fda", "mine", fda_beta=0.05, aug_method="HF")
    settings = replace(SGD, save_model_path=tmp_path, ssl_round=0)
    member = tmp_path / "mine" / BEST
    assert ensemble_folder([member], settings) == tmp_path / "mbt_sgd_aug"
    assert ensemble_folder([tmp_path / "elsewhere.pth"], settings) == tmp_path / "mbt_sgd_noaug"


def test_a_later_round_is_self_trainings(tmp_path):
    for beta in (0.01, 0.05, 0.09):
        make_run(tmp_path, "train_fda", f"fda{beta}", fda_beta=beta)
        for number in (1, 2):
            name = f"ssl{number}_{beta}"
            make_run(tmp_path, "train_ssl_fda", name, fda_beta=beta, ssl_round=number)
    assert members(tmp_path, 2)[1] == tmp_path / "ssl2_0.05" / BEST
    assert members(tmp_path, 1)[2] == tmp_path / "ssl1_0.09" / BEST
    assert members(tmp_path)[0] == tmp_path / "fda0.01" / BEST


def test_every_missing_member_is_named_with_its_place_and_command(tmp_path):
    make_run(tmp_path, "train_fda", "fda05", fda_beta=0.05)
    with pytest.raises(UserError) as caught:
        members(tmp_path)
    sentence = str(caught.value)
    for beta in (0.01, 0.09):
        assert f"--action train_fda --fda_beta {beta} --optimizer sgd" in sentence
    assert str(tmp_path) in sentence and "--fda_beta 0.05" not in sentence
    assert "--mbt_checkpoints" in sentence


def test_named_checkpoints_need_no_runs(tmp_path):
    paths = tuple(tmp_path / name for name in ("a.pth", "b.pth"))
    for path in paths:
        path.write_bytes(b"")
    assert members(tmp_path, mbt_checkpoints=paths) == list(paths)
    with pytest.raises(UserError, match=r"--mbt_checkpoints .*c\.pth: there is nothing"):
        members(tmp_path, mbt_checkpoints=(tmp_path / "c.pth",))


def test_an_ensemble_does_not_write_into_a_trainings_folder(tmp_path):
    make_run(tmp_path, "train_fda", "mine", fda_beta=0.05)
    with pytest.raises(UsageError, match=r"--save_keyword: .*mine is the folder of a training"):
        ensemble_folder(
            [tmp_path / "mine" / BEST], replace(SGD, save_model_path=tmp_path, save_keyword="mine")
        )


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A working directory with a data set and the three networks of FDA, of 64x96; and a command's
    words that lack a size."""
    monkeypatch.chdir(tmp_path)
    make_cityscapes(tmp_path / "Cityscapes")
    for seed, beta in enumerate((0.01, 0.05, 0.09)):
        name, own = f"fda{beta}", {"base_width": 8, "image_size": (64, 96)}
        make_run(tmp_path / "runs", "train_fda", name, fda_beta=beta, **own)
        torch.manual_seed(seed)
        torch.save(BiSeNet(base=8).state_dict(), tmp_path / "runs" / name / BEST)
    words = ("--base_width", "8", "--num_workers", "0", "--precision", "fp32", "--device", "cpu")
    return (*words, "--save_model_path", "runs")


def test_an_ensemble_sees_the_size_of_its_members_unless_the_command_gives_another(
    trained, tmp_path, capsys
):
    folder = tmp_path / "runs" / "mbt_sgd_noaug"
    for words, name, size in (
        ((), "validation_cityscapes", [64, 96]),
        (("--image_size", "96", "128"), "validation_cityscapes_96x128", [96, 128]),
    ):
        assert main.main(["--action", "val_mbt", *trained, *words]) == 0
        record = json.loads((folder / f"{name}.json").read_text())
        assert record["validation"]["image_size"] == size
        out = capsys.readouterr().out
        assert f"scored at {size[0]}x{size[1]}" in out
        for one, title in zip([*record["members"], record], (*PATHS, "ensemble"), strict=True):
            row = f"{100 * one['pixel_accuracy']:.2f} | {100 * one['mIoU']:6.2f} |"
            (line,) = [line for line in out.splitlines() if line.startswith(f"| {title}")]
            assert line.endswith(row)
    assert len(list(folder.glob("*.json"))) == 2


def test_members_that_are_named_have_the_network_of_their_runs(trained, tmp_path):
    _, _, *plain = trained  # without --base_width
    named = ("--mbt_checkpoints", *(f"runs/fda{beta}/{BEST}" for beta in (0.01, 0.05, 0.09)))
    assert main.main(["--action", "val_mbt", *plain, *named]) == 0
    (file,) = (tmp_path / "runs" / "mbt_sgd_noaug").glob("*.json")
    assert json.loads(file.read_text())["settings"]["base_width"] == 8


def test_pseudo_labels_are_made_at_the_size_of_the_members(trained, tmp_path, capsys):
    assert main.main(["--action", "generate_pseudo_labels", *trained]) == 0
    out = capsys.readouterr().out
    assert "labelled at 64x96 with the batch-norm" in out and "scored" not in out
    summary = json.loads((tmp_path / "runs/pseudo_labels_sgd/summary.json").read_text())
    assert summary["image_size"] == [64, 96]


def test_the_labels_of_one_teacher_have_a_folder_of_their_own(trained, tmp_path, capsys):
    """They were written where self-training looks for those of the ensemble."""
    one = (
        "--action",
        "generate_pseudo_labels",
        *trained,
        "--load_model_path",
        f"runs/fda0.01/{BEST}",
    )
    assert main.main([*one, "--ssl_round", "2"]) == 2
    assert "argument --ssl_round: " in capsys.readouterr().err
    assert main.main(one) == 0
    assert (tmp_path / "runs/labels_fda0.01/summary.json").exists()
    assert not (tmp_path / "runs/pseudo_labels_sgd").exists()
