"""`reproduce`, `demo` and `report` by the real command, in process, on a tiny Toy City."""

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ImageDraw

import main
from datasets.labels import CLASS_NAMES
from tests.support.helpers import TINY, chart_texts
from tests.support.reports import ADAPTED, KINDS_TABLE, LINES, markdown_rows
from trainings import catalog
from trainings.reproduction.carry_out import one_by_one, side_by_side
from trainings.reproduction.estimate import Estimator, data_sizes, duration, epochs_made, toy_sizes
from trainings.reproduction.kinds import KINDS
from trainings.reproduction.plan import PlannedStep, make_plan
from trainings.scoring import record
from trainings.scoring.record import find_scores
from utils import processes
from utils.cli.command_line import parse_settings
from utils.disk.run_folder import RunFolder

TOY = ("--toy_train", "4", "--toy_val", "3", "--toy_size", "64", "96")
WHOLE = (
    *("--save_model_path", "runs", "--cache_dir", "cache", "--num_epochs", "1", *TINY),
    *("--source_resize", "64", "96", "--gta5_root", "toy_city/GTA5"),
    *("--cityscapes_root", "toy_city/Cityscapes"),
)
CONFIGS = ("config1", "config2")
OTHER = ("--optimizer", "rmsprop", "--aug_method", "C-S-HF")
"""A training by hand that no table has a line for."""

STEPS = 17
"""Steps of one config and seed."""

REAL, SYNTHETIC = "Toy City, real look", "Toy City, synthetic look"

WRITTEN = (
    *("results.html", "results.md", "results.csv", "results.tex"),
    *("differences.csv", "class_iou.csv"),
    *(f"{name}_{c}.png" for name in ("class_iou", "overview", "predictions") for c in CONFIGS),
    *(f"class_iou_{c}.svg" for c in CONFIGS),
)


def reproduce(*words, action="reproduce"):
    return main.main(["--action", action, *WHOLE, *words])


def report(*words, folder="runs"):
    return main.main(["--action", "report", "--save_model_path", str(folder), *words])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def last_scores(folder, identity):
    """Return the unrounded scores of a row's last epoch, from the file that results.csv names."""
    for row in table(folder / "results.csv"):
        kind = row["Epoch"], row["Batch-norm statistics"]
        if (*list(row.values())[:4], kind) == (*identity, KINDS[0]):
            record = json.loads((folder / row["Scores"]).read_text())
            return record.get("last", record)
    raise LookupError(identity)


def scores_in(path):
    return json.loads(path.read_text())


def contents(folder):
    """Every file below a folder with what it holds and when it was written."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def texts_of(name, folder):
    """Texts of a chart of config1."""
    return chart_texts((folder / f"{name}_config1.svg").read_text())


def train_a_second_epoch(folder):
    """Let the histories of all trainings go on as they ended."""
    for path in folder.glob("config1/seed*/*/history.csv"):
        head, *_, last = path.read_text().splitlines()
        path.write_text("\n".join([head, last, f"2,{last.partition(',')[2]}", ""]))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which `reproduce` was interrupted before its first pseudo-labels, and then ran to
    its end."""
    folder = tmp_path_factory.mktemp("reproduce")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(["--action", "make_toy_data", *TOY]) == 0
        assert not (folder / "runs").exists()
        assert reproduce("--dry_run") == 0
        assert not (folder / "runs").exists() and not (folder / "cache").exists()
        with pytest.MonkeyPatch.context() as broken:
            name = "generate_pseudo_labels"
            broken.setitem(main.ACTIONS, name, main.ACTIONS[name]._replace(run=interrupt))
            assert reproduce() == 130
        shutil.copytree(folder / "runs", folder / "interrupted")
        assert reproduce() == 0
    return folder


