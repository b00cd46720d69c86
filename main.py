"""Real-time domain adaptation for semantic segmentation: `python main.py --action …`.

This is the only file that knows every action.
"""

import errno
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from PIL import Image

from datasets.check.check_data import check_data
from datasets.classes import read_classes
from datasets.data_set import Role
from datasets.options import ToyOptions
from model.catalog import RECORDED
from model.options import NetworkOptions
from trainings.application import benchmark
from trainings.application.export import export
from trainings.application.options import DeploymentOptions, PictureOptions, PredictionOptions
from trainings.application.predict import predict
from trainings.application.visualize import visualize
from trainings.engine.run import run_experiment
from trainings.experiment import Experiment, unlabelled_target
from trainings.options import (
    EnsembleOptions,
    PseudoLabelOptions,
    RecipeOptions,
    Settings,
    SoftOptions,
    TrainingOptions,
)
from trainings.recipes import values_of
from trainings.reproduction.demo import make_toy_data, recipe
from trainings.reproduction.options import ReproductionOptions
from trainings.reproduction.reproduce import demo, report, reproduce
from trainings.reproduction.steps import Step, Work, users_steps
from trainings.scoring.mbt import val_mbt
from trainings.scoring.pseudo_labels import (
    generate_pseudo_labels,
    pseudo_labelled_target,
    self_training_target,
)
from trainings.scoring.score import score_transfer
from trainings.train_ADA import ADA
from trainings.train_DACS import DACS
from trainings.train_distill import Distillation
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils import processes
from utils.cli.action import Action, settings_type
from utils.cli.command_line import parse_settings
from utils.cli.common import HardwareOptions, RunOptions
from utils.cli.flags import PROGRAM
from utils.cli.terminal import RED, Outlet, coloured, standard_streams
from utils.errors import UserError
from utils.signals import Stopped
from utils.utils import ask_for_determinism, float32_products, is_out_of_memory

ON_SOURCE = Experiment(
    action="train_source",
    stem="source_{source}",
    source=Role.SOURCE,
    validation=Role.SOURCE,
    method=Supervised,
    transfer="val_transfer",
)
ON_TARGET = Experiment(
    action="train_target",
    stem="target_{target}",
    source=Role.TARGET,
    validation=Role.TARGET,
    method=Supervised,
)
SIMPLE_CITYSCAPES = Experiment(
    action="train_simple_cityscapes",
    stem="simple_cityscapes",
    source=Role.TARGET,
    validation=Role.TARGET,
    method=Supervised,
    general=ON_TARGET,
)
SIMPLE_GTA5 = Experiment(
    action="train_simple_gta5",
    stem="simple_gta5",
    source=Role.SOURCE,
    validation=Role.SOURCE,
    method=Supervised,
    general=ON_SOURCE,
    transfer="val_gta5_transfer",
)
SUPERVISED = (SIMPLE_CITYSCAPES, SIMPLE_GTA5, ON_SOURCE, ON_TARGET)
ADVERSARIAL = Experiment(
    action="train_ada",
    stem="ada",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=ADA,
    target=unlabelled_target,
)
FOURIER = Experiment(
    action="train_fda",
    stem="fda{fda_beta}",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=FDA,
    target=unlabelled_target,
)
SELF_TRAINING = Experiment(
    action="train_ssl_fda",
    stem="ssl{ssl_round}_fda{fda_beta}",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=SSLFDA,
    target=self_training_target,
)
MIXING = Experiment(
    action="train_dacs",
    stem="dacs",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=DACS,
    target=unlabelled_target,
)
MASKED_MIXING = Experiment(
    action="train_mic",
    stem="mic",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=DACS,
    target=unlabelled_target,
    defaults=(("mask_ratio", 0.7),),
)
DISTILLATION = Experiment(
    action="train_distill",
    stem="distill",
    source=Role.SOURCE,
    validation=Role.TARGET,
    method=Distillation,
    target=pseudo_labelled_target,
)

