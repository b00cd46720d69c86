"""Toy City on disk, in the layouts of GTA5 and Cityscapes."""

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from datasets.labels import LABEL_ID_TO_TRAIN_ID, colorize
from datasets.loading.batches import each_item
from datasets.toy_city.looks import CAMERA_STRENGTH
from datasets.toy_city.scenes import Scene, draw_scene
from utils.disk.files import json_object, remove_unfinished, written_whole
from utils.disk.lock import locked
from utils.errors import UserError, check_is_file, naming

FORMAT_VERSION = 1  # to be raised when the same seed gives other pictures
MARKER = "toy_city.json"
"""The file that names a folder as Toy City: at its root, and in each of its two data sets, since
these may be copied elsewhere."""

LOCK = ".lock"
"""The file at the root that stands for the right to draw the city."""

ABOUT = "Toy City: street scenes drawn by a program in the layout of {0}, not the data set {0}"
GTA5, CITYSCAPES = "GTA5", "Cityscapes"
SOURCE_STREAM, TRAIN_STREAM, VAL_STREAM = range(3)  # independent random numbers for each
CITIES = {"train": "toyburg", "val": "toyhaven"}
FRAME_NUMBER = 19  # the annotated frame of each Cityscapes sequence

Pictures = dict[Path, Image.Image]


class _Job(NamedTuple):
    """A scene to draw: its place in a stream of random numbers, its look, and the function that
    makes its pictures."""

    stream: int
    number: int
    look: str
    pictures: Callable[[Scene, int], Pictures]


def _draw(root: Path, size: tuple[int, int], seed: int, job: _Job) -> int:
    """Draw a scene, save its pictures, and return its number."""
    scene = draw_scene((seed, job.stream, job.number), size, job.look)
    for path, picture in job.pictures(scene, job.number).items():
        save_picture(root / path, picture)
    return job.number


def make_toy_city(
    root: Path,
    *,
    train: int,
    val: int,
    size: tuple[int, int],
    seed: int,
    workers: int = 0,
    progress: Callable[..., Iterable] = tqdm,
) -> None:
    """Write a game-look GTA5 and a camera-look Cityscapes under `root`, unless they are there.

    GTA5 gets a quarter more than `train` scenes, since a fifth of all will be its validation split.
    A second process that makes the same city waits for the first one. `workers` processes draw it;
    with 0 this one does.
    """
    asked: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "camera_strength": CAMERA_STRENGTH,
        "train": train,
        "val": val,
        "size": list(size),
        "seed": seed,
    }
    if not is_complete(root, asked):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / LOCK, wait=True):
            if not is_complete(root, asked):  # nor has another process made it meanwhile
                _make(root, asked, workers, progress)
                return
    print(f"{root} holds this Toy City already")


def _make(root: Path, asked: dict, workers: int, progress: Callable[..., Iterable]) -> None:
    train, val, size, seed = (asked[name] for name in ("train", "val", "size", "seed"))
    for name in (GTA5, CITYSCAPES):
        remove_unfinished((root / name).rglob(".*.tmp"))
    save_marker(root, asked | {"complete": False})
    for name in (GTA5, CITYSCAPES):
        save_marker(root / name, {"about": ABOUT.format(name)} | asked)
    source_scenes = train + math.ceil(train / 4)
    jobs = [
        *(_Job(SOURCE_STREAM, i, "game", gta5_pictures) for i in range(source_scenes)),
        *(_Job(TRAIN_STREAM, i, "camera", partial(city_pictures, "train")) for i in range(train)),
        *(_Job(VAL_STREAM, i, "camera", partial(city_pictures, "val")) for i in range(val)),
    ]
    drawn = each_item(partial(_draw, root, tuple(size), seed), jobs, num_workers=workers)
    for _ in progress(drawn, "Toy City", total=len(jobs), unit="scene"):
        pass
    save_marker(root, asked | {"complete": True})


def drawn_from(data_set: Path) -> int | None:
    """Return the seed of the Toy City that a data set's folder is part of; None for other data.

    Older cities have a marker at their root alone, beside which other data may lie. Raises
    UserError where a marker is not readable.
    """
    folder = data_set.resolve()
    if (folder / MARKER).exists():
        return read_marker(folder / MARKER).get("seed", 0)
    if (folder.parent / MARKER).exists():
        asked = read_marker(folder.parent / MARKER)
        if _drew(folder, asked):
            return asked.get("seed", 0)
    return None


def _drew(folder: Path, asked: dict) -> bool:
    """Return whether the pictures in a data set's folder are of the city that was asked for:
    Cityscapes' lie in its cities, GTA5's are of its size."""
    if any((folder / "leftImg8bit" / split / city).exists() for split, city in CITIES.items()):
        return True
    try:
        with Image.open(folder / "images" / "00001.png") as picture:
            return [picture.height, picture.width] == asked.get("size")
    except OSError:  # there is none, or none that can be read
        return False


def is_complete(root: Path, asked: dict) -> bool:
    """Return whether the asked-for Toy City is there. Raise UserError for a folder that holds
    something else."""
    marker = root / MARKER
    if marker.exists():
        found = read_marker(marker)
        if found | asked != found:
            raise UserError(
                f"{root} holds a Toy City with {_listed(found, asked)}, but asked for is one with "
                f"{_listed(asked, asked)}: choose another --toy_root or delete the folder"
            )
        return found["complete"]
    for folder in (root / GTA5, root / CITYSCAPES):
        if folder.exists():
            raise UserError(
                f"{folder} exists and {marker} does not, so it may be real data and is left alone: "
                "choose another --toy_root"
            )
    return False


def _listed(values: dict, names: Iterable[str]) -> str:
    return ", ".join(f"{name} {values.get(name)}" for name in names)


def read_marker(marker: Path) -> dict:
    """Return what a marker says of its city. Raise UserError where it is not readable."""
    check_is_file(marker)
    try:
        return json_object(marker)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{marker} is not readable ({error}): delete this file if the data are not Toy City's, "
            "else delete the city or choose another --toy_root"
        ) from error


def save_marker(folder: Path, content: dict) -> None:
    """Write the file that names a folder as Toy City."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MARKER
    with naming(path), written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def gta5_pictures(scene: Scene, index: int) -> Pictures:
    """Return an image and its palette label, whose indices are label ids in Cityscapes' colours."""
    label = Image.fromarray(scene.label_ids)
    label.putpalette(colorize(LABEL_ID_TO_TRAIN_ID).tobytes())
    name, root = f"{index + 1:05d}.png", Path(GTA5)
    return {root / "images" / name: Image.fromarray(scene.image), root / "labels" / name: label}


def city_pictures(split: str, scene: Scene, index: int) -> Pictures:
    """Return an image and its labels in Cityscapes' layout: label ids, train ids and colours."""
    city, train_ids = CITIES[split], LABEL_ID_TO_TRAIN_ID[scene.label_ids]
    name, root = f"{city}_{index:06d}_{FRAME_NUMBER:06d}", Path(CITYSCAPES)
    labels = {"labelIds": scene.label_ids, "labelTrainIds": train_ids, "color": colorize(train_ids)}
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    return {image: Image.fromarray(scene.image)} | {
        root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png": Image.fromarray(label)
        for kind, label in labels.items()
    }


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write the whole file or none, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), written_whole(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=1)  # quick rather than small
