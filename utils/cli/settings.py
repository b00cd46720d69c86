"""Every setting of a command: one field is one flag, with its default, its help and its check.

`parse_settings` in command_line.py is the door: behind it they are typed and consistent.
"""

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import category

from utils import processes
from utils.transforms import AUGMENTATIONS, augmentation_codes

REPOSITORY = Path(__file__).resolve().parents[2]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stdc_adaptation"

ACTION = "action: what to do"
DATA = "data: folders, sizes, augmentation, loading"
TOY_CITY = "toy: Toy City, the built-in data"
NETWORK = "network: its size, and the weights it starts from"
TRAINING = "training: epochs, batches, optimiser, seed"
ADAPTATION = "adaptation: ADA, FDA and self-training"
SCORING = "scoring: which checkpoint, which statistics, which pictures"
PREDICTION = "prediction: your own images and videos"
DEPLOYMENT = "deployment: export and benchmark"
RUN = "run: the run on disk"
HARDWARE = "hardware: device and precision"
"""Groups of flags: the word that `--help` knows each by, and what it is about."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "config1": {"optimizer": "adam", "batch_size": 4},
    "config2": {"optimizer": "sgd", "batch_size": 4},
}


class OptimizerDefaults(NamedTuple):
    """What an optimiser trains with when the user names nothing else."""

    learning_rate: float
    head_lr_mult: float
    weight_decay: float


OPTIMIZERS: Mapping[str, OptimizerDefaults] = {
    "sgd": OptimizerDefaults(learning_rate=0.01, head_lr_mult=10.0, weight_decay=5e-4),
    "adam": OptimizerDefaults(learning_rate=1e-3, head_lr_mult=1.0, weight_decay=5e-4),
    "adamw": OptimizerDefaults(learning_rate=1e-3, head_lr_mult=1.0, weight_decay=0.01),
    "rmsprop": OptimizerDefaults(learning_rate=1e-3, head_lr_mult=1.0, weight_decay=5e-4),
}

FOLLOWS_FROM: Mapping[str, str] = {
    **dict.fromkeys(OptimizerDefaults._fields, "optimizer"),
    "source_resize": "image_size",
}
"""The settings whose default is another one's consequence, each with that one."""

IN_STEPS: Mapping[str, str] = {
    "num_epochs": "num_steps",
    "validation_step": "validation_steps",
    "checkpoint_step": "checkpoint_steps",
}
"""Settings that count epochs, each with the one that says the same in steps and replaces it."""

SOURCE_RESIZE_RATIO = (720 / 512, 1280 / 1024)
"""FDA resizes GTA5 to 720x1280 and crops 512x1024 of it (Yang & Soatto, CVPR 2020)."""

MIN_IMAGE_SIDE = 64

BACKENDS = ("eager", "compiled", "onnxruntime", "openvino")
"""What the benchmark can run a network with."""

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")

CONTROLS = ("Cc", "Zl", "Zp")
"""Unicode's categories of control characters and of line breaks."""

WIDEST = 512
"""Largest `--base_width`: eight times the paper's, half a billion weights."""

AUTO = "auto"
MOST_AUTOMATIC_WORKERS = 16
MOST_WORKERS, WORKERS_PER_CORE = 64, 4
"""Processes that load data: so many are always allowed, and so many for each core."""


def at_least(minimum: float) -> Callable[[float], None]:
    def check(value: float) -> None:
        if not value >= minimum:
            raise ValueError(f"must be at least {minimum}")

    return check


def above(minimum: float) -> Callable[[float], None]:
    def check(value: float) -> None:
        if not minimum < value < float("inf"):
            raise ValueError(f"must be above {minimum} and finite")

    return check


