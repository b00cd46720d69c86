"""Layouts of the files of a data set: without splits, as GTA5's, and with them, as Cityscapes'."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.labels import LabelFormat
from datasets.options import DataSettings
from datasets.pairing import (
    Found,
    by_name,
    check_doubled,
    check_partners,
    example,
    existing_folder,
    is_named,
    listing,
    not_taken,
    otherwise_named,
)
from datasets.reading import SampleFiles
from utils.errors import UserError
from utils.notes import say_once

MAX_VAL_BLOCKS = 10
MIN_VAL_BLOCK = 50

SETTLED = 3.0
"""Seconds after which one more change of a folder surely has another time; FAT's are whole pairs of
seconds."""


@dataclass(frozen=True)
class Unsplit:
    """Images in one folder and labels, under the same names, in another, as GTA5 has them.

    A share of them validates (`--gta5_val_fraction`).

    Attributes:
        title: of the data set.
        images_at, labels_at: the two folders below the root.
        format: what the labels hold.
        flags: those that name the root.
        bad: numbers of the pairs that are left out.
    """

    title: str
    images_at: str
    labels_at: str
    format: LabelFormat
    flags: str = "--source_root or --target_root"
    bad: frozenset[int] = frozenset()

    def found(self, root: Path, split: str, settings: DataSettings) -> Found:
        """See `Layout`."""
        found = self._without_bad(root)
        return found_in_split(found, split, settings.gta5_val_fraction)

    def labelled(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        """See `Layout`. Raise UserError, too, where a split would be empty."""
        if bad := self._without_bad(root).bad:
            say_once(f"{self.title}: {bad} known bad pairs left out")
        return self._samples(root, split, settings)

    def images(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        samples = self._samples(root, split, settings)
        return [one._replace(label=None) for one in samples]

    def _samples(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        found = self._without_bad(root)
        for sentence in found.left_out:
            say_once(sentence)
        check_partners(found)
        names = chosen_names(sorted(found.images), root, split, settings.gta5_val_fraction)
        return [
            SampleFiles(name, found.images[name], found.labels[name], self.format, name)
            for name in names
        ]

    def label_format(self, label: Path) -> LabelFormat:
        return self.format

    def has_labels(self, root: Path, split: str, settings: DataSettings) -> bool:
        return split == "train" or settings.gta5_val_fraction > 0

    def no_images(self, folder: Path, split: str) -> str:
        return f"{folder} holds no images of the {split} split: put them there"

    def _without_bad(self, root: Path) -> Found:
        found = self._listing(root)
        images, labels = (
            {name: path for name, path in paths.items() if not self._is_bad(name)}
            for paths in (found.images, found.labels)
        )
        return found._replace(images=images, labels=labels, bad=len(found.images) - len(images))

    def _is_bad(self, stem: str) -> bool:
        return stem.isdecimal() and int(stem) in self.bad

    def _listing(self, root: Path) -> Found:
        inside = self.images_at, self.labels_at
        remedy = (
            f"unpack {self.title} so that {root} holds {self.images_at}/ and {self.labels_at}/, or "
            f"name its folder with {self.flags}{example(root, inside)}"
        )
        images, labels = (existing_folder(root / at, remedy) for at in inside)
        return listed_anew(images, labels)


def chosen_names(names: Sequence[str], root: Path, split: str, val_fraction: float) -> list[str]:
    """Return the names of a split. Raise UserError where it, or the other one, would be empty."""
    chosen = in_split(names, split, val_fraction)
    if split == "val" and not val_fraction:
        raise UserError(
            f"{root} has no validation split with --gta5_val_fraction 0: name a share above 0"
        )
    if not chosen or (len(chosen) == len(names) and val_fraction):
        raise UserError(
            f"{root} holds {len(names)} usable images, too few for a training and a validation "
            f"split with --gta5_val_fraction {val_fraction}: add images or change the fraction"
        )
    return chosen


def in_split(names: Sequence[str], split: str, val_fraction: float) -> list[str]:
    """Return those of the sorted names that are in a split."""
    validation = validation_positions(len(names), val_fraction)
    return [
        name for position, name in enumerate(names) if (position in validation) == (split == "val")
    ]


def found_in_split(found: Found, split: str, val_fraction: float) -> Found:
    """Return the images and labels of a split; a file without its partner counts as if that were
    there."""
    names = sorted(found.images.keys() | found.labels.keys())
    chosen = in_split(names, split, val_fraction)
    images, labels = (
        {name: paths[name] for name in chosen if name in paths}
        for paths in (found.images, found.labels)
    )
    return found._replace(images=images, labels=labels)


def validation_positions(count: int, fraction: float) -> set[int]:
    """Return the positions in the sorted names that validate: contiguous blocks, spread evenly.

    Consecutive frames of a game or a drive look alike, so a block keeps neighbours on one side;
    several blocks, where they are long enough, see several parts of it. A fraction of 0 gives none.
    """
    blocks = min(max(round(count * fraction) // MIN_VAL_BLOCK, 1), MAX_VAL_BLOCKS)
    ends = [count * (block + 1) // blocks for block in range(blocks)]
    return {
        position
        for start, end in zip([0, *ends], ends, strict=False)
        for position in range(end - round((end - start) * fraction), end)
    }


def listed_anew(images: Path, labels: Path) -> Found:
    """Return the files of a folder of images and one of labels, listed again only where something
    was added or removed since."""
    folders = images, labels
    changed = tuple(folder.stat().st_mtime for folder in folders)
    list_now = _listed if time.time() - max(changed) > SETTLED else _listed.__wrapped__
    return list_now(folders, changed)


@functools.lru_cache(maxsize=4)
def _listed(folders: tuple[Path, Path], _changed: tuple[float, float]) -> Found:
    """Return the files in the folders of images and labels, last changed at the given times."""
    listed = [listing(folder, deep=False) for folder in folders]
    (images, doubled_images), (labels, doubled_labels) = (
        by_name(one.paths, folder) for one, folder in zip(listed, folders, strict=True)
    )
    sentences = [sentence for one in listed for sentence in not_taken(one, "")]
    return Found(images, labels, *folders, [*doubled_images, *doubled_labels], sentences)


# ------------------------------------------------------------------------------ layouts with splits


class Branch(NamedTuple):
    """A folder of images below the root and the folder of their labels; `{split}` stands for the
    split. The names of its samples begin with `prefix`."""

    images: str
    labels: str
    prefix: str = ""


@dataclass(frozen=True)
class Split:
    """Images and labels in folders of their own for each split, as Cityscapes has them.

    Partners have the same path below these folders, but for the ending.

    Attributes:
        title: of the data set.
        branches: the folders, all of which must be there; given the root and whether labels are
            needed.
        formats: by the ending of a label's name, before its suffix, what it holds; of several
            labels of an image the last one counts.
        ending: of an image's name, before its suffix.
        unlabelled: the splits without labels.
    """

    title: str
    branches: Callable[[Path, bool], Sequence[Branch]]
    formats: Mapping[str, LabelFormat]
    ending: str = ""
    unlabelled: tuple[str, ...] = ()

    def found(self, root: Path, split: str, settings: DataSettings) -> Found:
        try:
            branches = self.branches(root, True)
        except UserError:
            branches = self.branches(root, False)
        return self._found(root, branches, split)

    def labelled(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        if split in self.unlabelled:
            raise UserError(
                f"{root}: {self.title} has no labels of its {split} split, which are needed here: "
                "name another data set with --source"
            )
        found = self._found(root, self.branches(root, True), split)
        use = "supervised training" if split == "train" else "scoring"
        remedy = f"unpack the labels of the {split} split of {self.title} there, which {use} needs"
        existing_folder(found.label_folder, remedy)
        self._check_images(found, split)
        check_partners(found)
        samples = [one._replace(label=found.labels[one.place]) for one in _samples(found)]
        return [one._replace(kind=self.label_format(one.label_path)) for one in samples]

    def images(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        found = self._found(root, self.branches(root, False), split, labels=False)
        self._check_images(found, split)
        check_doubled(found)
        return _samples(found)

    def label_format(self, label: Path) -> LabelFormat:
        return next(
            kind for ending, kind in reversed([*self.formats.items()]) if is_named(label, ending)
        )

    def has_labels(self, root: Path, split: str, settings: DataSettings) -> bool:
        return split not in self.unlabelled

    def no_images(self, folder: Path, split: str) -> str:
        """See `Layout`; says how many pictures only lack the ending."""
        if others := otherwise_named(listing(folder, deep=True), self.ending):
            first = others[0]
            count = len(others)
            pictures = "1 picture there is" if count == 1 else f"{count} pictures there are"
            return (
                f"{folder}: {pictures} not named *{self.ending}.png or .jpg, such as {first.name}: "
                f"rename them, for example to {first.stem}{self.ending}{first.suffix}"
            )
        return f"{folder} holds no *{self.ending}.png or .jpg files: {self._remedy(split)}"

    def _check_images(self, found: Found, split: str) -> None:
        if not found.images:
            raise UserError(self.no_images(found.image_folder, split))

    def _found(
        self, root: Path, branches: Sequence[Branch], split: str, *, labels: bool = True
    ) -> Found:
        several = [self._in_branch(root, branch, split, labels=labels) for branch in branches]
        return several[0]._replace(
            images={name: path for one in several for name, path in one.images.items()},
            labels={name: path for one in several for name, path in one.labels.items()},
            doubled=[pair for one in several for pair in one.doubled],
            left_out=[sentence for one in several for sentence in one.left_out],
        )

    def _in_branch(self, root: Path, branch: Branch, split: str, *, labels: bool) -> Found:
        folder = existing_folder(root / branch.images.format(split=split), self._remedy(split))
        label_folder = root / branch.labels.format(split=split)
        listed = listing(folder, deep=True)
        images, doubled = by_name(listed.paths, folder, self.ending, branch.prefix)
        found = Found(images, {}, folder, label_folder, doubled, not_taken(listed, self.ending))
        if not labels or not label_folder.is_dir():
            return found
        listed = listing(label_folder, deep=True)
        partners: dict[str, Path] = {}
        for ending in self.formats:
            of_ending, doubled_labels = by_name(listed.paths, label_folder, ending, branch.prefix)
            partners |= of_ending
            doubled += doubled_labels
        left_out = [*found.left_out, *not_taken(listed)]
        return found._replace(labels=partners, doubled=doubled, left_out=left_out)

    def _remedy(self, split: str) -> str:
        return f"unpack the {split} split of {self.title} there"


def fixed(*branches: Branch) -> Callable[[Path, bool], Sequence[Branch]]:
    """Return a function that gives the same folders whatever the root holds."""
    return lambda _root, _labelled: branches


def _samples(found: Found) -> list[SampleFiles]:
    """Return the images in the order of their names, and say what is left out."""
    for sentence in found.left_out:
        say_once(sentence)
    samples = [
        SampleFiles(name, found.images[place], place=place)
        for place, name in _short_names(found.images).items()
    ]
    return sorted(samples, key=lambda one: one.name)


def _short_names(places: Iterable[str]) -> dict[str, str]:
    """Return the names of samples by their paths below the split: without the city, which official
    names begin with, unless several cities have a sample of that name."""
    short = {place: place.rpartition("/")[2] for place in places}
    counts = Counter(short.values())
    return {place: name if counts[name] == 1 else place for place, name in short.items()}