TRAINING_FLAGS = (
    *(
        "recipe",
        "pretrain_path",
        "num_epochs",
        "num_steps",
        "batch_size",
        "optimizer",
        "learning_rate",
        "aug_method",
    ),
    *("image_size", "save_model_path", "save_keyword", "overwrite", "validation_only"),
)
SCORING_FLAGS = ("load_model_path", "select", "bn_statistics")
"""Flags that the help of trainings and of scorings shows before the flags of the action."""

VIEWS = ("eval_scales", "eval_flip")
NETWORK_READ = (*RECORDED, "image_size")
"""Flags that an action reads which loads a network."""

SCORING_READ = (*NETWORK_READ, *VIEWS, "bn_statistics", "batch_size", "on_bad_sample")
"""Flags that an action reads which scores networks, or runs them on a data set."""

SEARCH_READ = ("select", "optimizer", "aug_method", "save_keyword")
"""Flags that an action reads which searches for runs, or names a folder as they are named."""

SAMPLES_READ = ("image_size", "train_scales", "aug_method", "aug_probability", "on_bad_sample")
"""Flags of the data set that every training reads."""

SOURCE_READ = ("source_resize", "gta5_val_fraction")
"""Flags that only an action reads which reads the source."""

PAIR = ("source", "target", "source_root", "target_root")
"""Flags that the help of an action on both domains shows after the flags made for it."""

REPRODUCTION_FLAGS = (
    *("configs", "seeds", "dry_run", "verbose", "aug_method", "num_epochs", "num_steps"),
    "save_keyword",
)

PRETRAINED = "--pretrain_path STDCNet813M_73.91.tar"

STEPS: list[Step] = [
    *users_steps(
        upper_bound=SIMPLE_CITYSCAPES,
        source_only=SIMPLE_GTA5,
        ada=ADVERSARIAL,
        fda=FOURIER,
        ssl_fda=SELF_TRAINING,
    ),
    Step("4", "DACS", MIXING),
    Step("5", "MIC", MASKED_MIXING),
    Step(
        "6",
        "Distillation of MIC",
        DISTILLATION,
        (Work.LABEL, Work.TRAIN, Work.SCORE),
        teacher=MASKED_MIXING,
    ),
]
"""The steps of `reproduce`, `demo` and `report`."""

MEASURED = tuple(
    {s.experiment.method: s.experiment for s in STEPS if not s.experiment.defaults}.values()
)
"""An experiment of each method, whose training the benchmark measures."""

OF_LABELS = (*PseudoLabelOptions.own_flags(), "ssl_round")
"""Flags of methods that say which pseudo-labels are read, and change no training step."""

STEP_READ = (
    *("batch_size", "optimizer", "learning_rate", "head_lr_mult", "weight_decay", "ohem"),
    *("clip_grad_norm", "ema_decay", "detail_guidance", "poly_power"),
    *(n for one in MEASURED for n in one.method.Options.own_flags() if n not in OF_LABELS),
)
"""Flags that a single training step of all methods reads."""

REPRODUCTION_READ = (Settings, *(step.experiment.method.Options for step in STEPS))


def run_action(settings: Settings) -> None:
    """Run the action that the settings name."""
    ACTIONS[settings.action].run(settings)


def _named_data(experiment: Experiment) -> tuple[str, ...]:
    """The flags that name an experiment's data, unless it is for the usual ones."""
    roles = () if experiment.general else experiment.roles
    return tuple(name for role in roles for name in (role.value, f"{role.value}_root"))