@pytest.fixture
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def written(monkeypatch):
    """The texts that the commands write on pictures."""
    texts = []
    write = ImageDraw.ImageDraw.text

    def text(draw, place, words, *style):
        texts.append(words)
        write(draw, place, words, *style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def test_it_goes_on_where_it_was_interrupted(here):
    before = contents(here / "interrupted" / "reproduce")
    assert any(path.name == "latest.pth" for path in before)
    for path, (content, _) in before.items():
        after = here / "runs" / path.relative_to(here / "interrupted")
        if path.name == "log.txt":
            assert after.read_bytes().startswith(content)
            continue
        assert after.read_bytes() == content, after


def test_every_method_of_every_config_has_its_numbers_traceable_to_their_files(here):
    folder = here / "runs" / "reproduce"
    rows = table(folder / "results.csv")
    kinds = {}
    for row in rows:
        kinds.setdefault((row["Step"], row["Method"], row["beta"], row["Config"]), set()).add(
            (row["Epoch"], row["Batch-norm statistics"])
        )
        record = json.loads((folder / row["Scores"]).read_text())
        scores = record[row["Epoch"]] if row["Step"] == "1.B" else record
        if row["Epoch"] == "ema":
            adapted = row["Batch-norm statistics"] == "target"
            scores = record["last_average" + "_target_statistics" * adapted]
        assert float(row["mIoU %"]) == pytest.approx(100 * scores["mIoU"], abs=1e-3)
        assert float(row["Accuracy %"]) == pytest.approx(100 * scores["pixel_accuracy"], abs=1e-3)
        assert (folder / row["Scores"]).parent == folder / row["Run folder"]
        assert row["Run folder"].startswith(f"{row['Config']}/seed0/")
        if "MBT" not in row["Method"]:
            settings = json.loads((folder / row["Run folder"] / "settings.json").read_text())
            assert (settings["config"], settings["seed"]) == (row["Config"], 0)
            seconds = json.loads((folder / row["Run folder"] / "scores.json").read_text())
            expected = f"{seconds['mean_epoch_seconds']:.3f}"
            assert row["Train time per epoch (s)"] == expected and float(expected) > 0
    own = [line for line in LINES if line[1] != ADAPTED]
    assert sorted(kinds) == sorted((*line, config) for line in own for config in CONFIGS)
    for (step, *_), found in kinds.items():
        assert found >= set(KINDS[:2] if step == "1.B" else KINDS[:3])
    assert {row["beta"] for row in rows if row["Method"] == "SSL-FDA"} == {"0.01", "0.05", "0.09"}


def test_what_is_scored_afterwards_is_what_the_training_reported(here):
    run = here / "runs" / "reproduce" / "config2" / "seed0" / "fda05_sgd_noaug"
    own = json.loads((run / "scores.json").read_text())
    for name, key in (("latest", "last"), ("latest_target_statistics", "last_target_statistics")):
        scored = json.loads((run / f"validation_cityscapes_{run.name}_{name}.json").read_text())
        assert scored["mIoU"] == pytest.approx(own[key]["mIoU"], abs=1e-6)


def test_source_only_is_scored_on_the_target_while_it_trains(here):
    run = here / "runs" / "reproduce" / "config1" / "seed0" / "simple_gta5_adam_noaug"
    (row,) = table(run / "history.csv")
    scored = json.loads((run / f"validation_cityscapes_{run.name}_latest.json").read_text())
    assert float(row["target/mIoU"]) == pytest.approx(scored["mIoU"], abs=1e-6)
    other = table(run.parent / "ada_adam_noaug" / "history.csv")
    assert "target/mIoU" not in other[0]


def test_the_counts_of_the_images_add_up_to_the_scores(here):
    run = here / "runs" / "reproduce" / "config1" / "seed0" / "ada_adam_noaug"
    scores = json.loads((run / "validation_cityscapes.json").read_text())
    with np.load(run / "validation_cityscapes.npz") as arrays:
        names, counts = arrays["names"], arrays["counts"]
    assert counts.shape == (3, 19, 19) and counts.dtype == np.int32
    assert list(names) == sorted(set(names)) and names[0].startswith("toyhaven_")
    assert np.trace(counts.sum(0)) / counts.sum() == pytest.approx(scores["pixel_accuracy"])


def test_the_report_has_every_table_and_picture(here):
    folder = here / "runs" / "reproduce"
    text = (folder / "results.md").read_text()
    recipe = "^config1: bisenet on stdc1 of width 8, .*, 1 epoch, discriminator .*, seed 0, "
    assert re.search(recipe, text, re.MULTILINE)
    scores = markdown_rows(folder / "results.md", KINDS_TABLE)
    assert len(scores) == 2 * len(LINES)
    assert "±" not in " ".join(cell for row in scores.values() for cell in row)
    differences = markdown_rows(folder / "results.md", "## Differences to source-only")
    assert len(differences) == len(scores) - 4
    for (_, method, *_), cells in differences.items():
        for _ in range(2):  # with target statistics it would be compared with itself
            assert (cells.pop() == "–") is (method == ADAPTED)
        assert all(re.fullmatch(r"\*{0,2}[+-]\d+\.\d\*{0,2} \[.+, .+\]", cell) for cell in cells)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (folder / link).exists()
    assert "(class_iou_config1.png)" in text and "(class_iou_config1.svg)" in text
    for name in WRITTEN:
        assert (folder / name).stat().st_size > 0
    classes = table(folder / "class_iou.csv")
    assert list(classes[0])[7:-1] == list(CLASS_NAMES)
    kinds = [(row["Epoch"], row["Batch-norm statistics"]) for row in classes]
    assert kinds.count(("last", "training")) == len(scores) - 2
    assert kinds.count(("last", "target")) == len(scores) - 4  # not of what is scored on GTA5
    shown = markdown_rows(folder / "results.md", "## IoU per class")
    last = [row for row in classes if (row["Epoch"], row["Batch-norm statistics"]) == KINDS[0]]
    for row in last:
        identity = tuple(list(row.values())[:4])
        iou = last_scores(folder, identity)
        exact = [iou["mIoU"], *(iou["class_IoU"][name] for name in CLASS_NAMES)]
        values = [row["mIoU %"], *(row[name] for name in CLASS_NAMES)]
        assert values == ["" if share is None else f"{100 * share:.3f}" for share in exact]
        cells = ["–" if share is None else f"{100 * share:.1f}" for share in exact]
        assert shown[identity] == cells


def test_source_only_with_target_statistics_is_a_row_and_a_bar(here, tmp_path):
    folder = here / "runs" / "reproduce"
    for heading in (KINDS_TABLE, "## IoU per class"):
        rows = markdown_rows(folder / "results.md", heading)
        adapted = rows["1.C", ADAPTED, "config1", ""]
        run = folder / "config1" / "seed0" / "simple_gta5_adam_noaug"
        name = f"validation_cityscapes_{run.name}_latest_target_statistics.json"
        iou = json.loads((run / name).read_text())["mIoU"]
        assert f"{100 * iou:.1f}" == adapted[1 if heading == KINDS_TABLE else 0]
    (row,) = [
        row
        for row in table(folder / "differences.csv")
        if (row["Method"], row["Config"], row["Epoch"]) == (ADAPTED, "config1", "last")
    ]
    assert row["Batch-norm statistics"] == "target"
    trained = json.loads((run / f"validation_cityscapes_{run.name}_latest.json").read_text())
    assert float(row["Difference"]) == pytest.approx(100 * (iou - trained["mIoU"]), abs=1e-3)
    shutil.copytree(run, tmp_path / "reproduce" / "config1" / "seed0" / run.name)
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 0
    assert {"Source-only", ADAPTED} <= set(texts_of("class_iou", tmp_path / "reproduce"))


def test_every_table_names_its_data(here):
    folder = here / "runs" / "reproduce"
    text = (folder / "results.md").read_text()
    assert text.startswith(f"# reproduce: {SYNTHETIC} → real look, 3 validation images\n")
    for heading in ("Differences to source-only", "IoU per class"):
        assert f"\n## {heading}: {REAL}, 3 validation images\n" in text
    assert f" On the source: {SYNTHETIC}, 1 validation image." in text
    on_target, on_source = f"{REAL}, 3 validation images", f"{SYNTHETIC}, 1 validation image"
    for name in ("results", "differences", "class_iou"):
        for row in table(folder / f"{name}.csv"):
            assert row["Data"] == (on_source if row["Step"] == "1.B" else on_target)


def test_every_chart_names_its_data(copied):
    train_a_second_epoch(copied.parent)
    assert report("--cityscapes_root", "nowhere", folder=copied.parent.parent) == 0
    bars, curves = (" ".join(texts_of(n, copied.parent)) for n in ("class_iou", "curves"))
    assert f"config1: mIoU and IoU per class on {REAL}, 3 validation images, last epoch" in bars
    on_target, on_source, loss = curves.split("config1: ")[1:]
    assert loss.startswith(
        f"training loss on {REAL}, and {SYNTHETIC} (terms differ between methods: do not compare "
        "heights) Supervised on the target Source-only Source-only, C-S-HF ADA FDA 0.01 "
    )
    assert on_target.startswith(
        f"mIoU on {REAL}, 3 validation images Supervised on the target Source-only Source-only, C-S"
    )
    images = f"{SYNTHETIC}, 1 validation image"
    assert f"mIoU on {images} Source-only Source-only, C-S-HF" in on_source


def test_curves_of_one_epoch_are_not_drawn(here):
    folder = here / "runs" / "reproduce"
    assert not list(folder.glob("curves*")) and "curves" not in (folder / "results.md").read_text()


def test_records_name_their_data(here):
    run = here / "runs" / "reproduce" / "config1" / "seed0" / "ada_adam_noaug"
    own = json.loads((run / "scores.json").read_text())
    assert own["training"]["source_data_set"] == SYNTHETIC
    assert own["training"]["target_data_set"] == REAL
    for name in ("scores.json", "validation_cityscapes.json"):
        validation = json.loads((run / name).read_text())["validation"]
        assert (validation["data_set"], validation["images"]) == (REAL, 3)
    labels = json.loads((run.parent / "pseudo_labels_adam" / "summary.json").read_text())
    assert (labels["data_set"], labels["images"]) == (REAL, 4)


def test_again_everything_is_skipped(here, capsys):
    runs = here / "runs" / "reproduce"
    before = {path: what for path, what in contents(runs).items() if path.parent != runs}
    assert reproduce() == 0
    output = capsys.readouterr()
    assert f"{2 * STEPS} steps in runs/reproduce, all finished." in output.out
    assert "epoch 1/1" not in output.err
    assert {p: what for p, what in contents(runs).items() if p.parent != runs} == before


def test_a_dry_run_writes_nothing(here, capsys):
    before = contents(here)
    assert reproduce("--dry_run", "--seeds", "0", "1") == 0
    assert contents(here) == before
    output = capsys.readouterr().out
    assert f"{4 * STEPS} steps in runs/reproduce, {2 * STEPS} finished; about " in output
    assert output.count("| finished") == output.count("| about") == 2 * STEPS
    assert "FDA 0.05" in output and "config2/seed1/fda05_sgd_noaug" in output


def test_other_settings_in_the_same_folder_are_refused_before_anything_runs(here, capsys):
    before = contents(here)
    assert reproduce("--learning_rate", "0.5") == 2
    error = capsys.readouterr().err
    assert "--learning_rate was" in error and "choose another --save_keyword" in error
    assert contents(here) == before


def test_the_report_is_rebuilt_from_the_run_folders_alone(here, tmp_path, capsys, written):
    runs = here / "runs" / "reproduce"
    copy = tmp_path / "elsewhere" / "reproduce"
    shutil.copytree(runs, copy)
    for name in WRITTEN:
        (copy / name).unlink()
    assert report(folder=copy.parent) == 0
    for name in WRITTEN:
        one, two = ((folder / name).read_bytes() for folder in (copy, runs))
        if name == "results.md":  # the commands name their folders
            one, two = (re.sub(rb"To repeat: .*", b"", text) for text in (one, two))
        assert one == two, name
    title = "config2, seed 0, last epochs: the same images, side by side"
    assert f"{REAL}, 3 validation images: {title}" in written
    capsys.readouterr()
    (copy / "predictions_config1.png").unlink()
    assert report("--cityscapes_root", "nowhere", folder=copy.parent) == 0
    assert "predictions of config1 are not drawn, everything else is: --cityscapes_root" in (
        capsys.readouterr().out
    )
    assert (copy / "results.csv").read_bytes() == (runs / "results.csv").read_bytes()
    assert not (copy / "predictions_config1.png").exists()


def test_what_is_missing_is_a_dash(here, capsys):
    assert report("--cityscapes_root", "nowhere", folder="interrupted") == 0
    path = here / "interrupted" / "reproduce" / "results.md"
    rows = markdown_rows(path, KINDS_TABLE)
    assert set(rows["3.C", "SSL-FDA", "config1", "0.05"]) == {"–"}
    assert "–" not in rows["3.B", "MBT", "config1", ""]
    assert "config2" not in {config for _, _, config, _ in rows}


def test_nothing_to_report_is_one_sentence(tmp_path, capsys):
    assert report(folder=tmp_path) == 1
    assert f"error: no run in {tmp_path}/reproduce/" in capsys.readouterr().err


def run_folder(runs, config, *words):
    """A training of a config that has not finished an epoch."""
    settings = parse_settings(words, main.ACTIONS)
    run = RunFolder(runs / "reproduce" / config / "seed0" / settings.action)
    run.write_json("settings.json", settings.to_json())


def test_a_config_without_a_line_of_the_tables_is_left_out(tmp_path, capsys):
    run_folder(tmp_path, "x", "--action", "train_ada", *OTHER)
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 1
    assert f"error: no run in {tmp_path}/reproduce is of a step of" in capsys.readouterr().err
    run_folder(tmp_path, "config1", "--action", "train_fda", "--config", "config1")
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 0
    rows = markdown_rows(tmp_path / "reproduce" / "results.md", KINDS_TABLE)
    assert {config for _, _, config, _ in rows} == {"config1"}
    assert "## Pictures" not in (tmp_path / "reproduce" / "results.md").read_text()


def test_a_config_of_an_ensemble_alone_has_no_curves(here, tmp_path):
    seed = "reproduce/config1/seed0"
    shutil.copytree(here / "runs" / seed / "mbt_adam_noaug", tmp_path / seed / "mbt_adam_noaug")
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 0
    pictures = [path.name for path in (tmp_path / "reproduce").glob("*.png")]
    assert pictures == ["class_iou_config1.png"]


def test_damaged_counts_are_one_sentence(here, tmp_path, capsys):
    copy = tmp_path / "reproduce" / "config1"
    shutil.copytree(here / "runs" / "reproduce" / "config1", copy)
    path = copy / "seed0" / "ada_adam_noaug" / "validation_cityscapes.npz"
    for damaged in (path.read_bytes()[:-50], b"", b"no arrays"):
        path.write_bytes(damaged)
        assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 1
        error = capsys.readouterr().err
        assert f"error: {path} cannot be read as counts of images" in error
        assert "remove it and validation_cityscapes.json beside it, and give the same" in error


def test_a_score_without_its_picture_is_not_done(here, monkeypatch, tmp_path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    run = here / "runs" / "reproduce" / "config1" / "seed0" / "ada_adam_noaug"
    monkeypatch.setattr(record, "panel", interrupt)
    words = ("--action", "train_ada", "--validation_only", "True", "--save_keyword", "scored")
    best = ("--load_model_path", str(run / "best.pth"), *WHOLE, "--save_model_path", str(tmp_path))
    assert main.main([*words, *best]) == 130
    assert [path.suffix for path in (tmp_path / "scored").iterdir()] == [".npz"]


def test_seeds_are_summed_up_by_mean_and_deviation(here, tmp_path):
    copy = tmp_path / "reproduce"
    shutil.copytree(here / "runs" / "reproduce" / "config1", copy / "config1")
    shutil.copytree(copy / "config1" / "seed0", copy / "config1" / "seed1")
    for path in (copy / "config1" / "seed1").glob("*/*.json"):
        record = json.loads(path.read_text())
        settings = record if path.name == "settings.json" else record.get("settings", {})
        settings["seed"] = 1
        path.write_text(json.dumps(record))
    name = "ada_adam_noaug"
    for seed, accuracy in ((0, 0.25), (1, 0.35)):
        path = copy / "config1" / f"seed{seed}" / name / f"validation_cityscapes_{name}_latest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pixel_accuracy": accuracy}))
    train_a_second_epoch(copy)
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 0
    assert " ".join(texts_of("curves", copy)).count("mean and range over 2 seeds") == 3
    rows = markdown_rows(copy / "results.md", KINDS_TABLE)
    assert rows["2", "ADA", "config1", ""][0] == "30.0 ± 7.1"
    assert ", seeds 0, 1, " in (copy / "results.md").read_text()
    seeds = [r["Seed"] for r in table(copy / "results.csv") if r["Method"] == "ADA"]
    assert seeds == ["0"] * 3 + ["1"] * 3
    one = markdown_rows(here / "runs/reproduce/results.md", "## Differences")
    two = markdown_rows(copy / "results.md", "## Differences")
    assert two["2", "ADA", "config1", ""] == one["2", "ADA", "config1", ""]  # twice the same


