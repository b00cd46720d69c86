"""The report of a reproduction, from run folders alone: tables, charts, pictures and a page."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from trainings.options import Settings
from trainings.reproduction.by_hand import lines_by_hand
from trainings.reproduction.conditions import odd_means, odd_scores, unscored
from trainings.reproduction.csv_files import csv_files
from trainings.reproduction.figures import (
    draw_charts,
    draw_overview,
    draw_sheet,
    method_looks,
    predicted_images,
)
from trainings.reproduction.latex import latex_tables
from trainings.reproduction.lines import planned_lines
from trainings.reproduction.options import ReproductionOptions
from trainings.reproduction.page import Report, page
from trainings.reproduction.plan import plan_folder
from trainings.reproduction.steps import Step
from trainings.reproduction.summary import summarise
from trainings.reproduction.tables import (
    class_table,
    difference_table,
    kinds_table,
    main_tables,
    picture_list,
    sources,
)
from utils.cli.flags import words_of
from utils.disk.run_folder import RunFolder

COMMANDS = "commands.txt"
"""The commands that made a reproduction's runs, one a line."""


def write_report(steps: Sequence[Step], settings: Settings) -> str:
    """Write results.html, .md, .tex, the CSVs and the figures; return the main tables and the
    names of the files.

    The runs are those that `--runs` names, else those of a reproduction's folder. Raise UserError
    where there are none.
    """
    runs = ReproductionOptions.of(settings).runs
    if runs:
        folder = settings.save_model_path / (settings.save_keyword or "report")
        lines = lines_by_hand(runs, steps, settings)
    else:
        folder = plan_folder(settings)
        lines = planned_lines(folder, steps, settings)
    out = RunFolder(folder)
    entries = summarise(lines)
    for name, text in csv_files(entries, folder).items():
        out.write_text(name, text)
    again = [report_command(settings, folder)]
    whole = again if runs else recorded_commands(folder) or again
    out.write_text("results.tex", latex_tables(entries, whole))
    of_methods = method_looks(lines, steps)
    pictures = draw_charts(out, lines, of_methods)
    shown = [*predicted_images(lines, settings)]
    for of_config in shown:
        pictures += [*draw_overview(out, of_config, entries), draw_sheet(out, of_config)]
    warnings = [
        f"Warning: {sentence}" for sentence in odd_scores(lines, folder, by_hand=bool(runs))
    ]
    warnings += [
        f"Not scored: {sentence}" for sentence in (unscored(lines, folder) if runs else [])
    ]
    warnings += [f"Classes: {sentence}" for sentence in odd_means(lines)]
    tables = main_tables(folder.name, entries, warnings, whole)
    sections = [
        tables,
        difference_table(entries, again),
        kinds_table(lines, again),
        class_table(lines, again),
        picture_list(pictures, folder) if pictures else "",
        sources(lines, folder),
    ]
    out.write_text("results.md", "\n".join(filter(None, sections)))
    report = Report(
        folder.name, entries, shown, of_methods, warnings, whole, folder, type(settings)
    )
    out.write_text("results.html", page(report))
    files = ", ".join(["results.md", "results.csv", "results.tex", *pictures])
    return f"{tables}\nreport: {folder / 'results.html'} (open it in a browser)\nbeside it: {files}"


def report_command(settings: Settings, folder: Path) -> str:
    """Return the command of this report, which is written into a folder, as a user would type
    it."""
    given = {name: value for name, value in settings.explicit().items() if name != "action"}
    if settings.action != "report":
        places = ("save_model_path", "save_keyword")
        given = {name: value for name, value in given.items() if name in places}
        given.setdefault("save_keyword", plan_folder(settings).name)
    runs = " ".join(["--runs", *_globs(given.pop("runs"), folder)]) if "runs" in given else ""
    command = shlex.join(["python", "main.py", *words_of({"action": "report", **given})])
    return f"{command} {runs}".rstrip()


def _globs(paths: Sequence[Path], report: Path) -> list[str]:
    """Return the paths as words, those that are all of a folder's but the report as FOLDER/*."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        found.setdefault(path.parent, []).append(path)
    shown = []
    for parent, own in found.items():
        everything = {path for path in parent.glob("*") if not path.name.startswith(".")}
        whole = len(own) > 1 and everything <= {*own, report}
        shown += [f"{shlex.quote(str(parent))}/*"] if whole else [shlex.quote(str(p)) for p in own]
    return shown


def record_command(settings: Settings) -> None:
    """Add the command of a reproduction to those that its folder names."""
    folder = plan_folder(settings)
    typed = {
        name: value
        for name, value in settings.explicit().items()
        if name not in ("action", "jobs", "verbose")
    }
    command = shlex.join(["python", "main.py", *words_of({"action": settings.action, **typed})])
    if command not in (known := recorded_commands(folder)):
        RunFolder(folder).write_text(COMMANDS, "\n".join([*known, command, ""]))


def recorded_commands(folder: Path) -> list[str]:
    """Return the commands that made a reproduction's runs; none where they are not recorded."""
    path = folder / COMMANDS
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
