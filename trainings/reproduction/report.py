"""The report of a reproduction, from run folders alone: tables, charts, pictures and a page."""

from collections.abc import Sequence

from trainings.options import Settings
from trainings.reproduction.by_hand import lines_by_hand
from trainings.reproduction.commands import recorded_commands, report_command
from trainings.reproduction.comparisons import compared
from trainings.reproduction.conditions import odd_means, odd_scores, unscored
from trainings.reproduction.csv_files import csv_files
from trainings.reproduction.figures import draw_charts, method_looks
from trainings.reproduction.latex import latex_tables
from trainings.reproduction.options import ReproductionOptions
from trainings.reproduction.page import Report, page
from trainings.reproduction.plan import plan_folder
from trainings.reproduction.planned import planned_lines
from trainings.reproduction.sheets import draw_overview, draw_sheet, predicted_images
from trainings.reproduction.steps import Step
from trainings.reproduction.tables import (
    class_table,
    difference_table,
    indicator_tables,
    kinds_table,
    main_tables,
    picture_list,
    sources,
)
from utils.disk.run_folder import RunFolder


def write_report(steps: Sequence[Step], settings: Settings) -> str:
    """Write results.html, .md, .tex, the CSVs and the figures; return the main tables and the
    names of the files.

    The runs are those that `--runs` names, else those of a reproduction's folder. Raise UserError
    where there are none.
    """
    runs = ReproductionOptions.of(settings).runs
    if runs:
        folder = settings.save_model_path / (settings.save_keyword or "report")
        lines = compared(lines_by_hand(runs, steps, settings))
    else:
        folder = plan_folder(settings)
        lines = compared(planned_lines(folder, steps, settings))
    out = RunFolder(folder)
    for name, text in csv_files(lines, folder).items():
        out.write_text(name, text)
    again = [report_command(settings, folder)]
    whole = again if runs else recorded_commands(folder) or again
    out.write_text("results.tex", latex_tables(lines, whole))
    of_methods = method_looks(lines, steps)
    pictures = draw_charts(out, lines, of_methods)
    shown = [*predicted_images(lines, settings)]
    for of_config in shown:
        pictures += [*draw_overview(out, of_config, lines), draw_sheet(out, of_config)]
    warnings = [
        f"Warning: {sentence}" for sentence in odd_scores(lines, folder, by_hand=bool(runs))
    ]
    warnings += [
        f"Not scored: {sentence}"
        for sentence in (unscored(lines, folder, type(settings)) if runs else [])
    ]
    warnings += [f"Classes: {sentence}" for sentence in odd_means(lines)]
    tables = main_tables(folder.name, lines, warnings, whole)
    if of_targets := indicator_tables(lines, again):
        tables = f"{tables}\n{of_targets}"
    sections = [
        tables,
        difference_table(lines, again),
        kinds_table(lines, again),
        class_table(lines, again),
        picture_list(pictures, folder) if pictures else "",
        sources(lines, folder),
    ]
    out.write_text("results.md", "\n".join(filter(None, sections)))
    report = Report(folder.name, lines, shown, of_methods, warnings, whole, folder, type(settings))
    out.write_text("results.html", page(report))
    files = ", ".join(["results.md", "results.csv", "results.tex", *pictures])
    return f"{tables}\nreport: {folder / 'results.html'} (open it in a browser)\nbeside it: {files}"
