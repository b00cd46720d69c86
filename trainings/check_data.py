"""Reading every file of both data sets once, as training does, before a training meets them.

A file that training would refuse is a problem and ends nothing here; what it would take but should
be known is a note. Counts, findings and class frequencies are printed and written as JSON.
"""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from datasets.cityscapes import cityscapes_files, cityscapes_images, found_cityscapes, label_kind
from datasets.gta5 import found_gta5, gta5_files, left_out
from datasets.labels import CLASS_NAMES, IGNORE, LABEL_ID_TO_TRAIN_ID, NUM_CLASSES
from datasets.pairing import Found, doubled_sentence
from datasets.samples import (
    LabelKind,
    UnequalSizes,
    UnknownLabels,
    check_sizes,
    nothing_scored,
    read_ids,
    read_image,
)
from trainings.loaders import Domain, check_batch_size, each_item, preparation
from utils.errors import UserError
from utils.run_folder import RunFolder
from utils.settings import Settings
from utils.utils import file_digest, find_input, markdown, progress, versions

NAME = "check_data"
SPLITS = ("train", "val")

SHOWN = 5
"""Findings of a kind that are printed; the file has them all."""

SIZES_SHOWN = 2

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
"""What every whole PNG begins with and holds last: type and checksum of its empty last chunk."""


class Kind(Enum):
    """What may be found, in the order of the report."""

    MISSING = "missing"
    UNPAIRED = "unpaired"
    DOUBLED = "two files of one name"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    SIZES = "size mismatch"
    VALUES = "label values"
    NOTHING_SCORED = "nothing scored"
    REFUSED = "refused by training"
    LEFT_OUT = "left out"
    UNLABELLED = "no training labels"
    BLANK = "blank label"
    PROPORTIONS = "other proportions"
    DUPLICATE = "duplicate image"

    @property
    def is_problem(self) -> bool:
        """Whether a training would end because of it."""
        return self not in (
            Kind.LEFT_OUT,
            Kind.UNLABELLED,
            Kind.BLANK,
            Kind.PROPORTIONS,
            Kind.DUPLICATE,
        )


class Finding(NamedTuple):
    """Something about a file or folder, and a sentence that names it."""

    kind: Kind
    path: Path
    sentence: str


class Part(NamedTuple):
    """A data set's split, of one city where it has cities."""

    data_set: str
    split: str
    city: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


class Files(NamedTuple):
    """What lies there of a sample; one of image and label may be missing."""

    part: Part
    image: Path | None
    label: Path | None
    kind: LabelKind


class Reading(NamedTuple):
    """What is kept of a sample's files, None of what could not be read.

    Attributes:
        size: of the image, (height, width).
        digest: of the bytes of the image's file.
        counts: pixels of the label by train id, int64 [256].
        values: what the label holds if none of it is scored.
    """

    findings: list[Finding]
    size: tuple[int, int] | None = None
    digest: str | None = None
    counts: np.ndarray | None = None
    values: Sequence[int] = ()


def check_data(settings: Settings) -> None:
    """Reads both data sets, prints what they hold and writes it into `check_data.json`.

    Raises UserError with the number of problems where a training would not run.
    """
    started = time.perf_counter()
    report = _read_all(settings)
    print(_text(report))
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


def _read_all(settings: Settings) -> "Report":
    report, files = Report(), []
    for domain in Domain:
        for split in SPLITS:
            with report.noting(Kind.MISSING, domain, settings):
                found = _find(domain, split, settings)
                report.note(domain.value, _unpartnered(found, domain, split))
                report.note_once(domain.value, _other_files(found))
                files += _files(found, domain, split)
    readings = each_item(_Reader(files), num_workers=settings.num_workers)
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
        report.left_out = left_out(_root(Domain.GTA5, settings))
    return report


# ------------------------------------------------------------------------- which files are there


def _flag(domain: Domain, settings: Settings) -> tuple[Path, str]:
    """The folder that the settings name, and the flag that does."""
    if domain is Domain.GTA5:
        return settings.gta5_root, "gta5_root"
    return settings.cityscapes_root, "cityscapes_root"


def _root(domain: Domain, settings: Settings) -> Path:
    return find_input(*_flag(domain, settings))


