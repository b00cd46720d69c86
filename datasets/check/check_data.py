"""Reading every file of source and target once, as training does, before a training meets them.

A file that training would refuse is a problem and ends nothing here; what it would take but should
be known is a note. Counts, findings and class frequencies are printed and written as JSON.
"""

import contextlib
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.catalog import (
    data_set,
    format_for,
    has_labels,
    labelled,
    named_root,
    preparation,
    root_of,
    row_of,
    unlabelled,
)
from datasets.check.alike import alike
from datasets.check.files import read
from datasets.check.findings import Files, Finding, Kind, Part, size_in_words
from datasets.check.report import Report, tables
from datasets.data_set import Role
from datasets.labels import IGNORE, LABEL_IDS
from datasets.loading.batches import each_item
from datasets.loading.pairs import check_batch_size
from datasets.loading.sets import ENOUGH_FOR_STATISTICS
from datasets.options import DataSettings
from datasets.pairing import Found, doubled_sentence
from datasets.reading import nothing_scored
from utils.disk.machine import versions
from utils.disk.run_folder import RunFolder
from utils.errors import UserError
from utils.utils import progress

NAME = "check_data"
SPLITS = ("train", "val")


def check_data(settings: DataSettings) -> None:
    """Read source and target, print what they hold and write it to `check_data.json`.

    Raise UserError with the number of problems where a training would not run.
    """
    started = time.perf_counter()
    report = _read_all(settings)
    print(tables(report))
    folder = RunFolder(settings.save_model_path / (settings.save_keyword or NAME))
    record = {
        **report.to_json(),
        "seconds": time.perf_counter() - started,
        "versions": versions(),
        "settings": settings.to_json(),
    }
    folder.write_json(f"{NAME}.json", record)
    print(f"everything, with all findings: {folder.path / NAME}.json")
    problems = report.problems()
    if problems:
        counts = ", ".join(f"{count} {kind.value}" for kind, count in problems.items())
        raise UserError(
            f"training would not run ({counts}): mend or remove what is named above, and check "
            "again"
        )
    print("training would run with these data")


def _read_all(settings: DataSettings) -> Report:
    report, files = Report(settings), []
    for role in Role:
        with contextlib.suppress(UserError):  # a missing folder is a finding of its own
            report.names[report.titles[role]] = data_set(role, settings)
    for role in Role:
        for split in SPLITS:
            with report.noting(Kind.MISSING, role):
                found = row_of(role, settings).layout.found(
                    root_of(role, settings), split, settings
                )
                report.note(role, _unpartnered(found, role, split, settings))
                report.note_once(role, _other_files(found))
                if found.bad:
                    report.left_out[report.titles[role]] = found.bad
                files += _files(found, report.titles[role], split, role, settings)
    readings = each_item(read, files, num_workers=settings.workers)
    readings = progress(readings, "check", total=len(files), unit="sample")
    for one, reading in zip(files, readings, strict=True):
        report.add(one, reading)
    for role in Role:
        report.note(role, _nothing_scored(report, role, settings))
        report.note(role, _other_proportions(report, role, settings))
        if role is Role.TARGET and report.contents:
            report.note(role, [_without_labels(report.contents, settings)])
        if not report.has_problem(role):
            # The report has the notes of a training already.
            with report.noting(Kind.REFUSED, role), contextlib.redirect_stderr(io.StringIO()):
                _ask_training(role, settings)
    return report


def _ask_training(role: Role, settings: DataSettings) -> None:
    """Raise the UserError with which a training on the whole files would end: too few, mostly."""
    if role is Role.TARGET:
        unlabelled(role, "train", settings)  # no adaptation reads their labels
    else:
        train = labelled(role, "train", settings)
        images = settings.batch_size * settings.accumulate_steps
        check_batch_size(images, settings.accumulate_steps, len(train))
    if has_labels(role, "val", settings):
        labelled(role, "val", settings)


def _unpartnered(found: Found, role: Role, split: str, settings: DataSettings) -> Iterator[Finding]:
    """Yield images without labels and labels without images; one finding where a side has none."""
    images, labels, image_folder, label_folder, *_ = found
    if role is Role.SOURCE and not images and not labels:
        return  # too few for a split, which is training's to say
    if split == "val" and not images and not has_labels(role, split, settings):
        return
    if not images:
        sentence = row_of(role, settings).layout.no_images(image_folder, split)
        yield Finding(Kind.MISSING, image_folder, sentence)
    elif not labels:
        yield from _no_labels(label_folder, role, split, settings)
    else:
        for name in sorted(images.keys() ^ labels.keys()):
            path = images.get(name) or labels[name]
            missing, folder = ("label", label_folder) if name in images else ("image", image_folder)
            sentence = f"{path} has no {missing} in {folder}: add the {missing} or remove this file"
            yield Finding(Kind.UNPAIRED, path, sentence)


