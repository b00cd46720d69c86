"""The findings and counts of `check_data`, as tables and as JSON."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.catalog import name_of, named_root
from datasets.check.counts import Frequencies, Tally
from datasets.check.findings import Files, Finding, Kind, Part, Reading, size_in_words
from datasets.data_set import Role
from datasets.labels import IGNORE, ClassTable
from datasets.options import DataSettings
from utils.errors import UserError
from utils.text import markdown

SHOWN = 5
"""Findings of a kind that are printed; the file has them all."""

SIZES_SHOWN = 2


class Report:
    """Everything that is counted and found; grows by one digest per image, and by the findings.

    Attributes:
        findings: by data set, in the order of the files.
        titles: of source and target.
        contents: the images of a target without labels, and what they show.
        left_out: how many known bad pairs are not read, by data set.
        names: what lies in the place of each data set, such as "Toy City, real look".
    """

    def __init__(self, settings: DataSettings) -> None:
        self.classes = settings.class_table
        self.titles = {role: name_of(role, settings) for role in Role}
        if len(set(self.titles.values())) < len(Role):
            self.titles = {role: f"{name} ({role.value})" for role, name in self.titles.items()}
        self.roots = {role: named_root(role, settings) for role in Role}
        self.findings: dict[str, list[Finding]] = {name: [] for name in self.titles.values()}
        self.tallies: dict[Part, Tally] = {}
        self.frequencies: dict[Part, Frequencies] = {}
        self.contents: list[tuple[Path, np.ndarray]] = []
        self.left_out: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self._first: dict[str, Files] = {}

    def note(self, role: Role, findings: Iterable[Finding]) -> None:
        self.findings[self.titles[role]] += findings

    def note_once(self, role: Role, findings: Iterable[Finding]) -> None:
        """Add findings once that several splits may have in common."""
        known = self.findings[self.titles[role]]
        self.note(role, [one for one in findings if one not in known])

    @contextlib.contextmanager
    def noting(self, kind: Kind, role: Role) -> Iterator[None]:
        """Turn a folder that cannot be used into a finding, once, whatever is looked for in it."""
        try:
            yield
        except (UserError, OSError) as error:
            self.note_once(role, [Finding(kind, self.roots[role], str(error))])

    def add(self, files: Files, reading: Reading) -> None:
        findings = self.findings[files.part.data_set]
        findings += reading.findings
        self.tallies.setdefault(files.part, Tally()).add(files, reading)
        if reading.content is not None and files.image:
            self.contents.append((files.image, reading.content))
        if reading.counts is not None:
            split = files.part._replace(city="")
            counted = self.frequencies.setdefault(split, Frequencies(files.kind, self.classes))
            counted.add(reading.counts, reading.values)
        if reading.digest:
            first = self._first.setdefault(reading.digest, files)
            if first is not files:
                findings.append(_duplicate(files, first))

    def has_problem(self, role: Role) -> bool:
        return any(finding.kind.is_problem for finding in self.findings[self.titles[role]])

    def by_kind(self) -> dict[Kind, list[Finding]]:
        """Return all findings by kind, in the order of the kinds, for the kinds that occur."""
        everything = [finding for findings in self.findings.values() for finding in findings]
        grouped = {kind: [one for one in everything if one.kind is kind] for kind in Kind}
        return {kind: findings for kind, findings in grouped.items() if findings}

    def problems(self) -> dict[Kind, int]:
        """Return how many findings of each kind end a training."""
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
            "names": self.names,
            "left_out": self.left_out,
            "parts": [
                {**part._asdict(), **tally.to_json()} for part, tally in self.tallies.items()
            ],
            "classes": [
                {"data_set": split.data_set, "split": split.split, **frequencies.to_json()}
                for split, frequencies in self.frequencies.items()
            ],
        }


def _duplicate(files: Files, first: Files) -> Finding:
    assert files.image is not None
    sentence = (
        f"{files.image} ({files.part}) is the same file as {first.image} ({first.part}): remove "
        "one with its label unless both are meant"
    )
    return Finding(Kind.DUPLICATE, files.image, sentence)


def tables(report: Report) -> str:
    """Return the report to read: what is there, what was found, and the classes."""
    sections = [f"{one}: {name}\n" for one, name in report.names.items() if name != one]
    if report.tallies:
        sections.append(markdown(_part_rows(report.tallies), numbers=(3, 4, 5)))
    sections += [
        f"{count} known bad pairs of {name} are left out\n"
        for name, count in report.left_out.items()
    ]
    sections += [_finding_lines(kind, ones) for kind, ones in report.by_kind().items()]
    if report.frequencies:
        rows = _class_rows(report.frequencies, report.classes)
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
    sizes = Counter({size_in_words(size): count for size, count in tally.sizes.items()})
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


def _class_rows(frequencies: Mapping[Part, Frequencies], classes: ClassTable) -> list[list[str]]:
    """Return the share of the valid pixels and the number of images by class; the last row is of
    all pixels."""
    head = [cell for split in frequencies for cell in (f"{split} %", "images")]
    rows = [["class", *head]]
    names = {**dict(enumerate(classes.names)), IGNORE: "(none, of all pixels)"}
    for train_id, name in names.items():
        cells = [
            (f"{100 * of_split.share(train_id):.2f}", str(of_split.images[train_id]))
            for of_split in frequencies.values()
        ]
        rows.append([name, *itertools.chain(*cells)])
    return rows