def _find(domain: Domain, split: str, settings: Settings) -> Found:
    root = _root(domain, settings)
    if domain is Domain.GTA5:
        return found_gta5(root, split, settings.gta5_val_fraction)
    return found_cityscapes(root, split)


def _ask_training(domain: Domain, settings: Settings) -> None:
    """Raises the UserError with which a training on whole files would end: too few, mostly."""
    root = _root(domain, settings)
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


def _nothing_scored(report: "Report", domain: Domain, settings: Settings) -> Iterator[Finding]:
    """Splits of whose labels no pixel is scored."""
    folder, _ = _flag(domain, settings)
    for split, frequencies in report.frequencies.items():
        if split.data_set == domain.value and not frequencies.pixels[:NUM_CLASSES].any():
            where = f"{folder} ({split.split} split)"
            sentence = nothing_scored(where, frequencies.labels, frequencies.values)
            yield Finding(Kind.NOTHING_SCORED, folder, sentence)


def _other_proportions(report: "Report", domain: Domain, settings: Settings) -> Iterator[Finding]:
    """A note for each split with images that `preparation` does not resize to its size."""
    folder, _ = _flag(domain, settings)
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
                f"{split} are not of the proportions of {_words(prepare.size)}, such as "
                f"{_words(largest)}: they keep theirs and are seen at "
                f"{_words(prepare.fitted(largest))}, of which training crops "
                f"{_words(settings.image_size)}"
            )
            yield Finding(Kind.PROPORTIONS, folder, sentence)


# -------------------------------------------------------------------------- reading, in workers


