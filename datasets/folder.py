"""A folder of your own: pictures of any names and sizes, nested as you like.

<folder>/…                                  pictures and videos, without any label
<folder>/{images,labels}/…                  labels under the names of their images, as PNGs of train
                                            ids; a share of them validates
<folder>/{train,val}/…                      with a validation split, each split as above; without
                                            train/ where val/ is only scored
<folder>/{images,labels}/{train,val}/…      the same, the other way round
<file>                                      a video
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from datasets.data_set import DataSet
from datasets.inputs import is_video
from datasets.labels import TRAIN_IDS, LabelFormat
from datasets.layouts import chosen_names, found_in_split
from datasets.listing import OTHER_PICTURES, PICTURES, left_out_sentences
from datasets.options import DataSettings
from datasets.pairing import Found, by_name, check_partners, listing, not_taken
from datasets.reading import SampleFiles
from datasets.video import UnreadableVideo, frames_of
from utils.errors import UserError
from utils.notes import say_once

FEWEST = 2
"""Images without labels that something can be learned from: statistics need two."""

OWN_LABELS = replace(
    TRAIN_IDS,
    remedy="if these are ids of your own classes, name their table with --classes FILE, else save "
    "the label with train ids of Cityscapes",
)
"""The labels of a folder where no classes are named."""

OTHER_LAYOUTS = {
    "leftImg8bit": "cityscapes",
    "gtFine": "cityscapes",
    "Cityspaces": "cityscapes",
    "rgb_anon": "acdc or dark_zurich",
    "images/10k": "bdd100k",
    "GT/LABELS": "synthia",
    "trainannot": "camvid",
}
"""Folders that are found in the layouts of other data sets."""


class Places(NamedTuple):
    """The folders of a split's images and labels, and whether both are this split's alone."""

    images: Path
    labels: Path
    is_split: bool


class Folder:
    """See `Layout`."""

    def found(self, root: Path, split: str, settings: DataSettings) -> Found:
        places = _places(root, split)
        if not places.labels.is_dir():
            if split == "val" and not places.is_split:
                return Found({}, {}, places.images, places.labels)
            samples, left_out = _samples(places.images, settings)
            images = {one.name: one.image for one in samples}
            return Found(images, {}, places.images, places.labels, [], left_out)
        found = _found(places)
        if places.is_split:
            return found
        return found_in_split(found, split, settings.gta5_val_fraction)

    def labelled(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        places = _places(root, split)
        if not places.labels.is_dir():
            inside = "val/images/ and val/labels/" if split == "val" else "images/ and labels/"
            raise UserError(
                f"{root} has no labels of its {split} split, which are needed here: make {inside} "
                "there, with a PNG of train ids (or the ids of --classes) for each image, under "
                "its name"
                + ("; images without labels go into train/images/" if split == "val" else "")
            )
        found = _found(places)
        for sentence in found.left_out:
            say_once(sentence)
        check_partners(found)
        names = sorted(found.images)
        if not places.is_split:
            fraction = settings.gta5_val_fraction
            names = chosen_names(names, root, split, fraction)
            if split == "val":
                say_once(
                    f"{root}: {len(names)} of its images are scored (--gta5_val_fraction "
                    f"{fraction:g}): to choose them yourself, move them into val/images/ and "
                    "val/labels/ there, and the others into train/"
                )
        return [_sample(name, found.images[name], found.labels[name]) for name in names]

    def images(self, root: Path, split: str, settings: DataSettings) -> list[SampleFiles]:
        places = _places(root, split)
        if places.labels.is_dir() and not places.is_split:
            return [one._replace(label=None) for one in self.labelled(root, split, settings)]
        samples, left_out = _samples(places.images, settings)
        for sentence in left_out:
            say_once(sentence)
        if len(samples) < FEWEST:
            of_video = not all(one.photo for one in samples)
            raise UserError(self.no_images(places.images, split, len(samples), of_video))
        return samples

    def label_format(self, label: Path) -> LabelFormat:
        return OWN_LABELS

    def has_labels(self, root: Path, split: str, settings: DataSettings) -> bool:
        places = _places(root, split)
        has_split = places.is_split or split == "train" or settings.gta5_val_fraction > 0
        return has_split and places.labels.is_dir()

    def no_images(self, folder: Path, split: str, count: int = 0, of_video: bool = False) -> str:
        images = "1 image" if count == 1 else f"{count or 'no'} images"
        remedy = "put more there, in one of these formats"
        if of_video:
            remedy = "take more frames of the video, with a lower --frame_step"
        return (
            f"{folder} holds {images} ({', '.join(PICTURES)}, frames of a video), and {FEWEST} are "
            f"needed at least: {remedy}"
        )


def _places(root: Path, split: str) -> Places:
    """Return where the files of the folder lie. Raise UserError where it has the layout of another
    data set, or is incomplete."""
    if root.is_file() and not is_video(root):
        raise UserError(f"{root} is no video: name a folder of pictures, or a video")
    for name, row in OTHER_LAYOUTS.items():
        if (root / name).is_dir():
            raise UserError(
                f"{root} holds {name}, as {row} has it: name that data set with --source or "
                f"--target, and this folder with --source_root or --target_root {root}"
            )
    only_scored = (root / "val" / "labels").is_dir() and not (root / "images").is_dir()
    if (root / "train").is_dir() or only_scored:
        return _inside(root / split, is_split=True)
    if (root / "images" / "train").is_dir():
        return Places(root / "images" / split, root / "labels" / split, is_split=True)
    return _inside(root, is_split=False)


def _inside(base: Path, *, is_split: bool) -> Places:
    images, labels = base / "images", base / "labels"
    if labels.is_dir() and not images.is_dir():
        raise UserError(f"{base} holds labels/ but no images/: put the images there")
    return Places(images if images.is_dir() else base, labels, is_split)


def _found(places: Places) -> Found:
    """Return the pictures and the labels."""
    images, left_out = _pictures(places.images)
    stems: dict[str, Path] = {}
    doubled = []
    for path in images.values():
        stem = path.relative_to(places.images).with_suffix("").as_posix()
        first = stems.setdefault(stem, path)
        if first is not path:
            doubled.append((first, path))
    listed = listing(places.labels, deep=True)
    labels, doubled_labels = by_name(listed.paths, places.labels)
    left_out = [*left_out, *not_taken(listed, "")]
    return Found(stems, labels, *places[:2], [*doubled, *doubled_labels], left_out)


def _pictures(folder: Path) -> tuple[Mapping[str, Path], Sequence[str]]:
    """Return the pictures below a folder by their names, and sentences about what is left out.

    A name is the path below the folder without the suffix, which only pictures keep that differ in
    nothing else.
    """
    if not folder.is_dir():
        return {}, []
    listed = listing(folder, deep=True)
    files = [path for path in listed.paths if path.suffix.lower() in PICTURES]
    others = [path for path in listed.paths if path.suffix.lower() in OTHER_PICTURES]
    reasons = {**listed.left_out(), "of a format that cannot be read; save them as JPEG": others}
    places = [path.relative_to(folder) for path in files]
    counts = Counter(place.with_suffix("") for place in places)
    pictures = {
        (place.with_suffix("") if counts[place.with_suffix("")] == 1 else place).as_posix(): path
        for place, path in zip(places, files, strict=True)
    }
    return pictures, left_out_sentences(reasons)


def _samples(folder: Path, settings: DataSettings) -> tuple[list[SampleFiles], Sequence[str]]:
    """Return the pictures below a folder and the frames of its videos, and sentences about what is
    left out."""
    pictures, left_out = _pictures(folder)
    samples = [_sample(name, pictures[name]) for name in sorted(pictures)]
    for name, video in sorted(_videos(folder).items()):
        try:
            samples += frames_of(video, name, step=settings.frame_step, cache=settings.cache_dir)
        except UnreadableVideo as error:
            if video == folder:
                raise
            left_out = [*left_out, f"left out: {error}"]
    return samples, left_out


def _videos(folder: Path) -> Mapping[str, Path]:
    """Return the videos below a folder, or the one that stands in its place, by their names."""
    if is_video(folder):
        return {folder.stem: folder}
    if not folder.is_dir():
        return {}
    videos = (path for path in listing(folder, deep=True).paths if is_video(path))
    return {path.relative_to(folder).as_posix().replace(".", "_"): path for path in videos}


def _sample(name: str, image: Path, label: Path | None = None) -> SampleFiles:
    return SampleFiles(name, image, label, OWN_LABELS, name, photo=True)


ROW = DataSet("folder", "folder", Folder(), photos=True)