def training(
    experiment: Experiment, help: str, *, examples: Sequence[str] = (PRETRAINED,)
) -> Action:
    """The action of an experiment."""
    of_source = SOURCE_READ if Role.SOURCE in experiment.roles else ()
    of_target = ("watch_target",) if experiment.target else ()
    if experiment.validation is Role.SOURCE:
        of_target = ("score_target", *(() if experiment.general else ("target", "target_root")))
    options = experiment.method.Options
    return Action(
        partial(run_experiment, experiment),
        help,
        lambda explicit: {**dict(experiment.defaults), **values_of(explicit, Settings)},
        flags=(*TRAINING_FLAGS, *options.own_flags(), *_named_data(experiment)),
        examples=tuple(examples),
        reads=(
            NetworkOptions,
            TrainingOptions,
            RecipeOptions,
            options,
            RunOptions,
            HardwareOptions,
            "dry_run",
            *SAMPLES_READ,
            *of_source,
            *of_target,
        ),
        reads_to_score=(*SCORING_READ, *SEARCH_READ),
        resumes=True,
    )


ACTIONS: dict[str, Action] = {
    "demo": Action(
        partial(demo, STEPS, run_action),
        "the whole job on Toy City: every method, side by side in a table and in pictures",
        recipe,
        flags=("toy_root", "toy_train", "toy_val", "toy_size", *REPRODUCTION_FLAGS),
        examples=("", "--seeds 1 2 3", "--num_epochs 2 --toy_train 8 --toy_val 4"),
        options=(ReproductionOptions,),
        reads=(*REPRODUCTION_READ, ToyOptions),
        resumes=True,
    ),
    "reproduce": Action(
        partial(reproduce, STEPS, run_action),
        "the whole job on the data given: every step below, for --configs and --seeds, in tables "
        "and pictures",
        flags=("pretrain_path", "gta5_root", "cityscapes_root", *REPRODUCTION_FLAGS),
        examples=(f"{PRETRAINED} --dry_run", f"{PRETRAINED} --seeds 0 1 2"),
        options=(ReproductionOptions,),
        reads=REPRODUCTION_READ,
        resumes=True,
    ),
    "report": Action(
        partial(report, STEPS),
        "those tables and pictures again, from the run folders alone (the sheet of predictions "
        "where the data set is there)",
        flags=("save_model_path", "save_keyword", "cityscapes_root", "runs"),
        examples=("", "--save_keyword demo", "--runs checkpoints/*"),
        options=(ReproductionOptions,),
    ),
    "make_toy_data": Action(
        make_toy_data,
        "draw Toy City: labelled street scenes in the two real layouts",
        flags=("toy_root", "toy_train", "toy_val", "toy_size", "seed"),
        examples=("", "--toy_root data/toy --toy_train 500 --toy_size 256 512"),
        resumes=True,
    ),
    "check_data": Action(
        check_data,
        "read every file of source and target once: what is broken, what they hold",
        flags=(*PAIR, "gta5_root", "cityscapes_root", "num_workers"),
        examples=("", "--gta5_root data/GTA5 --target photos/street --num_workers 8"),
        alone=True,
        reads=(*SOURCE_READ, "image_size", "batch_size", "accumulate_steps", "save_keyword"),
    ),
    "train_simple_cityscapes": training(
        SIMPLE_CITYSCAPES, "supervised on Cityscapes: what labels of the target would give"
    ),
    "train_simple_gta5": training(
        SIMPLE_GTA5,
        "supervised on GTA5: the source-only baseline",
        examples=(PRETRAINED, f"{PRETRAINED} --config config1 --aug_method C-S-HF"),
    ),
    "val_gta5_transfer": Action(
        partial(score_transfer, SIMPLE_GTA5),
        "the domain shift: score the network trained on GTA5 on Cityscapes",
        flags=("load_model_path", "select", "eval_scales", "eval_flip"),
        examples=("", "--aug_method C-S-HF", "--load_model_path runs/a/best.pth"),
        reads=(*SCORING_READ, *SEARCH_READ),
    ),
    "train_source": training(
        ON_SOURCE,
        "supervised on --source, whatever it is",
        examples=(f"--source synthia {PRETRAINED}", "--source synthia --source_root data/RAND"),
    ),
    "train_target": training(
        ON_TARGET,
        "supervised on --target, whatever it is: what its labels would give",
        examples=(f"--target acdc_night {PRETRAINED}",),
    ),
    "val_transfer": Action(
        partial(score_transfer, ON_SOURCE),
        "the domain shift: score the network of train_source on --target",
        flags=(*PAIR, "load_model_path", "select", "eval_scales", "eval_flip"),
        examples=("--source synthia --target acdc",),
        reads=(*SCORING_READ, *SEARCH_READ),
    ),
    "train_ada": training(
        ADVERSARIAL,
        "adversarial adaptation to the target (AdaptSegNet)",
        examples=(PRETRAINED, f"{PRETRAINED} --discriminator light --adv_weight 0.0005"),
    ),
    "train_fda": training(
        FOURIER,
        "Fourier domain adaptation: one network per --fda_beta",
        examples=(f"{PRETRAINED} --fda_beta 0.01", "--target photos/street --fda_beta 0.05"),
    ),
    "train_dacs": training(
        MIXING,
        "online self-training on mixed images: a mean teacher labels the target (DACS)",
        examples=(PRETRAINED, f"{PRETRAINED} --confidence 0.9"),
    ),
    "train_mic": training(
        MASKED_MIXING,
        "train_dacs with masked consistency (MIC)",
        examples=(PRETRAINED, f"{PRETRAINED} --mask_ratio 0.5"),
    ),
    "val_mbt": Action(
        partial(val_mbt, FOURIER, SELF_TRAINING),
        "multi-band transfer: score the three FDA networks and their ensemble",
        lambda explicit: {"ssl_round": 0},
        flags=("mbt_checkpoints", "ssl_round", "select", "bn_statistics", *PAIR),
        examples=("", "--ssl_round 1", "--mbt_checkpoints a/best.pth b/best.pth c/best.pth"),
        reads=(EnsembleOptions, *SCORING_READ, *SEARCH_READ),
    ),
    "generate_pseudo_labels": Action(
        partial(generate_pseudo_labels, FOURIER, SELF_TRAINING),
        "label the target's training images with that ensemble, or with any network",
        flags=(
            *("ssl_round", "load_model_path", "mbt_checkpoints", "select"),
            *("soft", "pseudo_label_path", *PAIR),
        ),
        examples=("", "--ssl_round 2", "--soft --load_model_path runs/a/latest.pth"),
        reads=(
            *(*NETWORK_READ, *VIEWS, "bn_statistics", "on_bad_sample"),
            *("optimizer", "aug_method", "overwrite"),
        ),
        options=(SoftOptions,),
        resumes=True,
    ),
    "train_ssl_fda": training(
        SELF_TRAINING,
        "self-training: FDA with those pseudo-labels",
        examples=(f"{PRETRAINED} --fda_beta 0.01", f"{PRETRAINED} --fda_beta 0.01 --ssl_round 2"),
    ),
    "train_distill": training(
        DISTILLATION,
        "distillation: learn the target from the pseudo-labels of any teacher",
        examples=(f"{PRETRAINED} --pseudo_label_path labels",),
    ),
    "visualize": Action(
        partial(visualize, FOURIER, SELF_TRAINING, SUPERVISED),
        "pictures of predictions and errors: of a checkpoint, an ensemble, or every run of a pair",
        flags=(*SCORING_FLAGS, "compare", "mbt_checkpoints", "picture_index", *PAIR),
        examples=("", "--load_model_path runs/a/best.pth", "--compare a/best.pth b/best.pth"),
        reads=(EnsembleOptions, PictureOptions, *SCORING_READ, *SEARCH_READ),
    ),
    "predict": Action(
        predict,
        "class maps, colours and overlays of your own images (--input), or of a video",
        flags=(
            *("input", "output", "side_by_side", "load_model_path", "mbt_checkpoints"),
            *("image_size", "overwrite"),
        ),
        examples=(
            "--load_model_path runs/a/best.pth --input photos",
            "--mbt_checkpoints a/best.pth b/best.pth c/best.pth --input 'drive/**/*.png'",
            "--load_model_path runs/a/best.pth --input drive.mp4 --output masks",
        ),
        alone=True,
        reads=(
            PredictionOptions,
            EnsembleOptions,
            *NETWORK_READ,
            *VIEWS,
            "bn_statistics",
            "save_keyword",
        ),
        resumes=True,
    ),
    "benchmark": Action(
        partial(benchmark.benchmark, MEASURED),
        "this machine's speed: latency of the network by backend, images/s of each method",
        benchmark.defaults,
        flags=("networks", "sizes", "precisions", "backends", "batch_size", *RECORDED, "device"),
        examples=(
            "--networks bisenet pp_liteseg",
            "--sizes 512x1024 768x1536 --precisions fp32 bf16 --backends eager compiled",
        ),
        alone=True,
        options=(DeploymentOptions,),
        reads=(*NETWORK_READ, *STEP_READ, "load_model_path", "save_keyword"),
    ),
    "export": Action(
        export,
        "a checkpoint as ONNX, OpenVINO or torch.export file for other programs, compared first",
        flags=(
            *("load_model_path", "output", "export_output", "int8", "int8_min_agreement"),
            "image_size",
        ),
        examples=(
            "--load_model_path runs/a/best.pth",
            "--load_model_path runs/a/best.pth --output network.pt2 --export_output logits",
            "--load_model_path runs/a/best.pth --output network.xml --int8",
        ),
        alone=True,
        options=(DeploymentOptions, PredictionOptions),
        reads=(*NETWORK_READ, *VIEWS, "bn_statistics", "on_bad_sample"),
    ),
}

