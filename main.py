"""Real-time domain adaptation for semantic segmentation: `python main.py --action …`.

This is the only file that knows every action.
"""

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
from datasets.options import ToyOptions
from model.catalog import RECORDED
from trainings import catalog
from trainings.action_flags import (
    NETWORK_READ,
    PAIR,
    REPRODUCTION_FLAGS,
    SCORING_FLAGS,
    SCORING_READ,
    SOURCE_READ,
    TARGET_READ,
    VIEWS,
)
from trainings.application import benchmark
from trainings.application.export import export
from trainings.application.options import DeploymentOptions, PictureOptions, PredictionOptions
from trainings.application.predict import predict
from trainings.application.visualize import visualize
from trainings.engine.action import PRETRAINED, training
from trainings.options import EnsembleOptions, Settings, SoftOptions
from trainings.reproduction.demo import make_toy_data, recipe
from trainings.reproduction.options import ReproductionOptions
from trainings.reproduction.reproduce import demo, report, reproduce
from trainings.scoring.mbt import val_mbt
from trainings.scoring.pseudo_labels import generate_pseudo_labels
from trainings.scoring.score import score_transfer
from utils import processes
from utils.cli.action import Action, settings_type
from utils.cli.command_line import parse_settings
from utils.cli.failures import INTERRUPTED, OUT_OF_MEMORY, failed, refused, say
from utils.cli.terminal import Outlet, standard_streams
from utils.errors import UserError
from utils.signals import Stopped
from utils.utils import ask_for_determinism, float32_products, is_out_of_memory


def run_action(settings: Settings) -> None:
    """Run the action that the settings name, with the warnings and the arithmetic that it needs, in
    the main process or in that of a reproduction's step."""
    # torch repeats it for every loader; --num_workers is the user's to choose.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    # PIL warns of large pictures in every thread; those that are too large are an error anyway.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if settings.deterministic:
        ask_for_determinism()
    with float32_products(settings.precision):
        ACTIONS[settings.action].run(settings)


