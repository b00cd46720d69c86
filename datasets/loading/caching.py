"""Building the caches of samples, in parallel, once, whoever else wants the same."""

import functools
import itertools
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from datasets.cache import FORMAT, NO_CACHE, READERS, CachedPairs, Pictures, PictureStore, digest_of
from datasets.labels import PSEUDO_LABELS, SOFT_LABELS
from datasets.loading.batches import each_item
from datasets.options import DataSettings
from datasets.reading import SampleFiles, picture_size, read_label
from datasets.samples import SampleDataset, as_tv_tensors
from utils.disk.lock import locked
from utils.errors import UserError
from utils.text import in_gigabytes
from utils.transforms import Preparation, Size
from utils.utils import progress

MARK_EVERY = 256
"""Samples between two times that what was built is made safe."""

RESERVE = 1.1
"""Free disk that is asked for, in sizes of the cache."""

FORMAT_FILE = "format"
"""The file in a cache's folder that holds the `FORMAT` of the latest release that built there."""


def prepared_sizes(files: Sequence[SampleFiles], preparation: Preparation) -> list[Size]:
    """Return the sizes of the prepared images, as their headers say. An image that cannot be read
    counts as one of the usual size: decoding it will raise the error."""
    sizes = _header_sizes(tuple((one.image, one.photo) for one in files))
    prepared = [size and preparation.fitted(size) for size in sizes]
    usual = next(filter(None, prepared), preparation.size)
    return [size or usual for size in prepared]


@functools.lru_cache(maxsize=8)
def _header_sizes(images: tuple[tuple[Path, bool], ...]) -> tuple[Size | None, ...]:
    """Return the sizes of pictures, None for those that cannot be read; read once a process."""
    with ThreadPoolExecutor(READERS) as readers:
        return tuple(readers.map(_size_if_readable, images))


def _size_if_readable(image: tuple[Path, bool]) -> Size | None:
    path, photo = image
    try:
        return picture_size(path, photo=photo)
    except UserError:
        return None


def attach_cache(
    samples: SampleDataset,
    preparation: Preparation,
    sizes: Sequence[Size],
    settings: DataSettings,
    *,
    build: bool,
) -> None:
    """Let the samples come from their cache if it is whole; with `build`, complete it first.
    `sizes` are those of the prepared images.

    Pseudo-labels are read from their own files: they are small, and a cache of them would outlive
    them, for every making has new ones. Where what cannot be read is skipped they are in a cache
    all the same, because an image may stand there in another one's place.

    Goes on without one, and says so, where the disk is too small or cannot be written. Raises
    UserError for a file that cannot be read.
    """
    if settings.cache_dir == NO_CACHE or not samples.files:
        return
    if samples.skips_bad and samples.files[0].kind.soft:
        print("no cache: with --on_bad_sample skip there is none of soft pseudo-labels")
        return
    if samples.skips_bad and len(set(sizes)) > 1:  # which one stands for a bad one is not known yet
        print(
            "no cache: with --on_bad_sample skip all pictures must have the same proportions for "
            "one; every epoch decodes them anew"
        )
        return
    try:
        images, labels = _pictures(samples, preparation, sizes, settings.cache_dir)
    except OSError as error:  # a link to nowhere, or to itself
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): mend it") from error
    stores = [store for store in (images, labels) if isinstance(store, PictureStore)]
    try:
        if any(store.missing() for store in stores):
            if not build:
                return
            settings.cache_dir.mkdir(parents=True, exist_ok=True)
            with locked(settings.cache_dir / "lock", wait=True):
                _name_older_stores(settings.cache_dir, stores)
                if not _build(samples, preparation, stores, settings):
                    return
    except OSError as error:
        print(f"no cache in {settings.cache_dir} ({error.strerror}): every epoch decodes anew")
        return
    samples.cached = CachedPairs(images, labels, range(len(samples.files)))


