"""Class tables as files: `--classes`, and what runs and checkpoints record.

id,name,colour          CSV with these columns; JSON is a list of objects with these names.
0,road,#804080          A colour is #rrggbb, or three numbers of 0 to 255.
7,kerb,200 100 0
99,ignored,             The value 99 stands for no class, as 255 does anyway.
"""

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.labels import CITYSCAPES, CLASS_TABLE, HEAD, IGNORE, IGNORED, USUAL, ClassTable, Color
from utils.errors import UserError, check_is_file
from utils.utils import find_input

FEWEST, MOST = 2, 255
SPELLINGS = {"color": "colour"}
FORM = "id, name and colour in each row, such as 0, road, #804080"


def read_classes(path: Path) -> ClassTable:
    """Return the table in a CSV or JSON file; of a run's settings.json the one of the run.

    Raise UserError where it is none, or a class has no id, name or colour of its own.
    """
    path = find_input(path, "classes")
    check_is_file(path, likely=("*.csv", "settings.json"))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): name a CSV or JSON file") from error
    return parsed(text, path)


def recorded_classes(recorded: Any, place: Path) -> ClassTable:
    """Return the table that a run or a checkpoint at this place has recorded; that of Cityscapes
    where it has recorded none, as before there were others. Raise UserError for any other."""
    if recorded in (None, USUAL):
        return CITYSCAPES
    return parsed(str(recorded), place)


def parsed(text: str, place: Path) -> ClassTable:
    """Return the table in a text, which is from this place."""
    rows = _json_rows(text, place) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text, place)
    if isinstance(rows, ClassTable):
        return rows
    classes: dict[int, tuple[str, Color]] = {}
    ignored: list[int] = []
    for number, row in enumerate(rows, start=1):
        where = f"{place}, class {number}"
        value, name = _id(row, where), str(row.get("name") or "").strip()
        if not name:
            raise UserError(f"{where} (id {value}) has no name: give {FORM}")
        if value in classes or value in ignored:
            other = classes[value][0] if value in classes else IGNORED
            raise UserError(
                f"{place}: the id {value} stands for {other} and for {name}: give each class an id "
                "of its own"
            )
        if name == IGNORED:
            ignored.append(value)
            continue
        if name in (known for known, _ in classes.values()):
            raise UserError(f"{place}: two classes are called {name}: give each a name of its own")
        classes[value] = name, _color(row.get("colour"), f"{where} ({name})")
    if not FEWEST <= len(classes) <= MOST:
        raise UserError(
            f"{place} holds {len(classes)} {'class' if len(classes) == 1 else 'classes'}: give "
            f"{FEWEST} to {MOST}, with {FORM}"
        )
    table = ClassTable(
        names=tuple(name for name, _ in classes.values()),
        colors=tuple(color for _, color in classes.values()),
        ids=tuple(classes),
        ignored=tuple(value for value in ignored if value != IGNORE),
    )
    return CITYSCAPES if table == CITYSCAPES else table


def _csv_rows(text: str, place: Path) -> list[Mapping[str, Any]]:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True, restkey="more")
    names = [_column(name) for name in rows.fieldnames or ()]
    if missing := [name for name in HEAD if name not in names]:
        raise UserError(
            f"{place} has no column {', '.join(missing)}: give {','.join(HEAD)} as its first line"
        )
    rows.fieldnames = names
    try:
        return [row for row in rows if any(row.values())]
    except csv.Error as error:
        raise UserError(f"{place} is not a CSV file ({error}): give {FORM}") from error


def _json_rows(text: str, place: Path) -> list[Mapping[str, Any]] | ClassTable:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place} is not JSON ({error}): give a list of objects with {FORM}"
        ) from error
    if isinstance(rows, Mapping) and "action" in rows:
        return recorded_classes(rows.get(CLASS_TABLE), place)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(f"{place} is no list of objects: give {FORM}")
    return [{_column(name): value for name, value in row.items()} for row in rows]


def _column(name: Any) -> str:
    name = str(name).strip().lower()
    return SPELLINGS.get(name, name)


def _id(row: Mapping[str, Any], where: str) -> int:
    given = row.get("id")
    text = "" if given is None else str(given).strip()
    if not re.fullmatch(r"\d{1,3}", text) or int(text) > IGNORE:
        raise UserError(
            f"{where} has {f'the id {text}' if text else 'no id'}: give a whole number from 0 to "
            f"{IGNORE - 1}, as it stands in the label files"
        )
    if int(text) == IGNORE and str(row.get("name")).strip() != IGNORED:
        raise UserError(f"{where} has the id {IGNORE}, which stands for no class: give it another")
    return int(text)


def _color(given: Any, where: str) -> Color:
    parts = _parts(given)
    if len(parts) != 3 or max(parts) > 255:
        found = "no colour" if given in (None, "", []) else f"the colour {given}"
        raise UserError(f"{where} has {found}: give #rrggbb, or three numbers from 0 to 255")
    red, green, blue = parts
    return red, green, blue


def _parts(given: Any) -> list[int]:
    """Return the numbers of a colour, as many as there are; none for anything else."""
    if isinstance(given, list):
        given = " ".join(map(str, given))
    text = str(given or "").strip()
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return list(bytes.fromhex(text[1:]))
    words = re.split(r"[\s,;]+", text.strip("()[]"))
    return [int(word) for word in words if re.fullmatch(r"\d{1,3}", word)]