def test_a_run_of_another_name_takes_no_place_in_the_tables(here, tmp_path, capsys):
    seed = tmp_path / "reproduce" / "config1" / "seed0"
    shutil.copytree(here / "runs/reproduce/config1/seed0/ada_adam_noaug", seed / "ada_adam_noaug")
    for name in ("a_weight_of_0.1", "z_weight_of_0.1"):
        shutil.copytree(seed / "ada_adam_noaug", seed / name)
        settings = json.loads((seed / name / "settings.json").read_text())
        (seed / name / "settings.json").write_text(json.dumps({**settings, "save_keyword": name}))
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 0
    said = capsys.readouterr().out
    usual = seed / "ada_adam_noaug"
    for name in ("a_weight_of_0.1", "z_weight_of_0.1"):
        assert f"{seed / name} is not in the tables: {usual} has its place" in said
    folders = {r["Run folder"] for r in table(tmp_path / "reproduce" / "results.csv")}
    assert folders == {"config1/seed0/ada_adam_noaug"}


def test_scores_without_counts_have_no_difference(here, tmp_path):
    copy = tmp_path / "reproduce" / "config1"
    shutil.copytree(here / "runs" / "reproduce" / "config1", copy)
    (copy / "seed0" / "ada_adam_noaug" / "validation_cityscapes.npz").unlink()
    assert report("--cityscapes_root", "nowhere", folder=tmp_path) == 0
    rows = markdown_rows(tmp_path / "reproduce" / "results.md", "## Differences")
    last, best, adapted, _ = rows["2", "ADA", "config1", ""]
    assert "[" not in best and "[" in last and "[" in adapted