def _other_files(found: Found) -> Iterator[Finding]:
    """Yield files whose names other files have already, and files that are not taken."""
    for first, second in found.doubled:
        yield Finding(Kind.DOUBLED, second, doubled_sentence(first, second))
    for sentence in found.left_out:
        yield Finding(Kind.LEFT_OUT, found.image_folder, sentence)


def _no_labels(folder: Path, role: Role, split: str, settings: DataSettings) -> Iterator[Finding]:
    if not has_labels(role, split, settings):
        return
    if role is Role.TARGET and split == "train":
        sentence = f"{folder} holds no labels: adaptation needs none, supervised training does"
        yield Finding(Kind.UNLABELLED, folder, sentence)
    else:
        sentence = f"{folder} holds no labels of the {split} split: put them there"
        yield Finding(Kind.MISSING, folder, sentence)


def _files(found: Found, title: str, split: str, role: Role, settings: DataSettings) -> list[Files]:
    row = row_of(role, settings)
    layout, compared = row.layout, _is_unlabelled(role, settings)
    files = []
    for name in sorted(found.images.keys() | found.labels.keys()):
        image, label = found.images.get(name), found.labels.get(name)
        kind = format_for(role, layout.label_format(label) if label else LABEL_IDS, settings)
        part = Part(title, split, name.rpartition("/")[0])
        files.append(Files(part, image, label, kind, row.photos, compared))
    return files


def _is_unlabelled(role: Role, settings: DataSettings) -> bool:
    """Return whether the data are a target that nothing is scored on."""
    return role is Role.TARGET and not has_labels(role, "val", settings)


def _without_labels(contents: Sequence[tuple[Path, np.ndarray]], settings: DataSettings) -> Finding:
    """Describe a target without labels: formats, images that are nearly the same, and whether the
    images are enough for its statistics."""
    folder = named_root(Role.TARGET, settings)
    paths = [path for path, _ in contents]
    formats = Counter(path.suffix.lower().lstrip(".").replace("jpeg", "jpg") for path in paths)
    words = ", ".join(f"{count} {suffix}" for suffix, count in formats.most_common())
    pairs = alike([content for _, content in contents])
    same = "none of them nearly the same as another"
    if pairs:
        one, other = pairs[0]
        same = f"{len(pairs)} of them nearly the same as another, such as {paths[one]} and "
        same += f"{paths[other]}, which teach little (--frame_step takes fewer frames of a video)"
    different = len(paths) - len(pairs)
    wanted = ENOUGH_FOR_STATISTICS
    enough = "enough" if different >= wanted else f"too few ({wanted} are advised)"
    sentence = (
        f"{folder} has no labels, so no best epoch is kept: {len(paths)} images ({words}), {same}; "
        f"{different} different ones are {enough} for target statistics"
    )
    return Finding(Kind.WITHOUT_LABELS, folder, sentence)


def _nothing_scored(report: Report, role: Role, settings: DataSettings) -> Iterator[Finding]:
    """Yield a problem for each split in whose labels no pixel is scored."""
    folder, title = named_root(role, settings), report.titles[role]
    for split, frequencies in report.frequencies.items():
        if split.data_set == title and not frequencies.pixels[:IGNORE].any():
            where = f"{folder} ({split.split} split)"
            kind = frequencies.kind
            sentence = nothing_scored(where, frequencies.labels, frequencies.values, kind)
            yield Finding(Kind.NOTHING_SCORED, folder, sentence)


def _other_proportions(report: Report, role: Role, settings: DataSettings) -> Iterator[Finding]:
    """Yield a note for each split with images that `preparation` does not resize to its size."""
    folder, title = named_root(role, settings), report.titles[role]
    prepare = preparation(role, settings, resizes_label=True)
    for split in SPLITS:
        counts: Counter[tuple[int, int]] = Counter()
        for part, tally in report.tallies.items():
            if (part.data_set, part.split) == (title, split):
                counts.update(tally.sizes)
        others = [size for size in counts if prepare.fitted(size) != prepare.size]
        if others:
            largest = max(others, key=lambda size: counts[size])
            sentence = (
                f"{sum(counts[size] for size in others)} of {counts.total()} images of {title} "
                f"{split} are not of the proportions of {size_in_words(prepare.size)}, such as "
                f"{size_in_words(largest)}: they keep theirs and are seen at "
                f"{size_in_words(prepare.fitted(largest))}, of which training crops "
                f"{size_in_words(settings.image_size)}"
            )
            yield Finding(Kind.PROPORTIONS, folder, sentence)