def share(value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError("must be at least 0 and below 1")


def workers(value: int) -> None:
    most = max(MOST_WORKERS, WORKERS_PER_CORE * (os.cpu_count() or 1))
    if not 0 <= value <= most:
        raise ValueError(f"must lie in 0 to {most} on this machine; {AUTO} suits most")


def seed_range(value: int) -> None:
    if not 0 <= value < 2**63:
        raise ValueError("must lie in 0 to 2^63 - 1")


def width(value: int) -> None:
    if not 8 <= value <= WIDEST or value % 2:
        raise ValueError(f"must be an even number from 8 to {WIDEST}")


def probability(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError("must lie in 0 to 1")


def decay(value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError("must be at least 0 and below 1")


def fda_beta(value: float) -> None:
    if not 0 <= value < 0.5:
        raise ValueError("must be at least 0 and below 0.5, half of the spectrum")


def image_size_word(value: str) -> None:
    sides = re.fullmatch(r"(\d+)x(\d+)", value)
    if not sides or min(map(int, sides.groups())) < MIN_IMAGE_SIDE:
        raise ValueError(f"is not HxW, such as 512x1024, of at least {MIN_IMAGE_SIDE} a side")


def one_of(*allowed: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in allowed:
            raise ValueError(f"is none of {', '.join(allowed)}")

    return check


def folder_name(value: str) -> None:
    if value in (".", "..") or set(value) & set("/\\:"):
        raise ValueError("is a name, not a path: the folder goes into --save_model_path")
    if not value.strip() or any(category(letter) in CONTROLS for letter in value):
        raise ValueError("must not be blank, nor hold a line break or another control character")


def flag(
    default: Any,
    group: str,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    check: Callable[[Any], Any] | None = None,
    metavar: str | tuple[str, ...] | None = None,
    word: str | None = None,
    affects_result: bool = True,
    may_be_empty: bool = False,
) -> Any:
    """A field that is a flag.

    `check` raises a ValueError for a value (or an element of a pair) that is not allowed; `word` is
    allowed beside the values of the field's type. A flag with `affects_result=False` may differ
    when a run is continued. A path that `may_be_empty` is at its default where the word is empty;
    any other empty path is refused.
    """
    metadata = {
        "group": group,
        "help": help,
        "choices": choices,
        "check": check,
        "metavar": metavar,
        "word": word,
        "affects_result": affects_result,
        "may_be_empty": may_be_empty,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    action: str = flag("", ACTION, "the step to run; main.py --help lists them")
    config: str | None = flag(
        None,
        ACTION,
        "preset: config1 is adam with batch size 4, config2 is sgd with batch size 4; "
        "an explicit flag beats the preset",
        choices=tuple(PRESETS),
        affects_result=False,
    )
    config_file: Path | None = flag(
        None,
        ACTION,
        "JSON file of settings by name, --action too; a run's settings.json runs it again. "
        "Explicit flags beat it, it beats the preset; --overwrite only counts as a flag",
        metavar="FILE",
        affects_result=False,
    )
    configs: tuple[str, ...] = flag(
        (),
        ACTION,
        "reproduce, demo: presets to run the whole job with (default: that of --config; for "
        "reproduce config1 config2 where neither it nor --optimizer is given)",
        check=one_of(*PRESETS),
        metavar="CONFIG",
        affects_result=False,
    )
    seeds: tuple[int, ...] = flag(
        (),
        ACTION,
        "reproduce, demo: seeds to run the whole job with (default: that of --seed)",
        check=seed_range,
        metavar="N",
        affects_result=False,
    )
    dry_run: bool = flag(
        False,
        ACTION,
        "reproduce, demo: print the plan with estimated times, and do nothing",
        affects_result=False,
    )
    runs: tuple[Path, ...] = flag(
        (),
        ACTION,
        "report: run folders typed by hand, such as checkpoints/*, whose tables are written into "
        "--save_model_path, report/ or --save_keyword (default: the folder of a reproduction)",
        metavar="FOLDER",
        affects_result=False,
    )
    verbose: bool = flag(
        False,
        ACTION,
        "reproduce, demo: print all that the steps print, which otherwise goes into log.txt of "
        "each run's folder",
        affects_result=False,
    )
    validation_only: bool = flag(
        False,
        ACTION,
        "with a training action: do not train, score --load_model_path (or the best checkpoint of "
        "that run) on the action's validation split",
        affects_result=False,
    )
    debug: bool = flag(False, ACTION, "show the traceback of an error, too", affects_result=False)

    gta5_root: Path = flag(
        Path("GTA5"),
        DATA,
        "folder with images/ and labels/; a relative one is looked for in the working directory, "
        "then beside main.py",
        affects_result=False,  # the same data may lie elsewhere
    )
    cityscapes_root: Path = flag(
        Path("Cityscapes"),
        DATA,
        "folder with leftImg8bit/ and gtFine/ (official), or Cityspaces/images and "
        "Cityspaces/gtFine; looked for like --gta5_root",
        affects_result=False,
    )
    image_size: tuple[int, int] = flag(
        (512, 1024),
        DATA,
        "size of the network's input; a picture of other proportions (by more than 5%%) keeps them "
        "and is scaled to cover it, which training crops at random and scoring sees whole; labels "
        "are scored at their own size",
        check=at_least(MIN_IMAGE_SIDE),
        metavar=("H", "W"),
    )
    source_resize: tuple[int, int] | None = flag(
        None,
        DATA,
        "GTA5 is resized to this and, in training, randomly cropped to --image_size (FDA's "
        "protocol); giving the image size means plain resizing (default: 720 1280 for 512 1024, "
        "in proportion for other image sizes)",
        check=at_least(MIN_IMAGE_SIDE),
        metavar=("H", "W"),
    )
    gta5_val_fraction: float = flag(
        0.2,
        DATA,
        "share of GTA5 kept for validation, in contiguous blocks of frames so that neighbours "
        "do not leak; 0, for adaptation alone, trains on all of it",
        check=share,
    )
    aug_method: str = flag(
        "",
        DATA,
        "augmentation: codes joined by '-', such as C-S-HF; nonorm or nothing for none. Codes: "
        + ", ".join(f"{code} {what.title}" for code, what in AUGMENTATIONS.items()),
        check=augmentation_codes,
        metavar="CODES",
    )
    aug_probability: float = flag(
        0.5, DATA, "probability that a sample is augmented at all", check=probability
    )
    on_bad_sample: str = flag(
        "error",
        DATA,
        "what training does with a picture or a label that cannot be read: end, or take the next "
        "sample in its place and say so; validation always ends",
        choices=("error", "skip"),
    )
    num_workers: int | str = flag(
        AUTO,
        DATA,
        "processes that load data; auto: one for each core that this process may use, at most 16, "
        "and no more than there are batches; changes the speed only, never the result",
        check=workers,
        word=AUTO,
        affects_result=False,
    )

    cache_dir: Path = flag(
        CACHE,
        DATA,
        "folder of the caches of decoded images (default: in your cache folder); put it on a local "
        "disk, and remove it whenever you like; none for no cache",
        metavar="FOLDER",
        affects_result=False,
    )

    toy_root: Path = flag(
        Path("toy_city"), TOY_CITY, "folder that gets GTA5/ and Cityscapes/", affects_result=False
    )
    toy_train: int = flag(
        64,
        TOY_CITY,
        "training scenes per domain (the source gets a quarter more, for its validation split)",
        check=at_least(2),
        affects_result=False,
    )
    toy_val: int = flag(
        32, TOY_CITY, "validation scenes of the target", check=at_least(1), affects_result=False
    )
    toy_size: tuple[int, int] = flag(
        (128, 256),
        TOY_CITY,
        "size of the scenes",
        check=at_least(MIN_IMAGE_SIDE),
        metavar=("H", "W"),
        affects_result=False,
    )

    network: str = flag("bisenet", NETWORK, "the network: STDC-BiSeNet", choices=("bisenet",))
    backbone: str = flag("stdc1", NETWORK, "STDC813 or STDC1446", choices=("stdc1", "stdc2"))
    base_width: int = flag(
        64, NETWORK, "channels that all widths follow from; 64 is the paper's", check=width
    )
    pretrain_path: Path | None = flag(
        None,
        NETWORK,
        "ImageNet weights of the backbone (STDCNet813M_73.91.tar); without them training starts "
        "from random weights; not read when a checkpoint is loaded",
        metavar="FILE",
        affects_result=False,  # its content does, wherever it lies
        may_be_empty=True,  # as in the notebook; the training says that its weights are random
    )
    load_model_path: Path | None = flag(
        None,
        NETWORK,
        "checkpoint to score or to start training from: ours, a plain state dict, or an official "
        "STDC-Seg one",
        metavar="FILE",
        affects_result=False,
    )

    num_epochs: int = flag(
        50, TRAINING, "passes over the source's training split", check=at_least(1)
    )
    num_steps: int | None = flag(
        None,
        TRAINING,
        "updates of the whole training, in place of --num_epochs; 40000 in many papers",
        check=at_least(1),
    )
    batch_size: int = flag(
        8,
        TRAINING,
        "images of each domain in a step, of all processes of torchrun together; at least 2 in "
        "each",
        check=at_least(1),
    )
    accumulate_steps: int = flag(
        1,
        TRAINING,
        "batches whose gradients are added up before the weights change: 4 with --batch_size 2 "
        "trains like --batch_size 8 in a quarter of the memory, but for batch norm, and for pixels "
        "without a class: each batch's mean counts the same",
        check=at_least(1),
    )
    optimizer: str = flag("sgd", TRAINING, "optimiser of the network", choices=tuple(OPTIMIZERS))
    learning_rate: float | None = flag(
        None,
        TRAINING,
        "learning rate of the backbone (default: 0.01 for sgd, 0.001 for the others)",
        check=above(0),
    )
    head_lr_mult: float | None = flag(
        None,
        TRAINING,
        "factor on the learning rate of feature fusion and heads (default: 10 for sgd, 1 for the "
        "others)",
        check=above(0),
    )
    weight_decay: float | None = flag(
        None,
        TRAINING,
        "weight decay, none on norms and biases (default: 0.01 for adamw, 0.0005 for the others)",
        check=at_least(0),
    )
    warmup_steps: int | None = flag(
        None,
        TRAINING,
        "steps in which the learning rate rises linearly, before it falls as a polynomial of "
        "degree 0.9 to zero (default: 5%% of all steps, at most 1000)",
        check=at_least(0),
    )
    ohem: bool = flag(
        False,
        TRAINING,
        "train on the hard pixels only (online hard example mining), which each process of "
        "torchrun chooses among its own",
    )
    clip_grad_norm: float | None = flag(
        None,
        TRAINING,
        "largest norm of an optimiser's gradient; a longer one is scaled down to it",
        check=above(0),
        metavar="NORM",
    )
    ema_decay: float = flag(
        0.0,
        TRAINING,
        "weights averaged over the steps, m <- decay m + (1 - decay) w, are scored and saved "
        "beside the trained ones, as ema.pth; such as 0.999, 0 for none",
        check=decay,
    )
    seed: int = flag(0, TRAINING, "of the weights, the order and every draw", check=seed_range)

    discriminator: str = flag(
        "conv",
        ADAPTATION,
        "ADA: five convolutions, or light: the middle three depthwise-separable",
        choices=("conv", "light"),
    )
    disc_learning_rate: float = flag(
        1e-4, ADAPTATION, "ADA: learning rate of the discriminator's Adam", check=above(0)
    )
    adv_weight: float = flag(
        1e-3, ADAPTATION, "ADA: weight of the adversarial term", check=at_least(0)
    )
    fda_beta: float = flag(
        0.01,
        ADAPTATION,
        "FDA: share of the image's smaller side that the swapped frequencies reach to; one network "
        "each for 0.01, 0.05 and 0.09",
        check=fda_beta,
    )
    ent_weight: float = flag(
        0.005, ADAPTATION, "FDA: weight of the target's entropy", check=at_least(0)
    )
    ent_eta: float = flag(
        2.0, ADAPTATION, "FDA: exponent that spares confident pixels", check=above(0)
    )
    ssl_round: int = flag(
        1,
        ADAPTATION,
        "round of self-training: generate_pseudo_labels makes its labels with the networks of the "
        "round before (0 is FDA), train_ssl_fda trains on them, val_mbt scores it (its default: 0)",
        check=at_least(0),
    )
    pseudo_label_path: Path | None = flag(
        None,
        ADAPTATION,
        "folder of the pseudo-labels, made or trained on (default: pseudo_labels_<optimizer> under "
        "--save_model_path, for later rounds with the round)",
        metavar="FOLDER",
        affects_result=False,
    )
    accept_pseudo_labels: bool = flag(
        False,
        ADAPTATION,
        "train on pseudo-labels of another size, or whose checkpoints have changed since",
        affects_result=False,
    )

    select: str = flag(
        "best",
        SCORING,
        "checkpoint of a run that is scored: the epoch with the best mIoU on its validation split, "
        "the last one, or its averaged weights (--ema_decay)",
        choices=("best", "last", "ema"),
        affects_result=False,
    )
    bn_statistics: str = flag(
        "training",
        SCORING,
        "batch-norm statistics of a network that is scored: those of its training, or target: "
        "re-estimated on the training images (no labels) of the domain it is scored on",
        choices=("training", "target"),
        affects_result=False,
    )
    eval_scales: tuple[float, ...] = flag(
        (),
        SCORING,
        "score images at these multiples of their own size instead of at --image_size, as the "
        "protocols of STDC's paper are defined: of Cityscapes 0.5 is its '50', 0.75 its '75'. "
        "Several: the mean of their probabilities, enlarged to the label. For val_gta5_transfer, "
        "val_mbt, visualize and --validation_only; validation within a training stays plain",
        check=above(0),
        metavar="SCALE",
        affects_result=False,
    )
    eval_flip: bool = flag(
        False,
        SCORING,
        "score every image mirrored, too, likewise averaged",
        affects_result=False,
    )
    mbt_checkpoints: tuple[Path, ...] = flag(
        (),
        SCORING,
        "MBT: checkpoints of the ensemble (default: the runs of the three betas)",
        metavar="FILE",
        affects_result=False,
    )
    compare: tuple[Path, ...] = flag(
        (),
        SCORING,
        "visualize: checkpoints to show side by side (default: every run of --optimizer)",
        metavar="FILE",
        affects_result=False,
    )
    picture_index: int = flag(
        0,
        SCORING,
        "visualize: the fixed image, by its place in the validation split",
        check=at_least(0),
        affects_result=False,
    )

    input: Path | None = flag(
        None,
        PREDICTION,
        "predict: an image, a folder of images and of folders of them, a quoted glob such as "
        "'a/**/*.png', or a video (with PyAV), which becomes a video of the colours and an overlay",
        metavar="PATH",
        affects_result=False,
    )
    output: Path | None = flag(
        None,
        PREDICTION,
        "predict: folder of the results (default: predictions_<run>/<input's name> under "
        "--save_model_path); export: file, .onnx, or .pt2 for torch.export (default: beside the "
        "checkpoint, .onnx)",
        metavar="PATH",
        affects_result=False,
    )
    export_output: str = flag(
        "classes",
        DEPLOYMENT,
        "what an exported network gives: the class of each pixel, or the classes' logits",
        choices=("classes", "logits"),
        affects_result=False,
    )
    sizes: tuple[str, ...] = flag(
        (),
        DEPLOYMENT,
        "benchmark: sizes of the image, such as 512x1024 768x1536 (default: --image_size)",
        check=image_size_word,
        metavar="HxW",
        affects_result=False,
    )
    precisions: tuple[str, ...] = flag(
        (),
        DEPLOYMENT,
        f"benchmark: of {', '.join(PRECISIONS)} (default: fp32 and what --precision auto takes)",
        check=one_of(*PRECISIONS),
        metavar="NAME",
        affects_result=False,
    )
    backends: tuple[str, ...] = flag(
        (),
        DEPLOYMENT,
        f"benchmark: of {', '.join(BACKENDS)} (default: those installed, without compiled, which "
        "takes minutes)",
        check=one_of(*BACKENDS),
        metavar="NAME",
        affects_result=False,
    )

    save_model_path: Path = flag(
        REPOSITORY / "checkpoints",
        RUN,
        "folder of all runs (default: checkpoints beside main.py)",
        metavar="FOLDER",
        affects_result=False,
    )
    save_keyword: str | None = flag(
        None,
        RUN,
        "name of the run's folder, or of an ensemble's or of pictures' (default: derived, such as "
        "simple_gta5_adam_aug); val_gta5_transfer scores the run of that name, whatever its "
        "--optimizer",
        check=folder_name,
        metavar="NAME",
        affects_result=False,
    )
    checkpoint_step: int = flag(
        1, RUN, "epochs between checkpoints", check=at_least(1), affects_result=False
    )
    checkpoint_steps: int | None = flag(
        None,
        RUN,
        "updates between checkpoints, in place of --checkpoint_step",
        check=at_least(1),
        affects_result=False,
    )
    checkpoint_minutes: float = flag(
        10.0,
        RUN,
        "longest time between checkpoints, within an epoch, too",
        check=above(0),
        affects_result=False,
    )
    validation_step: int = flag(
        1, RUN, "epochs between validations; the last epoch is always one", check=at_least(1)
    )
    validation_steps: int | None = flag(
        None,
        RUN,
        "updates between validations, in place of --validation_step; history.csv then has a row "
        "for each validation instead of each epoch",
        check=at_least(1),
    )
    log_every: int = flag(
        10, RUN, "steps between log entries", check=at_least(1), affects_result=False
    )
    overwrite: bool = flag(
        False,
        RUN,
        "start afresh where a run of this name exists (without it, the same command continues "
        "the run, and another one is refused)",
        affects_result=False,
    )

    device: str = flag(
        "auto",
        HARDWARE,
        "auto takes CUDA where there is one",
        choices=("auto", "cpu", "cuda"),
        affects_result=False,
    )
    precision: str = flag(
        "auto",
        HARDWARE,
        "of the network's arithmetic: auto is bf16 on GPUs and CPUs that have instructions for it, "
        "fp16 with loss scaling on older GPUs with tensor cores, fp32 elsewhere (bf16 is many "
        "times slower on a CPU without AMX or AVX512-BF16); tf32 is fp32 with products in TF32, on "
        "GPUs from Ampere on. A run that has not finished may go on in another precision",
        choices=("auto", *PRECISIONS),
    )

    compile: bool = flag(
        False,
        HARDWARE,
        "torch.compile for the networks in training: a minute or more to begin with, then faster "
        "on most GPUs",
    )
    deterministic: bool = flag(
        False,
        HARDWARE,
        "on CUDA: algorithms whose results repeat to the bit, where torch has them; a warning "
        "names the others. Slower, convolutions above all; on the CPU results repeat anyway",
        affects_result=False,
    )

    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    """Names of the flags that the command line held; no flag itself."""

    def explicit(self) -> dict[str, Any]:
        """The flags that the command line held, with their values."""
        return {f.name: getattr(self, f.name) for f in setting_fields() if f.name in self.given}

    @property
    def workers(self) -> int:
        """Processes that load data for this one, at most: `--num_workers`, or what auto means."""
        if self.num_workers == AUTO:
            return min(processes.usable_cores(), MOST_AUTOMATIC_WORKERS)
        return self.num_workers

    def run_name(self, stem: str) -> str:
        """Name of the run, such as `fda01_adam_aug` for the stem `fda{beta}`.

        A stem may hold {beta}, the decimals of `--fda_beta`, and {round}, empty for the first.
        """
        if self.save_keyword:
            return self.save_keyword
        augmented = "aug" if augmentation_codes(self.aug_method) else "noaug"
        if "{beta}" in stem:
            stem = stem.replace("{beta}", _decimals(self.fda_beta))
        if "{round}" in stem:
            stem = stem.replace("{round}", self.round_suffix())
        return f"{stem}_{self.optimizer}_{augmented}"

    def round_suffix(self) -> str:
        """The round of self-training in a name: nothing for the first, else its number."""
        return "" if self.ssl_round == 1 else str(self.ssl_round)

    def scored_plainly(self) -> "Settings":
        """The same, with validation of one view of each image, at `--image_size`."""
        return dataclasses.replace(self, eval_scales=(), eval_flip=False)

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON types; paths as strings, pairs as lists."""
        return {f.name: _json_value(getattr(self, f.name)) for f in setting_fields()}

    def result_settings(self, adaptation: Collection[str] = ()) -> dict[str, Any]:
        """The settings that a result depends on, as JSON types; of those of adaptation only the
        ones that are named."""
        values = self.to_json()
        unused = adaptation_fields() - set(adaptation)
        unused |= {epochs for epochs, steps in IN_STEPS.items() if getattr(self, steps)}
        if not self.aug_method:
            unused.add("aug_probability")
        return {
            f.name: values[f.name]
            for f in setting_fields()
            if f.metadata["affects_result"] and f.name not in unused
        }


def adaptation_fields() -> set[str]:
    """The settings of adaptation that change a result, of which each method uses some."""
    fields = (f for f in setting_fields() if f.metadata["group"] == ADAPTATION)
    return {f.name for f in fields if f.metadata["affects_result"]}


def derived_defaults(settings: Settings) -> dict[str, Any]:
    """The defaults of what `FOLLOWS_FROM` names."""
    return {
        **OPTIMIZERS[settings.optimizer]._asdict(),
        "source_resize": tuple(
            round(side * ratio)
            for side, ratio in zip(settings.image_size, SOURCE_RESIZE_RATIO, strict=True)
        ),
    }


def with_derived_defaults(settings: Settings) -> Settings:
    """Fills the settings whose default follows from another one."""
    derived = derived_defaults(settings)
    missing = {name: value for name, value in derived.items() if getattr(settings, name) is None}
    codes = "-".join(augmentation_codes(settings.aug_method))  # `nonorm` is no code
    return dataclasses.replace(settings, aug_method=codes, **missing)


def _decimals(beta: float) -> str:
    """0.05 -> "05", 0.1 -> "10", 0.005 -> "005"."""
    return f"{beta:.12f}"[2:].rstrip("0").ljust(2, "0")


def setting_fields() -> tuple[dataclasses.Field, ...]:
    """The fields that are flags."""
    return tuple(f for f in dataclasses.fields(Settings) if f.metadata)


def takes(field: dataclasses.Field, value: Any) -> bool:
    """Whether a JSON value can be that of a setting. Rules beyond the type are those of today, so
    only settings that affect a result are held to them."""
    if not _is_json_of(typing.get_type_hints(Settings)[field.name], value):
        return False
    choices, check = field.metadata["choices"], field.metadata["check"]
    if value is None or not field.metadata["affects_result"]:
        return True
    try:
        for element in value if isinstance(value, list) else [value]:
            if check:
                check(element)
    except ValueError:
        return False
    return not choices or value in choices


def _is_json_of(kind: Any, value: Any) -> bool:
    """Whether `to_json` would write such a value for a setting of that type."""
    if isinstance(kind, types.UnionType):
        return any(_is_json_of(one, value) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        elements = typing.get_args(kind)
        if not isinstance(value, list) or (
            Ellipsis not in elements and len(value) != len(elements)
        ):
            return False
        return all(_is_json_of(elements[0], element) for element in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, {Path: str, float: int | float}.get(kind, kind))


def _json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_json_value(item) for item in value] if isinstance(value, tuple) else value