@pytest.fixture
def copied(here, tmp_path):
    """A copy of config1's runs, to be changed."""
    copy = tmp_path / "reproduce" / "config1"
    shutil.copytree(here / "runs" / "reproduce" / "config1", copy)
    return copy


def score_source_only_by_hand(copied, *words):
    """Score the best epoch of source-only into its own folder, as the plan does."""
    flags = ("--config", "config1", *WHOLE, "--save_model_path", str(copied / "seed0"))
    assert main.main(["--action", "val_gta5_transfer", *flags, *words]) == 0


def warnings_of_the_report(copied, capsys):
    """Return the warnings under the table of scores by file; check that they are printed, too."""
    capsys.readouterr()
    assert report("--cityscapes_root", "nowhere", folder=copied.parent.parent) == 0
    table, *_ = (copied.parent / "results.md").read_text().split("\n## ")
    found = re.findall(r"^- Warning: (\S+) (was .*\.)$", table, re.MULTILINE)
    assert table.count("Warning") == len(found)
    said = capsys.readouterr().out
    assert all(f"- Warning: {file} {text}\n" in said for file, text in found)
    return dict(found)


def test_comparable_scores_need_no_warning(copied, capsys):
    (copied / "seed0" / "ada_adam_noaug" / "validation_cityscapes.npz").unlink()
    assert warnings_of_the_report(copied, capsys) == {}