ACTIONS: dict[str, Action] = {
    "demo": Action(
        partial(demo, catalog.STEPS, run_action),
        "the whole job on Toy City: every method, side by side in a table and in pictures",
        recipe,
        flags=("toy_root", "toy_train", "toy_val", "toy_size", *REPRODUCTION_FLAGS),
        examples=("", "--seeds 1 2 3", "--num_epochs 2 --toy_train 8 --toy_val 4"),
        options=(ReproductionOptions,),
        reads=(*catalog.REPRODUCTION_READ, ToyOptions),
        resumes=True,
    ),
    "reproduce": Action(
        partial(reproduce, catalog.STEPS, run_action),
        "the whole job on the data given: every step below, for --configs and --seeds, in tables "
        "and pictures",
        flags=("pretrain_path", "gta5_root", "cityscapes_root", *REPRODUCTION_FLAGS),
        examples=(f"{PRETRAINED} --dry_run", f"{PRETRAINED} --seeds 0 1 2"),
        options=(ReproductionOptions,),
        reads=catalog.REPRODUCTION_READ,
        resumes=True,
    ),
    "report": Action(
        partial(report, catalog.STEPS),
        "those tables and pictures again, from the run folders alone (the sheet of predictions "
        "where the data set is there)",
        flags=("save_model_path", "save_keyword", "cityscapes_root", "runs"),
        examples=("", "--save_keyword demo", "--runs checkpoints/*"),
        options=(ReproductionOptions,),
    ),
    "make_toy_data": Action(
        make_toy_data,
        "draw Toy City: labelled street scenes in the two real layouts",
        flags=("toy_root", "toy_train", "toy_val", "toy_size", "seed", "num_workers"),
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
        catalog.SIMPLE_CITYSCAPES, "supervised on Cityscapes: what labels of the target would give"
    ),
    "train_simple_gta5": training(
        catalog.SIMPLE_GTA5,
        "supervised on GTA5: the source-only baseline",
        examples=(PRETRAINED, f"{PRETRAINED} --config config1 --aug_method C-S-HF"),
    ),
    "val_gta5_transfer": Action(
        partial(score_transfer, catalog.SIMPLE_GTA5),
        "the domain shift: score the network trained on GTA5 on Cityscapes",
        flags=("load_model_path", "select", "eval_scales", "eval_flip"),
        examples=("", "--aug_method C-S-HF", "--load_model_path runs/a/best.pth"),
        reads=SCORING_READ,
    ),
    "train_source": training(
        catalog.ON_SOURCE,
        "supervised on --source, whatever it is",
        examples=(f"--source synthia {PRETRAINED}", "--source synthia --source_root data/RAND"),
    ),
    "train_target": training(
        catalog.ON_TARGET,
        "supervised on --target, whatever it is: what its labels would give",
        examples=(f"--target acdc_night {PRETRAINED}",),
    ),
    "val_transfer": Action(
        partial(score_transfer, catalog.ON_SOURCE),
        "the domain shift: score the network of train_source on --target",
        flags=(*PAIR, "load_model_path", "select", "eval_scales", "eval_flip"),
        examples=("--source synthia --target acdc",),
        reads=(*SCORING_READ, *TARGET_READ),
    ),
    "train_ada": training(
        catalog.ADVERSARIAL,
        "adversarial adaptation to the target (AdaptSegNet)",
        examples=(PRETRAINED, f"{PRETRAINED} --discriminator light --adv_weight 0.0005"),
    ),
    "train_fda": training(
        catalog.FOURIER,
        "Fourier domain adaptation: one network per --fda_beta",
        examples=(f"{PRETRAINED} --fda_beta 0.01", "--target photos/street --fda_beta 0.05"),
    ),
    "train_dacs": training(
        catalog.MIXING,
        "online self-training on mixed images: a mean teacher labels the target (DACS)",
        examples=(PRETRAINED, f"{PRETRAINED} --confidence 0.9"),
    ),
    "train_mic": training(
        catalog.MASKED_MIXING,
        "train_dacs with masked consistency (MIC)",
        examples=(PRETRAINED, f"{PRETRAINED} --mask_ratio 0.5"),
    ),
    "val_mbt": Action(
        partial(val_mbt, catalog.FOURIER, catalog.SELF_TRAINING),
        "multi-band transfer: score the three FDA networks and their ensemble",
        lambda _: {"ssl_round": 0},
        flags=("mbt_checkpoints", "ssl_round", "select", "bn_statistics", *PAIR),
        examples=("", "--ssl_round 1", "--mbt_checkpoints a/best.pth b/best.pth c/best.pth"),
        reads=(EnsembleOptions, *SCORING_READ, *TARGET_READ),
    ),
    "generate_pseudo_labels": Action(
        partial(generate_pseudo_labels, catalog.FOURIER, catalog.SELF_TRAINING),
        "label the target's training images with that ensemble, or with any network",
        flags=(
            *("ssl_round", "load_model_path", "mbt_checkpoints", "select"),
            *("soft", "pseudo_label_path", *PAIR),
        ),
        examples=("", "--ssl_round 2", "--soft --load_model_path runs/a/latest.pth"),
        reads=(
            *(*NETWORK_READ, *TARGET_READ, *VIEWS, "bn_statistics", "on_bad_sample"),
            *("optimizer", "aug_method", "overwrite"),
        ),
        options=(SoftOptions,),
        resumes=True,
    ),
    "train_ssl_fda": training(
        catalog.SELF_TRAINING,
        "self-training: FDA with those pseudo-labels",
        examples=(f"{PRETRAINED} --fda_beta 0.01", f"{PRETRAINED} --fda_beta 0.01 --ssl_round 2"),
    ),
    "train_distill": training(
        catalog.DISTILLATION,
        "distillation: learn the target from the pseudo-labels of any teacher",
        examples=(f"{PRETRAINED} --pseudo_label_path labels",),
    ),
    "visualize": Action(
        partial(visualize, catalog.FOURIER, catalog.SELF_TRAINING, catalog.SUPERVISED),
        "pictures of predictions and errors: of a checkpoint, an ensemble, or every run of a pair",
        flags=(*SCORING_FLAGS, "compare", "mbt_checkpoints", "picture_index", *PAIR),
        examples=("", "--load_model_path runs/a/best.pth", "--compare a/best.pth b/best.pth"),
        reads=(EnsembleOptions, PictureOptions, *SCORING_READ, *TARGET_READ),
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
            *TARGET_READ,
            *VIEWS,
            "bn_statistics",
            "on_bad_sample",
            "save_keyword",
        ),
        resumes=True,
    ),
    "benchmark": Action(
        partial(benchmark.benchmark, catalog.MEASURED),
        "this machine's speed: latency of the network by backend, images/s of each method",
        benchmark.defaults,
        flags=("networks", "sizes", "precisions", "backends", "batch_size", *RECORDED, "device"),
        examples=(
            "--networks bisenet pp_liteseg",
            "--sizes 512x1024 768x1536 --precisions fp32 bf16 --backends eager compiled",
        ),
        alone=True,
        options=(DeploymentOptions,),
        reads=(*NETWORK_READ, *catalog.STEP_READ, "load_model_path", "save_keyword"),
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
        reads=(*NETWORK_READ, *TARGET_READ, *VIEWS, "bn_statistics", "on_bad_sample"),
    ),
}

FlatSettings = settings_type(ACTIONS)
"""The settings of a command: every flag of every room and method."""


def main(argv: Sequence[str]) -> int:
    """Run one action and return the exit code: 0 done, 1 wrong data, 2 wrong usage, 128 + n stopped
    by signal n."""
    settings = parse_settings(argv, ACTIONS)
    action = ACTIONS[settings.action]
    Outlet.may_close = action.goes_on(settings)
    if settings.deterministic:  # before the processes take their GPUs
        ask_for_determinism()
    try:
        if settings.classes:
            settings = replace(settings, class_table=read_classes(settings.classes))
        if not action.alone:
            with processes.together(settings.device):
                run_action(settings)
        elif processes.started_rank() == 0:
            run_action(settings)
    except UserError as error:
        if settings.debug:
            traceback.print_exc()
        return failed(str(error), error.exit_code)
    except (MemoryError, RuntimeError, OSError) as error:
        if processes.another_failed() and not settings.debug:
            return UserError.exit_code
        problem = OUT_OF_MEMORY if is_out_of_memory(error) else refused(error)
        if settings.debug or problem is None:
            raise
        return failed(problem, UserError.exit_code)
    except KeyboardInterrupt as stop:
        say(INTERRUPTED if action.goes_on(settings) else "interrupted")
        return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)
    return 0


if __name__ == "__main__":
    with standard_streams():
        sys.exit(main(sys.argv[1:]))
