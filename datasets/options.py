"""The flags of the data sets."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from datasets.labels import CITYSCAPES, ClassTable
from utils import processes
from utils.cli.checks import AUTO, above, at_least, probability, share, workers
from utils.cli.common import CommandOptions
from utils.cli.flags import nearest
from utils.cli.options import DATA, SCORING, TOY_CITY, TRAINING, Follows, Options, flag
from utils.disk.files import REPOSITORY
from utils.transforms import AUGMENTATIONS, SCALE, augmentation_codes

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stdc_adaptation"

MIN_IMAGE_SIDE = 64

DATA_SETS = (
    *("gta5", "cityscapes", "synthia"),
    *("acdc", "acdc_fog", "acdc_night", "acdc_rain", "acdc_snow", "dark_zurich"),
    *("bdd100k", "camvid", "folder"),
)
"""Names of a source or a target: the rows of datasets/catalog.py."""

FOLDER = DATA_SETS[-1]
"""Row whose root is the folder that the user names in place of a data set."""

SOURCE_RESIZE_RATIO = (720 / 512, 1280 / 1024)
"""FDA resizes GTA5 to 720x1280 and crops 512x1024 of it (Yang & Soatto, CVPR 2020)."""

MOST_AUTOMATIC_WORKERS = 16


def _resize_of_source(image_size: tuple[int, int]) -> tuple[int, int]:
    height, width = image_size
    return round(height * SOURCE_RESIZE_RATIO[0]), round(width * SOURCE_RESIZE_RATIO[1])


def data_set_or_path(value: str) -> None:
    """Raise ValueError for a word that is neither a data set nor a folder or file that exists. What
    looks like a path is looked for later."""
    exists = any((place / value).exists() for place in (Path.cwd(), REPOSITORY))
    if value in DATA_SETS or exists or os.sep in value:
        return
    folders = (path.name for path in sorted(Path.cwd().iterdir()) if path.is_dir())
    raise ValueError(
        f"is none of the data sets ({', '.join(DATA_SETS)}), nor is there a folder or video of "
        f"that name{nearest(value, [*folders, *DATA_SETS])}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Options, group=DATA):
    """Folders, sizes, augmentation and loading."""

    source: str = flag(
        "gta5",
        f"labelled data set to learn from: {', '.join(DATA_SETS)}; or the path of a folder",
        check=data_set_or_path,
        metavar="NAME",
        everywhere=True,
    )
    target: str = flag(
        "cityscapes",
        "data set to adapt to, whose training labels no adaptation reads: a name as for --source, "
        "or the path of a folder of pictures, or of a video (with PyAV)",
        check=data_set_or_path,
        metavar="NAME",
        everywhere=True,
    )
    source_root: Path | None = flag(
        None,
        "folder of the source (default: --gta5_root, --cityscapes_root, or a folder of the data "
        "set's name)",
        metavar="FOLDER",
        affects_result=False,
        everywhere=True,
    )
    target_root: Path | None = flag(
        None,
        "folder of the target (default: like --source_root)",
        metavar="FOLDER",
        affects_result=False,
        everywhere=True,
    )
    frame_step: int = flag(
        10,
        "take every N-th frame of a video that is the target",
        check=at_least(1),
        everywhere=True,
    )
    gta5_root: Path = flag(
        Path("GTA5"),
        "folder with images/ and labels/; a relative one is looked for in the working directory, "
        "then beside main.py",
        affects_result=False,  # the same data may lie elsewhere,
        everywhere=True,
    )
    cityscapes_root: Path = flag(
        Path("Cityscapes"),
        "folder with leftImg8bit/ and gtFine/ (official), or Cityspaces/images and "
        "Cityspaces/gtFine; looked for like --gta5_root",
        affects_result=False,
        everywhere=True,
    )
    classes: Path | None = flag(
        None,
        "your own classes: a CSV or JSON file of id, name and colour (see docs/data.md); without "
        "it those of a run or checkpoint that is continued, scored or applied, else the 19 of "
        "Cityscapes",
        metavar="FILE",
        affects_result=False,  # its content does, wherever it lies,
        everywhere=True,
    )
    image_size: tuple[int, int] = flag(
        (512, 1024),
        "size of the network's input; a picture of other proportions (by more than 5%%) keeps them "
        "and is scaled to cover it, which training crops at random and scoring sees whole; labels "
        "are scored at their own size",
        check=at_least(MIN_IMAGE_SIDE),
        metavar=("H", "W"),
    )
    source_resize: tuple[int, int] = flag(
        None,
        "size to which the source is resized and, in training, then randomly cropped to "
        "--image_size (FDA's protocol); giving the image size means plain resizing (default: "
        "720 1280 for 512 1024, in proportion for other image sizes)",
        check=at_least(MIN_IMAGE_SIDE),
        metavar=("H", "W"),
        follows=Follows("image_size", _resize_of_source),
    )
    train_scales: tuple[float, ...] = flag(
        (),
        "labelled training images are cropped at a random multiple of their own size, between the "
        "first and the second number, in steps of a third, such as 0.125 1.5 0.125; they are "
        "decoded anew each time (default: --source_resize or --image_size)",
        check=above(0),
        metavar="SCALE",
    )
    gta5_val_fraction: float = flag(
        0.2,
        "share of GTA5, or of another data set without a split of its own, kept for validation, in "
        "contiguous blocks of frames so that neighbours do not leak; 0 trains on all of it",
        check=share,
    )
    aug_method: str = flag(
        "",
        "augmentation: codes joined by '-', such as C-S-HF; nonorm or nothing for none. Codes: "
        + ", ".join(f"{code} {what.title}" for code, what in AUGMENTATIONS.items()),
        check=augmentation_codes,
        metavar="CODES",
    )
    aug_probability: float = flag(
        0.5,
        "probability that a sample is augmented at all",
        check=probability,
        only_with="aug_method",
    )
    on_bad_sample: str = flag(
        "error",
        "action of a training on a picture or a label that cannot be read: end, or take the next "
        "sample in its place and say so; validation always ends",
        choices=("error", "skip"),
    )
    num_workers: int | str = flag(
        AUTO,
        "processes that load data, or draw Toy City; auto: one for each core that this process may "
        "use, at most 16, and no more than there are batches; changes the speed only, never the "
        "result",
        check=workers,
        word=AUTO,
        affects_result=False,
        everywhere=True,
    )
    cache_dir: Path = flag(
        CACHE,
        "folder of the caches of decoded images (default: in your cache folder); put it on a local "
        "disk, and remove it whenever you like; none for no cache",
        metavar="FOLDER",
        affects_result=False,
        everywhere=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for role in ("source", "target"):
            path = getattr(self, role)
            if path not in DATA_SETS and getattr(self, f"{role}_root") is None:
                object.__setattr__(self, role, FOLDER)
                object.__setattr__(self, f"{role}_root", Path(path))
        codes = "-".join(augmentation_codes(self.aug_method))  # `nonorm` is no code
        object.__setattr__(self, "aug_method", codes)

    def inconsistency(self) -> str | None:
        for role in ("source", "target"):
            path, root = getattr(self, role), getattr(self, f"{role}_root")
            if path not in DATA_SETS:
                return f"argument --{role}: {path} is a folder already; leave --{role}_root out"
            if path == FOLDER and root is None:
                return f"argument --{role}: give the path of the folder in the place of {FOLDER}"
        if self.train_scales and (problem := self._problem_of_scales()):
            return f"argument --train_scales: {problem}"
        resized = zip(self.source_resize, self.image_size, strict=True)
        if all(source >= image for source, image in resized):
            return super().inconsistency()
        source, image = (" ".join(map(str, size)) for size in (self.source_resize, self.image_size))
        return (
            f"argument --source_resize: {source} is smaller than --image_size {image}, which is "
            "cropped from it"
        )

    def _problem_of_scales(self) -> str | None:
        """Return what is wrong with `--train_scales`, if anything is."""
        if len(self.train_scales) not in (2, 3) or self.train_scales[0] > self.train_scales[1]:
            return "give the smallest and the largest, and then a step or none, such as 0.5 2"
        if SCALE in augmentation_codes(self.aug_method):
            return f"{SCALE} in --aug_method is a random scale, too; leave one of them out"
        return None

    @property
    def workers(self) -> int:
        """Processes that load data for this one, at most: `--num_workers`, or what auto means."""
        if isinstance(self.num_workers, int):
            return self.num_workers
        return min(processes.usable_cores(), MOST_AUTOMATIC_WORKERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyOptions(Options, group=TOY_CITY):
    """Toy City."""

    toy_root: Path = flag(
        Path("toy_city"), "folder that gets GTA5/ and Cityscapes/", affects_result=False
    )
    toy_train: int = flag(
        64,
        "training scenes per domain (the source gets a quarter more, for its validation split)",
        check=at_least(2),
        affects_result=False,
    )
    toy_val: int = flag(
        32, "validation scenes of the target", check=at_least(1), affects_result=False
    )
    toy_size: tuple[int, int] = flag(
        (128, 256),
        "size of the scenes",
        check=at_least(MIN_IMAGE_SIDE),
        metavar=("H", "W"),
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions(Options, group=TRAINING):
    """How many images a step takes."""

    batch_size: int = flag(
        8,
        "images of each domain in a step, of all processes of torchrun together; at least 2 in "
        "each",
        check=at_least(1),
    )
    accumulate_steps: int = flag(
        1,
        "batches whose gradients are added up before the weights change: 4 with --batch_size 2 "
        "trains like --batch_size 8 in a quarter of the memory, but for batch norm, and for pixels "
        "without a class: each batch's mean counts the same",
        check=at_least(1),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewOptions(Options, group=SCORING):
    """The views in which an image is scored."""

    eval_scales: tuple[float, ...] = flag(
        (),
        "score images at these multiples of their own size instead of at --image_size, as the "
        "protocols of STDC's paper are defined: on Cityscapes, 0.5 is its '50' and 0.75 its '75'. "
        "The probabilities of several scales are enlarged to the label and averaged. For "
        "val_gta5_transfer, val_mbt, visualize and --validation_only; validation within a training "
        "stays plain",
        check=above(0),
        metavar="SCALE",
        affects_result=False,
    )
    eval_flip: bool = flag(
        False,
        "also score every image mirrored, and average the probabilities",
        affects_result=False,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(CommandOptions, ViewOptions, BatchOptions, DataOptions):
    """All settings that the code of the data sets reads."""

    class_table: ClassTable = CITYSCAPES
    """Classes of `--classes`, or those that a run or checkpoint has recorded; no flag itself."""

    def explicit(self) -> dict[str, Any]:
        """Return the flags that the command line held; a folder in place of a data set as it was
        named."""
        found = super().explicit()
        for role in ("source", "target"):
            if found.get(role) == FOLDER and f"{role}_root" not in found:
                found[role] = str(getattr(self, f"{role}_root"))
        return found