def test_means_over_different_classes_are_named(copied, capsys):
    for path in copied.glob("seed0/*/validation_*.json"):
        record = json.loads(path.read_text())
        record["class_IoU"] = dict.fromkeys(record["class_IoU"], 0.5)
        if path.parent.name == "ada_adam_noaug":
            record["class_IoU"]["train"] = None
        path.write_text(json.dumps(record))
    assert warnings_of_the_report(copied, capsys) == {}
    sentence = "- Classes: config1 on Cityscapes: these mIoU are means over different classes (18 "
    assert sentence in (copied.parent / "results.md").read_text()


def of_another_size(path):
    """Change a file of scores to another size than that of its run."""
    record = json.loads(path.read_text())
    path.write_text(
        json.dumps(record | {"validation": record["validation"] | {"image_size": [128, 192]}})
    )


def test_scores_of_another_size_are_named(copied, capsys):
    run = copied / "seed0" / "simple_gta5_adam_noaug"
    for end in ("", "_target_statistics"):
        of_another_size(run / f"validation_cityscapes{end}.json")
    sentence = (
        "was scored at 128x192 on 3 images, the others of config1 at 64x96 on 3 images: score it "
        "again (remove the file and give the command of the reproduction again)."
    )
    assert warnings_of_the_report(copied, capsys) == {
        f"config1/seed0/simple_gta5_adam_noaug/validation_cityscapes{end}.json": sentence
        for end in ("", "_target_statistics")
    }


