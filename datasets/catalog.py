"""The table of data sets; where the files of source and target are, and how they are resized."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets import acdc, bdd100k, camvid, cityscapes, dark_zurich, folder, gta5, synthia
from datasets.data_set import DataSet, Role, Subset
from datasets.labels import CITYSCAPES, LabelFormat
from datasets.options import DATA_SETS, DataSettings
from datasets.reading import SampleFiles
from datasets.toy_city import drawn_from
from utils.errors import UserError
from utils.notes import say_once
from utils.text import first_few
from utils.transforms import Preparation
from utils.utils import find_input

ROWS: Mapping[str, DataSet] = {
    row.name: row
    for row in (
        gta5.ROW,
        cityscapes.ROW,
        synthia.ROW,
        *acdc.ROWS,
        dark_zurich.ROW,
        bdd100k.ROW,
        camvid.ROW,
        folder.ROW,
    )
}
"""The data sets by the word after `--source` and `--target`."""

assert tuple(ROWS) == DATA_SETS


class TrainingFiles(NamedTuple):
    """The files of a source or target for a training.

    Attributes:
        origin: tells apart labels of the same names.
        problem: why nothing should be trained on them, if so.
        note: what is said of them where a training begins.
    """

    role: Role
    files: Sequence[SampleFiles]
    origin: str = ""
    problem: str | None = None
    note: str = ""


def row_of(role: Role, settings: DataSettings) -> DataSet:
    """Return the row of the data set that the settings name as source or target."""
    return ROWS[getattr(settings, role.value)]


def scored_subsets(settings: DataSettings) -> tuple[Subset, ...]:
    """Return the classes whose means are reported for this source and target beside that of all."""
    known = {*settings.class_table.names}
    subsets = (subset for role in Role for subset in row_of(role, settings).subsets)
    return tuple(subset for subset in dict.fromkeys(subsets) if known.issuperset(subset.names))


def root_of(role: Role, settings: DataSettings) -> Path:
    """Return the folder of the source or target. Raise UserError where it is missing."""
    flag = f"{role.value}_root"
    if getattr(settings, flag) is None:
        flag = row_of(role, settings).root_flag or flag
    return find_input(named_root(role, settings), flag)


def named_root(role: Role, settings: DataSettings) -> Path:
    """Return the folder of the source or target as the settings name it, whether it exists or
    not."""
    if root := getattr(settings, f"{role.value}_root"):
        return root
    row = row_of(role, settings)
    return getattr(settings, row.root_flag) if row.root_flag else Path(row.home or row.title)


def name_of(role: Role, settings: DataSettings) -> str:
    """Name of the source or target in print and in files, such as "Cityscapes"."""
    return title_of(getattr(settings, role.value), getattr(settings, f"{role.value}_root"))


def recorded_title(role: Role, recorded: Mapping[str, Any]) -> str:
    """Return the name of the source or target in a run's recorded settings."""
    return title_of(recorded[role.value], recorded[f"{role.value}_root"])


def title_of(name: str, root: Path | str | None) -> str:
    """Name in print and in files of a row's data set: of `folder` that of the folder itself."""
    if name == folder.ROW.name and root is not None:
        return Path(root).name.strip(".") or Path(root).resolve().name
    return ROWS[name].title


def data_set(role: Role, settings: DataSettings) -> str:
    """Return the name of the data that lie there: the data set's, or that of Toy City."""
    seed, row = drawn_from(root_of(role, settings)), row_of(role, settings)
    if seed is None or not row.look:
        return name_of(role, settings)
    city = f"Toy City of seed {seed}" if seed else "Toy City"
    return f"{city}, {row.look}"


def labelled(role: Role, split: str, settings: DataSettings) -> list[SampleFiles]:
    """Return the files of a split, "train" or "val"."""
    files = row_of(role, settings).layout.labelled(root_of(role, settings), split, settings)
    return [one._replace(kind=format_for(role, one.kind, settings)) for one in files]


def format_for(role: Role, kind: LabelFormat, settings: DataSettings) -> LabelFormat:
    """Return the format of the role's labels for the settings' classes: a folder's labels hold
    their ids, those of every other data set are classes of Cityscapes, which go by their names."""
    if settings.class_table == CITYSCAPES:
        return kind
    if row_of(role, settings) is folder.ROW:
        return settings.class_table.own_ids
    named = kind.named_in(settings.class_table)
    if not named.scored:
        title, names = name_of(role, settings), first_few(settings.class_table.names)
        raise UserError(
            f"{title} has none of the classes of --classes ({names}): those of {title} go by "
            "the names of Cityscapes' classes, such as road: use these, or name a folder whose "
            "labels hold your ids"
        )
    known = {settings.class_table.names[i] for i in named.to_train_ids(np.array(named.scored))}
    if missing := [name for name in settings.class_table.names if name not in known]:
        say_once(f"{name_of(role, settings)} has no labels of {first_few(missing)}")
    return named


def unlabelled(role: Role, split: str, settings: DataSettings) -> list[SampleFiles]:
    """Return the images of a split; their labels are not read, and need not exist."""
    return row_of(role, settings).layout.images(root_of(role, settings), split, settings)


def has_labels(role: Role, split: str, settings: DataSettings) -> bool:
    """Return whether the images of a split should have labels."""
    return row_of(role, settings).layout.has_labels(root_of(role, settings), split, settings)


def resize_size(role: Role, settings: DataSettings) -> tuple[int, int]:
    """Return the size that images are resized to, or to cover: (height, width)."""
    return settings.source_resize if role is Role.SOURCE else settings.image_size


def preparation(role: Role, settings: DataSettings, *, resizes_label: bool) -> Preparation:
    """Return how the images of the source or target are resized before any crop."""
    stretch = row_of(role, settings).stretch
    return Preparation(resize_size(role, settings), resizes_label, stretch)


def fingerprint(*parts: Sequence[SampleFiles] | str) -> str:
    """Return a digest of the names of all samples, and of the words given: equal for the same data,
    wherever they lie. Users' own files, whose names other files may have, add their sizes."""
    words = [part if isinstance(part, str) else [_word(one) for one in part] for part in parts]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _word(files: SampleFiles) -> str | tuple[str, int]:
    return (files.name, files.image.stat().st_size) if files.photo else files.name
