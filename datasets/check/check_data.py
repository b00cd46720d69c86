"""Reading every file of both data sets once, as training does, before a training meets them.

A file that training would refuse is a problem and ends nothing here; what it would take but should
be known is a note. Counts, findings and class frequencies are printed and written as JSON.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets.catalog import Domain, data_set, named_root, preparation, root_of
from datasets.check.files import Reader
from datasets.check.findings import Files, Finding, Kind, Part, size_in_words
from datasets.check.report import Report, tables
from datasets.cityscapes import (
    cityscapes_files,
    cityscapes_images,
    found_cityscapes,
    label_kind,
    no_images,
)
from datasets.gta5 import found_gta5, gta5_files, left_out
from datasets.labels import NUM_CLASSES
from datasets.loading.batches import each_item
from datasets.loading.pairs import check_batch_size
from datasets.options import DataSettings
from datasets.pairing import Found, doubled_sentence
from datasets.reading import (
    LabelKind,
    nothing_scored,
)
from utils.disk.machine import versions
from utils.disk.run_folder import RunFolder
from utils.errors import UserError
from utils.utils import progress

NAME = "check_data"
SPLITS = ("train", "val")


def check_data(settings: DataSettings) -> None:
    """Reads both data sets, prints what they hold and writes it into `check_data.json`.

    Raises UserError with the number of problems where a training would not run.
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


def _read_all(settings: DataSettings) -> "Report":
    report, files = Report(), []
    for domain in Domain:
        with contextlib.suppress(UserError):  # a missing folder is a finding of its own
            report.names[domain.value] = data_set(domain, settings)
    for domain in Domain:
        for split in SPLITS:
            with report.noting(Kind.MISSING, domain, settings):
                found = _find(domain, split, settings)
                report.note(domain.value, _unpartnered(found, domain, split))
                report.note_once(domain.value, _other_files(found))
                files += _files(found, domain, split)
    readings = each_item(Reader(files), num_workers=settings.workers)
    readings = progress(readings, "check", total=len(files), unit="sample")
    for one, reading in zip(files, readings, strict=True):
        report.add(one, reading)
    for domain in Domain:
        report.note(domain.value, _nothing_scored(report, domain, settings))
        report.note(domain.value, _other_proportions(report, domain, settings))
        if not report.has_problem(domain):
            with report.noting(Kind.REFUSED, domain, settings):
                _ask_training(domain, settings)
    with contextlib.suppress(UserError):  # it is said already that there is no GTA5
        report.left_out = left_out(root_of(Domain.GTA5, settings))
    return report


def _find(domain: Domain, split: str, settings: DataSettings) -> Found:
    root = root_of(domain, settings)
    if domain is Domain.GTA5:
        return found_gta5(root, split, settings.gta5_val_fraction)
    return found_cityscapes(root, split)


def _ask_training(domain: Domain, settings: DataSettings) -> None:
    """Raises the UserError with which a training on whole files would end: too few, mostly."""
    root = root_of(domain, settings)
    if domain is Domain.GTA5:
        fraction = settings.gta5_val_fraction
        train, *_ = [gta5_files(root, s, fraction) for s in (SPLITS if fraction else SPLITS[:1])]
        images = settings.batch_size * settings.accumulate_steps
        check_batch_size(images, settings.accumulate_steps, len(train))
    else:
        cityscapes_images(root, "train")  # no adaptation reads their labels
        cityscapes_files(root, "val")


def _unpartnered(found: Found, domain: Domain, split: str) -> Iterator[Finding]:
    """Images without labels and labels without images; one finding where a side has none."""
    images, labels, image_folder, label_folder, *_ = found
    if domain is Domain.GTA5 and not images and not labels:
        return  # too few for a split, which is training's to say
    if not images:
        sentence = f"{image_folder} holds no images of the {split} split: put them there"
        if domain is Domain.CITYSCAPES:
            sentence = no_images(image_folder, split)
        yield Finding(Kind.MISSING, image_folder, sentence)
    elif not labels:
        yield _no_labels(label_folder, domain, split)
    else:
        for name in sorted(images.keys() ^ labels.keys()):
            path = images.get(name) or labels[name]
            missing, folder = ("label", label_folder) if name in images else ("image", image_folder)
            sentence = f"{path} has no {missing} in {folder}: add the {missing} or remove this file"
            yield Finding(Kind.UNPAIRED, path, sentence)


def _other_files(found: Found) -> Iterator[Finding]:
    """Files whose names others have already, and files that are not taken."""
    for first, second in found.doubled:
        yield Finding(Kind.DOUBLED, second, doubled_sentence(first, second))
    for sentence in found.left_out:
        yield Finding(Kind.LEFT_OUT, found.image_folder, sentence)


def _no_labels(folder: Path, domain: Domain, split: str) -> Finding:
    if domain is Domain.CITYSCAPES and split == "train":
        sentence = f"{folder} holds no labels: adaptation needs none, supervised training does"
        return Finding(Kind.UNLABELLED, folder, sentence)
    sentence = f"{folder} holds no labels of the {split} split: put them there"
    return Finding(Kind.MISSING, folder, sentence)


def _files(found: Found, domain: Domain, split: str) -> list[Files]:
    return [
        _sample(name, found.images.get(name), found.labels.get(name), domain, split)
        for name in sorted(found.images.keys() | found.labels.keys())
    ]


def _sample(name: str, image: Path | None, label: Path | None, domain: Domain, split: str) -> Files:
    if domain is Domain.GTA5:
        return Files(Part(domain.value, split), image, label, LabelKind.LABEL_IDS)
    city = name.rpartition("/")[0]
    kind = label_kind(label) if label else LabelKind.LABEL_IDS
    return Files(Part(domain.value, split, city), image, label, kind)


def _nothing_scored(report: "Report", domain: Domain, settings: DataSettings) -> Iterator[Finding]:
    """Yield a problem for each split in whose labels no pixel is scored."""
    folder = named_root(domain, settings)
    for split, frequencies in report.frequencies.items():
        if split.data_set == domain.value and not frequencies.pixels[:NUM_CLASSES].any():
            where = f"{folder} ({split.split} split)"
            sentence = nothing_scored(where, frequencies.labels, frequencies.values)
            yield Finding(Kind.NOTHING_SCORED, folder, sentence)


def _other_proportions(
    report: "Report", domain: Domain, settings: DataSettings
) -> Iterator[Finding]:
    """A note for each split with images that `preparation` does not resize to its size."""
    folder = named_root(domain, settings)
    prepare = preparation(domain, settings, resizes_label=True)
    for split in SPLITS:
        counts: Counter[tuple[int, int]] = Counter()
        for part, tally in report.tallies.items():
            if (part.data_set, part.split) == (domain.value, split):
                counts.update(tally.sizes)
        others = [size for size in counts if prepare.fitted(size) != prepare.size]
        if others:
            largest = max(others, key=counts.get)
            sentence = (
                f"{sum(map(counts.get, others))} of {counts.total()} images of {domain.value} "
                f"{split} are not of the proportions of {size_in_words(prepare.size)}, such as "
                f"{size_in_words(largest)}: they keep theirs and are seen at "
                f"{size_in_words(prepare.fitted(largest))}, of which training crops "
                f"{size_in_words(settings.image_size)}"
            )
            yield Finding(Kind.PROPORTIONS, folder, sentence)