def test_scores_of_pictures_that_were_stretched_are_named(copied, capsys):
    run = copied / "seed0" / "ada_adam_noaug"
    changed(run / "validation_cityscapes.json", lambda found: found | {"proportions": "kept"})
    (sentence,) = warnings_of_the_report(copied, capsys).values()
    assert sentence.startswith("was scored at 64x96 with proportions kept on 3 images, the others")
    assert "at 64x96 with proportions stretched on 3 images" in sentence


def test_an_ensemble_without_its_last_epochs_names_the_command(copied):
    runs = sorted((copied / "seed0").iterdir())
    for path in (copied / "seed0").glob("mbt*/*_last*"):
        path.unlink()
    assert report("--runs", *map(str, runs), folder=copied.parent) == 0
    text = (copied.parent / "report" / "results.md").read_text()
    found = re.findall(r"Not scored: MBT.* best epoch only, .*`(python main.py .*)`", text)
    assert found and all("--action val_mbt" in command for command in found)
    assert all("--select last" in command for command in found)


def test_if_half_of_the_scores_differ_the_later_ones_are_named(copied, capsys):
    for run in (copied / "seed0").iterdir():
        if run.name != "simple_gta5_adam_noaug":
            shutil.rmtree(run)
    for path in (copied / "seed0" / "simple_gta5_adam_noaug").glob("validation_*_latest*.json"):
        of_another_size(path)
    files = warnings_of_the_report(copied, capsys)
    assert len(files) == 2 and all("_latest" in file for file in files)


def changed(path, change):
    """A record rewritten with another validation."""
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"validation": change(record["validation"])}))


def test_scores_of_another_data_set_are_named_and_drawn_apart(copied, capsys):
    train_a_second_epoch(copied.parent)
    run = copied / "seed0" / "ada_adam_noaug"
    for path in (run / "scores.json", *run.glob("validation_*.json")):
        changed(path, lambda validation: validation | {"data_set": "Cityscapes"})
    sentences = warnings_of_the_report(copied, capsys).values()
    assert len(sentences) == 3
    for sentence in sentences:
        assert "at 64x96 on 3 images of Cityscapes, the others of config1 at 64x96 on 3" in sentence
        assert f"images of {REAL}: score it again" in sentence
        assert "no difference is formed" in sentence
    data = (f"{name}, 3 validation images" for name in ("Cityscapes", REAL))
    alone, together = (f"config1: mIoU on {one}" for one in data)
    texts = texts_of("curves", copied.parent)
    assert texts[texts.index(alone) + 1] == "ADA"
    start = texts.index(together) + 1
    assert "ADA" not in texts[start : start + 6]
    cells = texts_of("class_iou", copied.parent)  # a title stands behind the names of its rows
    titles = [place for place, text in enumerate(cells) if text.startswith("config1: ")]
    parts = {
        cells[title]: cells[start:title]
        for start, title in zip([0, *titles[:-1]], titles, strict=True)
    }
    (other,) = [part for title, part in parts.items() if "on Cityscapes" in title]
    (usual,) = [part for title, part in parts.items() if f"on {REAL}" in title]
    assert "ADA" in other and "FDA 0.05" not in other
    assert "ADA" not in usual and "FDA 0.05" in usual
    rows = markdown_rows(copied.parent / "results.md", "## Differences")
    assert ("2", "ADA", "config1", "") not in rows