def _pictures(
    samples: SampleDataset, preparation: Preparation, sizes: Sequence[Size], folder: Path
) -> tuple[PictureStore, Pictures | None]:
    """Return the images and, where there are any, the labels. Their stores have names of their own,
    so that a set with and without labels has its images once, unless a bad label may replace an
    image."""
    files, size = samples.files, (preparation.size, preparation.stretch)
    skipping = f", bad skipped, labels {files[0].label is not None}" if samples.skips_bad else ""
    how = f"image {size}{skipping}" + ", photos" * any(one.photo for one in files)
    digest = digest_of([one.image for one in files], how)
    images = PictureStore(folder, digest, [(3, *size) for size in sizes])
    if files[0].label is None:
        return images, None
    if files[0].kind in (PSEUDO_LABELS, SOFT_LABELS) and not samples.skips_bad:
        return images, _PseudoLabels(files)
    how = f"label {size if preparation.resizes_label else 'own size'}{skipping}"
    paths = [one.label_path for one in files]
    digest = digest_of(paths, f"{how} {[one.kind.name for one in files]}")
    shapes = sizes if preparation.resizes_label else [picture_size(path) for path in paths]
    return images, PictureStore(folder, digest, shapes)


class _PseudoLabels:
    """Labels as they lie in their own files, by their places, in the place of a store."""

    def __init__(self, files: Sequence[SampleFiles]):
        self.files = files

    def read(self, place: int) -> np.ndarray:
        """Return a label, uint8 [h, w] or [2 k, h, w]. Raise UserError where it cannot be read."""
        return read_label(self.files[place].label_path, self.files[place].kind)


def _name_older_stores(folder: Path, stores: Sequence[PictureStore]) -> None:
    """Print once which files of an earlier release lie in a cache's folder.

    They are left alone, because another checkout may still use them.
    """
    marker = folder / FORMAT_FILE
    if marker.exists() and marker.read_text().strip() == str(FORMAT):
        return
    own = {store.pixels_path for store in stores}
    older = sorted(path for path in folder.glob("*.u8") if path not in own)
    if older:
        names = ", ".join(path.name for path in older)
        size = sum(path.stat().st_size for path in older)
        print(
            f"note: {folder} holds {in_gigabytes(size)} of an earlier release, which are not used "
            f"any more: delete {names}, and the .sums file beside each"
        )
    marker.write_text(f"{FORMAT}\n")


def _build(
    samples: SampleDataset,
    preparation: Preparation,
    stores: Sequence[PictureStore],
    settings: DataSettings,
) -> bool:
    """Build what is missing in the stores of images and labels; return whether they are whole."""
    missing = [set(store.missing()) for store in stores]
    places = sorted(set().union(*missing))
    needed = sum(store.nbytes for store, lacks in zip(stores, missing, strict=True) if lacks)
    free = shutil.disk_usage(settings.cache_dir).free + sum(map(_occupied, stores))
    if free < RESERVE * needed:
        print(
            f"no cache: it would take {in_gigabytes(needed)} in {settings.cache_dir}, where "
            f"{in_gigabytes(free)} are free; every epoch decodes anew (--cache_dir names another "
            "folder)"
        )
        return False
    if places:
        print(f"cache of {len(samples)} samples: {in_gigabytes(needed)} in {settings.cache_dir}")
        for store in stores:
            store.create()
        write = functools.partial(_write, samples, preparation, stores)
        items = each_item(write, places, num_workers=settings.workers)
        written = iter(progress(items, "cache", total=len(places), unit="image"))
        while part := list(itertools.islice(written, MARK_EVERY)):
            for store in stores:
                store.mark(part)
    return True


def _occupied(store: PictureStore) -> int:
    """Return the bytes of the disk that the store's file holds already."""
    try:
        return 512 * store.pixels_path.stat().st_blocks
    except FileNotFoundError:
        return 0


def _write(
    samples: SampleDataset, preparation: Preparation, stores: Sequence[PictureStore], place: int
) -> int:
    """Write a sample into the stores, in a worker, and return its place.

    A picture that a store has already is written again, byte for byte the same. Raise UserError for
    a file that cannot be read.
    """
    pair = preparation(*as_tv_tensors(*samples.decoded(place)))
    for store, picture in zip(stores, pair, strict=False):  # labels may have no store
        store.write(place, picture.numpy())
    return place