class _Reader(Dataset):
    """Reads a sample where the item is asked for, in a worker; only what is counted travels."""

    def __init__(self, files: Sequence[Files]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Reading:
        return read(self.files[index])


def read(files: Files) -> Reading:
    """The files of a sample, read by training's own readers; nothing in them raises."""
    findings: list[Finding] = []
    image = ids = digest = counts = None
    values: list[int] = []
    if files.image:
        with _kept(files.image, findings):
            image = read_image(files.image)
            digest = file_digest(files.image)  # from the memory that the reader has just filled
    if files.label:
        with _kept(files.label, findings):
            holds_train_ids = files.kind is LabelKind.TRAIN_IDS
            ids = read_ids(files.label, holds_train_ids=holds_train_ids)
            train_ids = ids if holds_train_ids else LABEL_ID_TO_TRAIN_ID[ids]
            counts = np.bincount(train_ids.ravel(), minlength=256)
            if not counts[:NUM_CLASSES].any():
                values = np.unique(ids).tolist()
                sentence = f"{files.label} has no pixel of a class: nothing is learned from it"
                findings.append(Finding(Kind.BLANK, files.label, sentence))
    if image is not None and ids is not None:
        with _kept(files.label, findings):
            check_sizes(files.image, image, files.label, ids)
    return Reading(findings, None if image is None else image.shape[:2], digest, counts, values)


@contextlib.contextmanager
def _kept(path: Path, findings: list[Finding]) -> Iterator[None]:
    """Makes a finding of whatever reading a file raises: no file may end the check."""
    try:
        yield
    except UnknownLabels as error:
        findings.append(Finding(Kind.VALUES, path, str(error)))
    except UnequalSizes as error:
        findings.append(Finding(Kind.SIZES, path, str(error)))
    except UserError as error:
        kind = Kind.TRUNCATED if _is_cut(path) else Kind.UNREADABLE
        findings.append(Finding(kind, path, str(error)))
    except Exception as error:
        sentence = f"{path} cannot be read ({error!r}): replace it"
        findings.append(Finding(Kind.UNREADABLE, path, sentence))


def _is_cut(path: Path) -> bool:
    """Whether a file begins as a PNG and lacks its end."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(PNG_START) and PNG_END not in content


# -------------------------------------------------------------------------------- what was found


class Tally:
    """Files of a part: how many images and labels lie there, and how many images have a size."""

    def __init__(self) -> None:
        self.images = self.labels = 0
        self.sizes: Counter[tuple[int, int]] = Counter()

    def add(self, files: Files, reading: Reading) -> None:
        self.images += files.image is not None
        self.labels += files.label is not None
        if reading.size:
            self.sizes[reading.size] += 1

    @property
    def megapixels(self) -> float:
        """Of the images that could be read."""
        return sum(height * width * n for (height, width), n in self.sizes.items()) / 1e6

    @property
    def proportions(self) -> Counter[str]:
        """How many images have which width by height, such as "2.00"."""
        counts: Counter[str] = Counter()
        for (height, width), count in self.sizes.items():
            counts[f"{width / height:.2f}"] += count
        return counts

    def to_json(self) -> dict[str, Any]:
        sizes = {_words(size): count for size, count in self.sizes.most_common()}
        counts = {"images": self.images, "labels": self.labels}
        proportions = dict(self.proportions.most_common())
        return {
            **counts,
            "megapixels": self.megapixels,
            "sizes": sizes,
            "proportions": proportions,
        }


class Frequencies:
    """How often each class occurs in the labels of a split.

    Attributes:
        pixels: by train id, int64 [256].
        images: how many labels hold the train id, int64 [256].
        labels: how many were read.
        values: what those hold of which nothing is scored.
    """

    def __init__(self) -> None:
        self.pixels, self.images = np.zeros((2, 256), np.int64)
        self.labels = 0
        self.values: set[int] = set()

    def add(self, reading: Reading) -> None:
        self.pixels += reading.counts
        self.images += reading.counts > 0
        self.labels += 1
        self.values.update(reading.values)

    def share(self, train_id: int) -> float:
        """Of a class among the pixels that have one, of `IGNORE` among all; NaN of none."""
        whole = self.pixels if train_id == IGNORE else self.pixels[:NUM_CLASSES]
        return float(self.pixels[train_id] / whole.sum()) if whole.any() else float("nan")

    def to_json(self) -> dict[str, Any]:
        classes = {
            name: {
                "pixels": int(self.pixels[train_id]),
                "share_of_valid": self.share(train_id),
                "images": int(self.images[train_id]),
            }
            for train_id, name in enumerate(CLASS_NAMES)
        }
        return {
            "labels": self.labels,
            "valid_pixels": int(self.pixels[:NUM_CLASSES].sum()),
            "ignored_pixels": int(self.pixels[IGNORE]),
            "classes": classes,
        }


class Report:
    """Everything that is counted and found; grows by one digest per image, and by the findings.

    Attributes:
        findings: by data set, in the order of the files.
        left_out: known bad pairs of GTA5, which are not read.
    """

    def __init__(self) -> None:
        self.findings: dict[str, list[Finding]] = {domain.value: [] for domain in Domain}
        self.tallies: dict[Part, Tally] = {}
        self.frequencies: dict[Part, Frequencies] = {}
        self.left_out = 0
        self._first: dict[str, Files] = {}

    def note(self, data_set: str, findings: Iterable[Finding]) -> None:
        self.findings[data_set] += findings

    def note_once(self, data_set: str, findings: Iterable[Finding]) -> None:
        """For what several splits have in common."""
        self.note(data_set, [one for one in findings if one not in self.findings[data_set]])

    @contextlib.contextmanager
    def noting(self, kind: Kind, domain: Domain, settings: Settings) -> Iterator[None]:
        """Makes a finding of a folder that cannot be used; once, whatever is looked for in it."""
        try:
            yield
        except (UserError, OSError) as error:
            finding = Finding(kind, _flag(domain, settings)[0], str(error))
            self.note_once(domain.value, [finding])

    def add(self, files: Files, reading: Reading) -> None:
        self.note(files.part.data_set, reading.findings)
        self.tallies.setdefault(files.part, Tally()).add(files, reading)
        if reading.counts is not None:
            split = files.part._replace(city="")
            self.frequencies.setdefault(split, Frequencies()).add(reading)
        if reading.digest:
            first = self._first.setdefault(reading.digest, files)
            if first is not files:
                self.note(files.part.data_set, [_duplicate(files, first)])

    def has_problem(self, domain: Domain) -> bool:
        return any(finding.kind.is_problem for finding in self.findings[domain.value])

    def by_kind(self) -> dict[Kind, list[Finding]]:
        """All findings, in the order of the kinds; kinds that occur."""
        everything = [finding for findings in self.findings.values() for finding in findings]
        grouped = {kind: [one for one in everything if one.kind is kind] for kind in Kind}
        return {kind: findings for kind, findings in grouped.items() if findings}

    def problems(self) -> dict[Kind, int]:
        """How many findings of each kind end a training."""
        return {kind: len(ones) for kind, ones in self.by_kind().items() if kind.is_problem}

    def to_json(self) -> dict[str, Any]:
        return {
            "training_would_run": not self.problems(),
            "findings_by_kind": {kind.value: len(ones) for kind, ones in self.by_kind().items()},
            "findings": [
                {
                    "kind": finding.kind.value,
                    "problem": finding.kind.is_problem,
                    "data_set": data_set,
                    "path": str(finding.path),
                    "sentence": finding.sentence,
                }
                for data_set, findings in self.findings.items()
                for finding in findings
            ],
            "left_out": {Domain.GTA5.value: self.left_out},
            "parts": [
                {**part._asdict(), **tally.to_json()} for part, tally in self.tallies.items()
            ],
            "classes": [
                {"data_set": split.data_set, "split": split.split, **frequencies.to_json()}
                for split, frequencies in self.frequencies.items()
            ],
        }


def _duplicate(files: Files, first: Files) -> Finding:
    sentence = (
        f"{files.image} ({files.part}) is the same file as {first.image} ({first.part}): remove "
        "one with its label unless both are meant"
    )
    return Finding(Kind.DUPLICATE, files.image, sentence)


# -------------------------------------------------------------------------------------- in words


def _text(report: Report) -> str:
    """The report to read: what is there, what was found, and the classes."""
    sections = []
    if report.tallies:
        sections.append(markdown(_part_rows(report.tallies), numbers=(3, 4, 5)))
    if report.left_out:
        sections.append(f"{report.left_out} known bad pairs of GTA5 are left out\n")
    sections += [_finding_lines(kind, ones) for kind, ones in report.by_kind().items()]
    if report.frequencies:
        rows = _class_rows(report.frequencies)
        sections.append(markdown(rows, numbers=range(1, len(rows[0]))))
    # Names of files are bytes to the system; not all of them are text.
    return "\n".join(sections).encode(errors="backslashreplace").decode()


def _part_rows(tallies: Mapping[Part, Tally]) -> list[tuple[str, ...]]:
    head = (
        "data set",
        "split",
        "city",
        "images",
        "labels",
        "megapixels",
        "sizes",
        "width / height",
    )
    return [head, *((*part, *_tally_cells(tally)) for part, tally in tallies.items())]


def _tally_cells(tally: Tally) -> tuple[str, ...]:
    sizes = Counter({_words(size): count for size, count in tally.sizes.items()})
    lists = _most_common(sizes, "sizes"), _most_common(tally.proportions, "proportions")
    return str(tally.images), str(tally.labels), f"{tally.megapixels:.2f}", *lists


def _most_common(counts: Counter[str], what: str) -> str:
    shown = [f"{word} ({count})" for word, count in counts.most_common(SIZES_SHOWN)]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} other {what}" if rest else "")


def _finding_lines(kind: Kind, findings: Sequence[Finding]) -> str:
    weight = "problem" if kind.is_problem else "note"
    lines = [f"{weight}: {kind.value}, {len(findings)}"]
    lines += [f"  {one.sentence}".replace("\n", "\\n") for one in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"  and {len(findings) - SHOWN} more")
    return "\n".join(lines) + "\n"


def _class_rows(frequencies: Mapping[Part, Frequencies]) -> list[list[str]]:
    """Share of the valid pixels and number of images by class; the last row is of all pixels."""
    head = [cell for split in frequencies for cell in (f"{split} %", "images")]
    rows = [["class", *head]]
    names = {**dict(enumerate(CLASS_NAMES)), IGNORE: "(none, of all pixels)"}
    for train_id, name in names.items():
        cells = [
            (f"{100 * of_split.share(train_id):.2f}", str(of_split.images[train_id]))
            for of_split in frequencies.values()
        ]
        rows.append([name, *itertools.chain(*cells)])
    return rows


def _words(size: tuple[int, int]) -> str:
    """Width first, as of a file."""
    return f"{size[1]}x{size[0]}"