def test_a_score_is_known_by_its_record_whatever_its_file_is_called(copied):
    """A score of another checkpoint in the same folder is not taken for it."""
    run = copied / "seed0" / "ada_adam_noaug"
    for path in run.glob("validation_cityscapes*"):
        path.rename(run / path.name.replace("validation_cityscapes", "a_score"))
    other = json.loads((run / "a_score.json").read_text())
    other |= {"checkpoint": "runs/elsewhere/best.pth", "mIoU": 0.5}
    (run / "validation_cityscapes.json").write_text(json.dumps(other))
    assert report("--cityscapes_root", "nowhere", folder=copied.parent.parent) == 0
    now, before = (
        markdown_rows(folder / "results.md", KINDS_TABLE)["2", "ADA", "config1", ""]
        for folder in (copied.parent, Path("runs", "reproduce"))
    )
    assert now == before and "\u2013" not in now[:6]  # ADA has no average


def test_old_records_without_statistics_and_views_are_read(copied):
    run = copied / "seed0" / "ada_adam_noaug"
    path = run / "validation_cityscapes.json"
    changed(path, lambda v: {k: v[k] for k in v if k not in ("scales", "flip")})
    record = json.loads(path.read_text())
    del record["bn_statistics"]
    path.write_text(json.dumps(record))
    found = find_scores(run, "Cityscapes", (64, 96))
    assert found["best", "training"] == (path, record) and len(found) == 3


def test_records_that_do_not_name_their_data_are_read(copied, capsys):
    """They were written so until now."""
    for path in copied.glob("seed0/*/*.json"):
        if "validation" in json.loads(path.read_text()):
            changed(path, lambda v: {k: v[k] for k in v if k not in ("data_set", "fingerprint")})
    for path in copied.glob("seed0/*/scores.json"):
        record = json.loads(path.read_text())
        training = {k: v for k, v in record["training"].items() if "data_set" not in k}
        path.write_text(json.dumps(record | {"training": training}))
    assert warnings_of_the_report(copied, capsys) == {}
    text = (copied.parent / "results.md").read_text()
    data = "unrecorded source → data in the layout of Cityscapes (which is not recorded)"
    assert text.startswith(f"# reproduce: {data}, 3 validation images\n")


def test_scores_of_other_images_are_named_and_have_no_difference(copied, tmp_path, capsys):
    fewer = tmp_path / "fewer"
    shutil.copytree("toy_city/Cityscapes", fewer)
    for path in [*fewer.glob("leftImg8bit/val/*/*_leftImg8bit.png")][:1]:
        stem = path.name.removesuffix("leftImg8bit.png")
        for of_image in fewer.glob(f"*/val/*/{stem}*"):
            of_image.unlink()
    score_source_only_by_hand(copied, "--cityscapes_root", str(fewer))
    (text, *others) = warnings_of_the_report(copied, capsys).values()
    assert len(others) == 1
    assert "at 64x96 on 2 images, the others of config1 at 64x96 on 3 images" in text
    assert "no difference is formed between it and scores on the other images" in text
    rows = markdown_rows(copied.parent / "results.md", "## Differences")
    last, best, *_ = rows["2", "ADA", "config1", ""]
    assert "[" in last and best == "–"


def test_as_many_other_images_are_named_too(copied, capsys):
    path = copied / "seed0" / "ada_adam_noaug" / "validation_cityscapes.npz"
    with np.load(path) as arrays:
        names, counts = arrays["names"], arrays["counts"]
    np.savez(path, names=names[1:], counts=counts[1:])  # and then the scoring was interrupted
    (text,) = warnings_of_the_report(copied, capsys).values()
    assert "on 2 images, the others" in text
    np.savez(path, names=["elsewhere", *names[1:]], counts=counts)
    (text,) = warnings_of_the_report(copied, capsys).values()
    assert "on 3 images such as elsewhere, the others" in text and f"such as {names[0]}" in text
    assert "no difference is formed" in text