FlatSettings = settings_type(ACTIONS)
"""The settings of a command: every flag of every room and method."""

OUT_OF_MEMORY = (
    "out of memory: lower --batch_size (2 at least in training), --image_size or --base_width"
)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = "interrupted; the same command, without --overwrite, goes on from there"
"""Said of an action that can go on."""


def main(argv: Sequence[str]) -> int:
    """Runs one action; the exit code: 0 done, 1 wrong data, 2 wrong usage, 128 + n stopped by
    signal n."""
    settings = parse_settings(argv, ACTIONS)
    action = ACTIONS[settings.action]
    Outlet.may_close = action.goes_on(settings)
    # torch repeats it for every loader; --num_workers is the user's to choose.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    # PIL warns of large pictures in every thread; those that are too large are an error anyway.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if settings.deterministic:
        ask_for_determinism()
    try:
        if settings.classes:
            settings = replace(settings, class_table=read_classes(settings.classes))
        with float32_products(settings.precision):
            if not action.alone:
                with processes.together(settings.device):
                    action.run(settings)
            elif processes.started_rank() == 0:
                action.run(settings)
    except UserError as error:
        if settings.debug:
            traceback.print_exc()
        return _failed(str(error), error.exit_code)
    except (MemoryError, RuntimeError, OSError) as error:
        if processes.another_failed() and not settings.debug:
            return UserError.exit_code
        problem = OUT_OF_MEMORY if is_out_of_memory(error) else _refused(error)
        if settings.debug or problem is None:
            raise
        return _failed(problem, UserError.exit_code)
    except KeyboardInterrupt as stop:
        _say(INTERRUPTED if action.goes_on(settings) else "interrupted")
        return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)
    return 0


def _refused(error: Exception) -> str | None:
    """Return a sentence about what the system has refused, such as access to a folder; None if the
    error is of another kind."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    remedy = ": make room, and give the same command again" if error.errno in FULL_DISK else ""
    return f"{error.filename or 'the system'}: {error.strerror}{remedy}"


def _failed(problem: str, code: int) -> int:
    """Print the problem in one line, whatever is in the names of files, and return the code."""
    word = coloured("error:", RED, sys.stderr)
    _say(f"{PROGRAM}: {word} " + problem.replace("\n", "\\n"))
    return code


def _say(text: str) -> None:
    """Print why the command ends; print once what several processes have to say alike."""
    if processes.first_to_say(text):
        sys.stdout.flush()  # in a log, what was printed before stands before
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with standard_streams():
        sys.exit(main(sys.argv[1:]))
