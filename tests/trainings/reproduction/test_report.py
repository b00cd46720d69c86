"""Tables of run folders: those of a reproduction, and those that were typed by hand."""

import csv
import json
import re
import shlex
import shutil

import numpy as np
import pytest

import main
from datasets.labels import CLASS_NAMES
from tests.support.reports import BASELINE, PLANNED, SOURCE, TARGET, write_reproduction, write_run
from trainings.reproduction.latex import escaped
from utils.cli.command_line import parse_settings

MAIN_COLUMNS = 7


def report(folder, *words):
    command = ["--action", "report", "--save_model_path", str(folder), "--cityscapes_root", "none"]
    return main.main([*command, *map(str, words)])


def rows(text, heading):
    """Cells of the table below a heading of results.md."""
    part = text.split(heading)[1].split("\n## ")[0]
    found = [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in found if not set(row[0]) <= set("-: ")]


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The report of a reproduction that is finished but for some steps."""
    folder = tmp_path_factory.mktemp("runs")
    write_reproduction(folder / "reproduce")
    assert report(folder) == 0
    return folder


def text_of(runs, folder="reproduce"):
    return (runs / folder / "results.md").read_text()


def test_the_main_table_has_seven_columns(runs):
    head, *body = rows(text_of(runs), "# reproduce")
    assert len(head) == MAIN_COLUMNS
    names = [f"{row[0]} {row[1]}".strip() for row in body]
    assert {"Source-only", "Source-only, target statistics", "ADA", "FDA 0.05"} <= set(names)


def test_every_table_names_its_data_is_read_first_and_says_how_to_repeat_it(runs):
    title, *others = re.split(r"^## ", text_of(runs), flags=re.MULTILINE)
    assert title.startswith("# reproduce: Toy City, synthetic look → real look, 12 validation")
    tables = [part for part in (title, *others) if "To repeat" in part]
    assert len(tables) == 4
    for part in tables:
        heading, _, sentence, *_ = part.splitlines()
        assert "12 validation images" in heading and sentence.endswith(".")
        assert part.rstrip().splitlines()[-1].startswith("To repeat: `python main.py --action ")


def test_the_sentences_read_the_table(runs):
    sentences = text_of(runs).splitlines()[2]
    assert sentences.startswith("FDA 0.05 has the highest mIoU without target labels: ")
    assert (
        "points over source-only). FDA 0.05 as trained beats source-only with target" in sentences
    )


def test_no_method_is_said_to_win_where_none_does(tmp_path):
    folder = tmp_path / "reproduce" / "adamw" / "seed0"
    write_run(folder / "source", *BASELINE, share=0.3, adapted=0.6)
    write_run(folder / "ada", "train_ada", share=0.4, adapted=0.5)
    assert report(tmp_path) == 0
    (free,) = [row[3] for row in rows(text_of(tmp_path), "# ") if "target st" in row[0]][:1]
    assert f"No method is shown to beat source-only with target statistics ({free})" in (
        text_of(tmp_path)
    )


def test_ten_images_are_needed_to_say_who_wins(tmp_path):
    folder = tmp_path / "reproduce" / "adamw" / "seed0"
    write_run(folder / "source", *BASELINE, share=0.3, adapted=0.4, images=9)
    write_run(folder / "ada", "train_ada", share=0.9, adapted=0.9, images=9)
    assert report(tmp_path) == 0
    assert "9 images are too few to compare with source-only with target" in text_of(tmp_path)
    assert "*" not in " ".join(cell for row in rows(text_of(tmp_path), "# ") for cell in row)


def test_a_star_marks_a_difference_whose_interval_leaves_0_out(runs):
    clear = {
        (row["Method"], row["beta"]): row["Leaves 0 out"] == "True"
        for row in csv_rows(runs / "reproduce" / "differences.csv")
        if (row["Epoch"], row["Batch-norm statistics"]) == ("last", "training")
        and row["Source-only's statistics"] == "training"
    }
    shown = {(row[0], row[1]): row[4] for row in rows(text_of(runs), "# ")[1:] if row[4]}
    assert any(clear.values())
    for key, is_clear in clear.items():
        assert shown[key].endswith("*") is is_clear


def test_the_free_baseline_is_compared_with_every_method_as_trained(runs):
    found = [
        row
        for row in csv_rows(runs / "reproduce" / "differences.csv")
        if row["Source-only's statistics"] == "target"
        and row["Batch-norm statistics"] == "training"
    ]
    scores = {
        (row["Method"], row["Seed"], row["Batch-norm statistics"]): float(row["mIoU %"])
        for row in csv_rows(runs / "reproduce" / "results.csv")
        if row["Epoch"] == "last"
    }
    (ada,) = [float(row["Difference"]) for row in found if row["Method"] == "ADA"]
    free = [scores["Source-only", seed, "target"] for seed in "01"]
    own = [scores["ADA", seed, "training"] for seed in "01"]
    assert ada == pytest.approx(np.mean(own) - np.mean(free), abs=2e-3)


def test_the_latex_table_has_the_numbers_of_the_main_table(runs):
    text = (runs / "reproduce" / "results.tex").read_text()
    assert text.count(r"\begin{tabular}") == 1 and r"\toprule" in text
    (ada,) = [row for row in rows(text_of(runs), "# ") if row[0] == "ADA"]
    expected = " & ".join(cell.replace("±", r"$\pm$") for cell in ada) + r" \\"
    assert expected in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in lines} == {MAIN_COLUMNS - 1}


def test_latex_reads_every_special_character_as_itself():
    assert escaped("50 % of a_b & c#1 ~ {x}^2 $") == (
        r"50 \% of a\_b \& c\#1 \textasciitilde{} \{x\}\textasciicircum{}2 \$"
    )


# ------------------------------------------------------------------------------------ typed by hand


@pytest.fixture
def by_hand(tmp_path):
    """Runs of all methods and two seeds, in one folder under names of their own."""
    folder = tmp_path / "checkpoints"
    for number, (name, words) in enumerate(PLANNED.items()):
        for seed in "01":
            share = 0.3 + 0.1 * number
            write_run(folder / f"{name}_{seed}", *words, "--seed", seed, share=share, adapted=0.5)
    (folder / "notes.txt").touch()
    (folder / "photos").mkdir()
    return folder


@pytest.mark.slow
def test_runs_typed_by_hand_get_the_tables_of_a_reproduction(by_hand, capsys):
    assert report(by_hand, "--runs", *sorted(by_hand.iterdir())) == 0
    head, *body = rows(text_of(by_hand, "report"), "# report")
    assert len(head) == MAIN_COLUMNS
    names = [f"{row[0]} {row[1]}".strip() for row in body]
    assert names == [
        *("Supervised on the target", "Source-only, on the source", "Source-only"),
        *("Source-only, target statistics", "ADA", "FDA 0.01", "FDA 0.05"),
    ]
    assert "±" in body[4][3] and body[4][4].startswith("+")
    assert "passed over, no finished runs: notes.txt, photos" in capsys.readouterr().out
    assert f"--runs {by_hand}/*`" in text_of(by_hand, "report")


def test_among_runs_by_hand_a_reproduction_is_named_with_its_command(by_hand, capsys):
    demo = by_hand / "demo"
    demo.mkdir()
    (demo / "commands.txt").write_text("python main.py --action demo\n")
    assert report(by_hand, "--runs", *sorted(by_hand.iterdir())) == 0
    command = f"python main.py --action report --save_model_path {by_hand} --save_keyword demo"
    assert command in capsys.readouterr().out


@pytest.mark.slow
def test_a_teacher_s_scores_are_in_the_table_of_all_scores(by_hand):
    heading = "## Best epoch and target statistics"
    assert report(by_hand, "--runs", by_hand / "ada_0") == 0
    assert "averaged weights" not in text_of(by_hand, "report"), "no run has an average"
    write_run(by_hand / "dacs", "train_dacs", share=0.4, adapted=0.6)
    assert report(by_hand, "--runs", by_hand / "ada_0", by_hand / "dacs") == 0
    head, ada, dacs = rows(text_of(by_hand, "report"), heading)
    own = json.loads((by_hand / "dacs" / "scores.json").read_text())
    columns = ("averaged weights", "averaged weights, target statistics")
    for name, column in zip(
        ("last_average", "last_average_target_statistics"), columns, strict=True
    ):
        place = head.index(f"mIoU %, {column}")
        assert (ada[place], dacs[place]) == ("–", f"{100 * own[name]['mIoU']:.1f}")
        assert column in (by_hand / "report" / "results.html").read_text()
    found = csv_rows(by_hand / "report" / "results.csv")
    kinds = [(r["Epoch"], r["Batch-norm statistics"]) for r in found if r["Method"] == "DACS"]
    assert {("ema", "training"), ("ema", "target")} <= {*kinds}


@pytest.mark.slow
def test_seeds_are_pooled_and_other_settings_are_not(by_hand):
    words = ("train_ada", "--adv_weight", "0.01", "--seed", "0")
    write_run(by_hand / "heavy", *words, share=0.5, adapted=0.5)
    words = ("train_ada", "--ohem", "--seed", "0")
    write_run(by_hand / "hard", *words, share=0.5, adapted=0.5)
    assert report(by_hand, "--runs", *by_hand.glob("[ahs]*")) == 0
    found = {
        (row["Method"], row["Seed"])
        for row in csv_rows(by_hand / "report" / "results.csv")
        if "ADA" in row["Method"]
    }
    usual = "ADA, ohem False, adv_weight 0.001"
    heavy, hard = usual.replace("0.001", "0.01"), usual.replace("False", "True")
    assert found == {(usual, "0"), (usual, "1"), (heavy, "0"), (hard, "0")}


def test_a_setting_that_most_runs_do_not_share_is_in_the_title(by_hand):
    words = ("train_dacs", "--num_epochs", "3", "--seed", "0")
    write_run(by_hand / "long", *words, share=0.5, adapted=0.5)
    assert report(by_hand, "--runs", *by_hand.glob("*_0"), by_hand / "long") == 0
    found = {row["Method"] for row in csv_rows(by_hand / "report" / "results.csv")}
    assert {"DACS, num_epochs 3", "ADA", "Source-only"} <= found
    assert "batch 8, 50 epochs, " in text_of(by_hand, "report")


def test_where_all_runs_have_one_augmentation_source_only_with_it_is_the_baseline(tmp_path):
    words = ("--aug_method", "C-S", "--seed", "0")
    write_run(tmp_path / "source", "train_simple_gta5", *words, share=0.3, adapted=0.4)
    write_run(tmp_path / "ada", "train_ada", *words, share=0.5, adapted=0.6)
    assert report(tmp_path, "--runs", tmp_path / "source", tmp_path / "ada") == 0
    (ada,) = (row for row in rows(text_of(tmp_path, "report"), "# report") if row[0] == "ADA")
    assert ada[4].startswith("+")
    assert "augmentation C-S, " in text_of(tmp_path, "report")


def test_runs_of_different_classes_are_not_pooled(by_hand):
    path = by_hand / "ada_1" / "settings.json"
    table = "id,name,colour\n0,road,#804080\n1,sky,#4682b4\n"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_table": table}))
    assert report(by_hand, "--runs", *by_hand.glob("ada_*")) == 0
    other, usual = sorted(row[0] for row in rows(text_of(by_hand, "report"), "# ")[1:])
    assert usual == "ADA, the usual classes" and other.startswith("ADA, classes ")


def test_means_over_fewer_classes_are_in_the_tables_and_the_page(by_hand):
    for path in by_hand.glob("ada_0/*.json"):
        record = json.loads(path.read_text())
        for scores in (record, *record.values()):
            if isinstance(scores, dict) and "class_IoU" in scores:
                scores["subset_mIoU"] = {"16 classes": 0.4321}
        path.write_text(json.dumps(record))
    assert report(by_hand, "--runs", by_hand / "ada_0") == 0
    (ada,) = [row for row in rows(text_of(by_hand, "report"), "## IoU") if row[1] == "ADA"]
    page = (by_hand / "report" / "results.html").read_text()
    assert ada[-1] == "43.2" and "mIoU of 16 classes" in page and ">43.2<" in page
    assert "mIoU of 16 classes" in (by_hand / "report" / "class_iou_adamw.svg").read_text()


def test_a_run_that_is_there_twice_counts_once(by_hand, tmp_path, capsys):
    shutil.copytree(by_hand / "ada_0", tmp_path / "copy")
    assert report(by_hand, "--runs", by_hand / "ada_0", tmp_path / "copy") == 0
    assert f"{tmp_path / 'copy'} is left out: {by_hand / 'ada_0'} is the same run" in (
        capsys.readouterr().out
    )
    (row,) = [row for row in rows(text_of(by_hand, "report"), "# ") if row[0] == "ADA"]
    assert "±" not in row[3]


@pytest.mark.slow
def test_scores_json_alone_gives_a_table_and_differences_without_intervals(by_hand):
    for path in by_hand.glob("*/validation_*"):
        if path.parent.name[:6] != "simple":
            path.unlink()
    for path in by_hand.glob("simple*/*.npz"):
        path.unlink()
    assert report(by_hand, "--runs", *by_hand.glob("*_*")) == 0
    text = text_of(by_hand, "report")
    (ada,) = [row for row in rows(text, "# ") if row[0] == "ADA"]
    assert re.fullmatch(r"\d+\.\d ± 0\.\d", ada[3]) and re.fullmatch(r"\+\d+\.\d", ada[4])
    scores = [json.loads((by_hand / f"ada_{seed}" / "scores.json").read_text()) for seed in "01"]
    expected = 100 * np.mean([one["last"]["mIoU"] for one in scores])
    assert float(ada[3].split()[0]) == pytest.approx(expected, abs=0.05)
    (difference,) = [row for row in rows(text, "## Diff") if row[1] == "ADA"]
    assert "[" not in difference[4] and difference[4].startswith("+")


@pytest.mark.slow
def test_scores_on_other_images_have_no_difference(by_hand):
    shutil.rmtree(by_hand / "ada_0")
    write_run(by_hand / "ada_0", "train_ada", share=0.5, adapted=0.5, images=11)
    shutil.rmtree(by_hand / "ada_1")
    assert report(by_hand, "--runs", *by_hand.glob("*_0")) == 0
    (ada,) = [row for row in rows(text_of(by_hand, "report"), "# ") if row[0] == "ADA"]
    assert ada[3] and not ada[4]


CAMERA = ("--target", "folder", "--target_root", "my dashcam")


def test_scores_of_an_unlabelled_target_are_said_to_be_of_the_source(tmp_path):
    folder = tmp_path / "checkpoints"
    for action, share in (("train_ada", 0.4), ("train_dacs", 0.6)):
        write_run(
            folder / action, action, *CAMERA, share=share, adapted=0.5, unlabelled="my dashcam"
        )
    assert report(folder, "--runs", *folder.glob("train_*")) == 0
    text, page = text_of(folder, "report"), (folder / "report" / "results.html").read_text()
    title = f"{SOURCE} → my dashcam, scored on the source, {SOURCE}"
    assert text.startswith(f"# report: {title}, 12 validation images")
    assert title in page
    for shown in (text, page):
        assert "No method is ranked: my dashcam has no labels" in shown
        assert "highest mIoU" not in shown
    assert f"No method finds {CLASS_NAMES[-2]}." in text and "% on the source" in page
    assert [row[0] for row in rows(text, "# report")[1:]] == [
        "ADA, on the source",
        "DACS, on the source",
    ]
    found = csv_rows(folder / "report" / "results.csv")
    assert {(row["Domain"], row["Data"]) for row in found} == {
        ("GTA5", f"{SOURCE}, 12 validation images")
    }


def test_indicators_of_a_target_without_labels_are_shown_and_a_collapse_is_named(tmp_path):
    folder = tmp_path / "checkpoints"
    for seed, share in enumerate((0.82, 0.84)):
        words = ("train_dacs", *CAMERA, "--seed", str(seed))
        write_run(folder / f"dacs_{seed}", *words, share=share, adapted=0.5, unlabelled="cam")
    write_run(folder / "ada", "train_ada", *CAMERA, share=0.6, adapted=0.5, unlabelled="cam")
    assert report(folder, "--runs", folder / "ada", *folder.glob("dacs_*")) == 0
    text, page = text_of(folder, "report"), (folder / "report" / "results.html").read_text()
    assert rows(text, "Without labels: cam")[1:] == [
        ["ADA", "–", "75.0", "–", "–", "road 60.0"],
        ["DACS", "–", "75.0 ± 0.0", "–", "–", "road 83.0 ± 1.4"],
    ]
    for shown in (text, page):
        assert "DACS sees road in 83.0 ± 1.4 % of the pixels" in shown
        assert "ADA sees" not in shown and "No indicator is a score" in shown


def test_runs_on_photos_are_compared_where_some_photos_were_labelled(tmp_path):
    folder = tmp_path / "checkpoints"
    ways = {"adapted": 0.5, "unlabelled": "cam", "scored_on": "labelled"}
    for action, share in (("train_ada", 0.4), ("train_dacs", 0.6)):
        write_run(folder / action, action, *CAMERA, share=share, **ways)
    write_run(folder / "train_source", "train_source", share=0.3, **ways)
    assert report(folder, "--runs", *folder.glob("train_*")) == 0
    text = text_of(folder, "report")
    assert "DACS has the highest mIoU without target labels" in text
    assert [row[0] for row in rows(text, "adamw on labelled")[1:]] == [
        *("Source-only, on the source", "Source-only", "Source-only, target statistics"),
        *("ADA", "DACS"),
    ]


@pytest.mark.slow
def test_runs_scored_on_different_data_have_tables_of_their_own(by_hand):
    write_run(by_hand / "photos_0", "train_dacs", share=0.9, adapted=0.9, data_set="photos")
    camera = by_hand / "camera_0"
    write_run(camera, "train_dacs", *CAMERA, share=0.95, adapted=0.9, unlabelled="my dashcam")
    assert report(by_hand, "--runs", *by_hand.glob("*_*")) == 0
    text = text_of(by_hand, "report")
    _, city, photos, camera, *_ = re.split(r"^## ", text, flags=re.MULTILINE)
    assert city.startswith(f"adamw on {TARGET}: ") and "DACS" not in city
    assert photos.startswith("adamw on photos: ") and camera.startswith(f"adamw on {SOURCE}: ")
    assert "FDA 0.05 has the highest mIoU" in city and "No method is ranked" in camera
    (dacs,) = [row for row in rows(photos, "adamw on photos") if row[0] == "DACS"]
    assert not dacs[4]


@pytest.mark.slow
def test_a_distillation_is_named_after_the_teacher_of_its_labels(by_hand):
    write_run(by_hand / "dacs_0", "train_dacs", share=0.5, adapted=0.5)
    labels = by_hand / "labels"
    for name, found in (("taught", labels), ("unknown", by_hand / "elsewhere")):
        words = ("train_distill", "--pseudo_label_path", str(found))
        write_run(by_hand / f"{name}_0", *words, share=0.6, adapted=0.5)
    labels.mkdir()
    teachers = {"checkpoints": [{"path": "dacs_0/latest.pth", "sha256": ""}]}
    (labels / "summary.json").write_text(json.dumps(teachers))
    assert report(by_hand, "--runs", *by_hand.glob("*_0")) == 0
    names = [row[0] for row in rows(text_of(by_hand, "report"), "# report")]
    found = {name for name in names if "Distillation" in name}
    assert found == {"Distillation of DACS", "Distillation"}


def test_trainings_on_any_data_set_are_source_only_and_supervised(tmp_path, capsys):
    write_run(tmp_path / "source_0", "train_source", share=0.4, adapted=0.5)
    write_run(tmp_path / "target_0", "train_target", share=0.8, adapted=0.8)
    write_run(tmp_path / "ada_0", "train_ada", share=0.6, adapted=0.6)
    assert report(tmp_path, "--runs", *tmp_path.glob("*_0")) == 0
    _, *body = rows(text_of(tmp_path, "report"), "# report")
    assert [row[0] for row in body] == [
        *("Supervised on the target", "Source-only, on the source", "Source-only"),
        *("Source-only, target statistics", "ADA"),
    ]
    assert body[-1][4].startswith("+")
    assert "passed over" not in capsys.readouterr().out


def test_source_only_has_a_curve_on_the_target_before_it_is_scored_there(by_hand):
    for path in by_hand.glob("simple_gta5_0/validation_*"):
        path.unlink()
    (by_hand / "simple_gta5_0" / "history.csv").write_text(
        "epoch,loss,train_seconds,val/mIoU,target/mIoU\n1,3.5,1.0,0.4,0.1\n2,2.5,1.0,0.5,0.2\n"
    )
    assert report(by_hand, "--runs", *by_hand.glob("*_0")) == 0
    page = (by_hand / "report" / "results.html").read_text()
    on_target = rf"<figcaption>[^<]*mIoU on {re.escape(TARGET)}.*?</figure>"
    (chart,) = re.findall(on_target, page, re.DOTALL)
    assert "<span>Source-only</span><b>20.0 %</b>" in chart


def test_a_source_only_run_without_its_last_epoch_on_the_target_names_the_command(by_hand):
    for path in by_hand.glob("simple_gta5_0/validation_*_latest_*"):
        path.unlink()
    assert report(by_hand, "--runs", *by_hand.glob("*_0")) == 0
    text = text_of(by_hand, "report")
    assert "is scored on the target at its best epoch only" in text
    command = f"--select last --save_model_path {by_hand} --save_keyword simple_gta5_0`"
    assert f"python main.py --action val_gta5_transfer {command}" in text


@pytest.mark.parametrize("known_by", ["own scores", "own settings", "another run"])
def test_the_command_for_a_last_epoch_names_a_folder_as_the_target(tmp_path, known_by):
    source = ("--source", "folder", "--source_root", "photos")
    watched = (*CAMERA, "--score_target") if known_by == "own settings" else ()
    run, other = tmp_path / "source", tmp_path / "ada"
    scored = {"unlabelled": "my dashcam", "scored_on": "my dashcam", "adapted": 0.5}
    write_run(run, "train_source", *source, *watched, share=0.4, **scored)
    write_run(other, "train_ada", *source, *CAMERA, share=0.5, **scored)
    for path in run.glob("validation_*"):
        if known_by != "own scores" or "_latest_" in path.name:
            path.unlink()
    transfer = ["--action", "val_transfer", *source, *CAMERA, "--save_model_path", str(tmp_path)]
    made_by = parse_settings([*transfer, "--save_keyword", "source"], main.ACTIONS)
    for path in run.glob("validation_*.json"):
        record = json.loads(path.read_text()) | {"settings": made_by.to_json()}
        path.write_text(json.dumps(record))
    if known_by == "own settings":
        for path in other.glob("validation_*.json"):  # an old record
            record = json.loads(path.read_text())
            del record["settings"]
            path.write_text(json.dumps(record))
    assert report(tmp_path, "--runs", run, other) == 0
    (command,) = re.findall(
        r"`python main.py (--action val_transfer .*?)`", text_of(tmp_path, "report")
    )
    advised = parse_settings(shlex.split(command), main.ACTIONS)
    assert advised.to_json() == {**made_by.to_json(), "select": "last"}


@pytest.mark.slow
def test_the_advice_on_odd_scores_of_a_hand_typed_run_fits_the_file(by_hand):
    shutil.rmtree(by_hand / "ada_0")
    write_run(by_hand / "ada_0", "train_ada", share=0.5, adapted=0.5, images=11)
    for path in by_hand.glob("ada_0/validation_*_best_*"):
        path.unlink()
    assert report(by_hand, "--runs", *by_hand.glob("*_0")) == 0
    advice = [line for line in text_of(by_hand, "report").splitlines() if "ada_0/" in line]
    kept = [line for line in advice if "ada_0/scores.json was scored" in line]
    assert any("leave this file" in line for line in kept)
    assert any("remove the file and score that checkpoint" in line for line in advice)
    assert not any("reproduction" in line for line in advice)


@pytest.mark.slow
def test_a_source_only_run_is_compared_on_every_target_that_it_was_scored_on(tmp_path):
    camvid = ("--target", "camvid")
    write_run(tmp_path / "source_0", "train_source", share=0.4, adapted=0.5)
    for path in (tmp_path / "source_0").glob("validation_*_latest_*.json"):
        record = json.loads(path.read_text())
        record["validation"] |= {"domain": "CamVid", "data_set": "CamVid"}
        name = path.name.replace("cityscapes", "camvid")
        path.with_name(name).write_text(json.dumps(record))
    write_run(tmp_path / "dacs_0", "train_dacs", *camvid, share=0.6, adapted=0.6)
    own = tmp_path / "dacs_0" / "scores.json"
    record = json.loads(own.read_text())
    record["validation"] |= {"domain": "CamVid", "data_set": "CamVid"}
    own.write_text(json.dumps(record))
    for path in (tmp_path / "dacs_0").glob("validation_*"):
        path.unlink()
    assert report(tmp_path, "--runs", *tmp_path.glob("*_0")) == 0
    text = text_of(tmp_path, "report")
    (dacs,) = [row for row in rows(text, "## adamw on CamVid") if row[0] == "DACS"]
    assert dacs[4].startswith("+")


def test_folders_without_runs_are_one_sentence(tmp_path, capsys):
    assert report(tmp_path, "--runs", tmp_path / "a", tmp_path / "b") == 1
    assert "error: argument --runs: none of the 2 folders holds" in capsys.readouterr().err


def test_the_classes_show_what_is_absent_and_what_is_never_found(runs):
    head, *body = rows(text_of(runs), "## IoU per class")
    (ada,) = [dict(zip(head, row, strict=True)) for row in body if row[1] == "ADA"]
    assert ada[CLASS_NAMES[-1]] == "–" and ada[CLASS_NAMES[-2]] == "0.0"
    assert f"No method finds {CLASS_NAMES[-2]}." in text_of(runs)
    assert TARGET in text_of(runs)