def test_steps_side_by_side_find_the_same(here, capsys):
    words = [*WHOLE, "--action", "reproduce", "--configs", "config1", "--save_keyword", "both"]
    settings = parse_settings(words, main.ACTIONS)
    plan = make_plan(catalog.STEPS, settings)[:3]  # the third scores what the second has trained
    for times in (1, 2):
        estimator = Estimator(plan, data_sizes(settings), jobs=2)
        side_by_side(plan, main.run_action, "reproduce", estimator)
        printed = capsys.readouterr().out
        lines = [line for line in printed.splitlines() if re.match(r"[123]/3 ", line)]
        assert len(lines) == 3
        assert all(("finished before" in line) == (times == 2) for line in lines)
    runs = here / "runs"
    for one in (runs / "both").rglob("scores.json"):
        other = runs / "reproduce" / one.relative_to(runs / "both")
        assert all(scores_in(one)[kind] == scores_in(other)[kind] for kind in ("last", "best"))
    counts = [path.relative_to(runs / "both") for path in (runs / "both").rglob("*.npz")]
    assert counts
    for ours, theirs in ([np.load(runs / n / c) for n in ("both", "reproduce")] for c in counts):
        assert all((ours[name] == theirs[name]).all() for name in theirs.files)


def test_a_step_that_fails_beside_others_says_where_to_read_on(copied, capsys):
    for path in copied.glob("seed0/dacs_adam_noaug/*"):
        if path.is_file() and path.name != "settings.json":
            path.unlink()
    (copied / "seed0/dacs_adam_noaug/latest.pth").write_bytes(b"no checkpoint")
    where = ("--save_model_path", str(copied.parent.parent), "--configs", "config1")
    assert reproduce(*where, "--jobs", "2") == 1
    printed = capsys.readouterr()
    assert "15/17 failed; what it has printed is in" in printed.out
    assert "dacs_adam_noaug/log.txt" in printed.out
    assert "latest.pth" in printed.err and "Traceback" not in printed.err


def test_an_interrupted_attempt_to_overwrite_leaves_nothing_older_than_itself(copied, monkeypatch):
    (copied / "seed0" / "notes.txt").write_text("mine")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    name = "train_simple_cityscapes"  # the first step
    monkeypatch.setitem(main.ACTIONS, name, main.ACTIONS[name]._replace(run=interrupt))
    words = ("--save_model_path", str(copied.parent.parent), "--configs", "config1")
    assert reproduce(*words, "--overwrite") == 130
    settings = parse_settings(["--action", "reproduce", *WHOLE, *words], main.ACTIONS)
    commands = [c for step in make_plan(catalog.STEPS, settings) for c in step.commands]
    assert not any(command.is_done() for command in commands)
    assert not [*copied.rglob("*.pth")] and (copied / "seed0" / "notes.txt").exists()


@pytest.mark.parametrize(
    "device, cores, at_a_time", [("cpu", 3, 3), pytest.param("cuda", 16, 4, marks=pytest.mark.gpu)]
)
def test_the_demo_can_be_planned_before_its_city_is_drawn(
    device, cores, at_a_time, tmp_path, monkeypatch, capsys
):
    """With a step at a time for each core, up to four."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    words = ["--action", "demo", *TOY, "--save_model_path", "runs", "--base_width", "8"]
    assert main.main([*words, "--device", device, "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "14 steps in runs/demo, 0 finished; about " in told
    assert f" for the rest, {at_a_time} at a time." in told
    assert not list(tmp_path.iterdir())


def test_a_city_has_the_sizes_it_was_planned_with(here):
    settings = parse_settings(("--action", "demo", *TOY), main.ACTIONS)
    assert data_sizes(settings) == toy_sizes(settings)


def test_times_are_those_of_the_epochs_that_were_made(here):
    run = here / "runs" / "reproduce" / "config1" / "seed0" / "ada_adam_noaug"
    record = json.loads((run / "scores.json").read_text())
    assert epochs_made(run) == (1, record["mean_epoch_seconds"])
    assert [duration(s) for s in (12.2, 90, 3600 * 3.5, 3600 * 50)] == [
        *("13 s", "2 min", "3 h 30 min", "2 d 2 h"),
    ]


def test_a_step_is_done_again_once_what_it_was_made_from_is_newer():
    fresh, ran = {"scores": True}, []

    def command(name, is_done, effect):
        def run():
            ran.append(name)
            effect()

        return SimpleNamespace(is_done=is_done, settings=run, text=lambda: name)

    training = command("train", lambda: "train" in ran, lambda: fresh.update(scores=False))
    scoring = command("score", lambda: fresh["scores"], lambda: fresh.update(scores=True))
    plan = [
        PlannedStep(str(number), "step", "config1", 0, Path(), (one,))
        for number, one in enumerate((training, scoring))
    ]
    for _ in range(2):
        one_by_one(plan, lambda run: run(), "reproduce", verbose=True)
    assert ran == ["train", "score"]
