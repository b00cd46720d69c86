"""Real-time domain adaptation for semantic segmentation: `python main.py --action …`.

This is the only file that knows every action.
"""

import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from trainings import benchmark, demo
from trainings.check_data import check_data
from trainings.experiment import Experiment, unlabelled_cityscapes
from trainings.export import export
from trainings.loaders import Domain
from trainings.mbt import val_mbt
from trainings.pseudo_labels import generate_pseudo_labels, pseudo_labelled_cityscapes
from trainings.scoring import score_transfer
from trainings.stopping import Stopped
from trainings.train_ADA import ADA
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from trainings.training import run_experiment
from trainings.visualize import visualize
from utils.command_line import parse_settings
from utils.errors import UserError
from utils.settings import Settings
from utils.utils import ask_for_determinism, is_out_of_memory


def no_defaults(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


class Action(NamedTuple):
    """What an action runs, its line of help, and its own defaults given the explicit flags."""

    run: Callable[[Settings], None]
    help: str
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = no_defaults


SIMPLE_CITYSCAPES = Experiment(
    action="train_simple_cityscapes",
    stem="simple_cityscapes",
    source=Domain.CITYSCAPES,
    validation=Domain.CITYSCAPES,
    method=Supervised,
)
SIMPLE_GTA5 = Experiment(
    action="train_simple_gta5",
    stem="simple_gta5",
    source=Domain.GTA5,
    validation=Domain.GTA5,
    method=Supervised,
)
ADVERSARIAL = Experiment(
    action="train_ada",
    stem="ada",
    source=Domain.GTA5,
    validation=Domain.CITYSCAPES,
    method=ADA,
    target=unlabelled_cityscapes,
    adaptation=("discriminator", "disc_learning_rate", "adv_weight"),
)
FOURIER = Experiment(
    action="train_fda",
    stem="fda{beta}",
    source=Domain.GTA5,
    validation=Domain.CITYSCAPES,
    method=FDA,
    target=unlabelled_cityscapes,
    adaptation=("fda_beta", "ent_weight", "ent_eta"),
    distinguishing=("fda_beta",),
)
SELF_TRAINING = Experiment(
    action="train_ssl_fda",
    stem="ssl{round}_fda{beta}",
    source=Domain.GTA5,
    validation=Domain.CITYSCAPES,
    method=SSLFDA,
    target=pseudo_labelled_cityscapes,
    adaptation=("fda_beta", "ent_weight", "ent_eta", "ssl_round"),
    distinguishing=("fda_beta", "ssl_round"),
)

ACTIONS: dict[str, Action] = {
    "demo": Action(
        partial(
            demo.demo,
            demo.Methods(
                source_only=SIMPLE_GTA5,
                ada=ADVERSARIAL,
                fda=FOURIER,
                ssl_fda=SELF_TRAINING,
                upper_bound=SIMPLE_CITYSCAPES,
            ),
        ),
        "the whole job on Toy City: every method, side by side in a table and in pictures",
        demo.defaults,
    ),
    "make_toy_data": Action(
        demo.make_toy_data, "draw Toy City: labelled street scenes in the two real layouts"
    ),
    "check_data": Action(
        check_data, "read every file of both data sets once: what is broken, what they hold"
    ),
    "train_simple_cityscapes": Action(
        partial(run_experiment, SIMPLE_CITYSCAPES),
        "supervised on Cityscapes: what labels of the target would give",
    ),
    "train_simple_gta5": Action(
        partial(run_experiment, SIMPLE_GTA5), "supervised on GTA5: the source-only baseline"
    ),
    "val_gta5_transfer": Action(
        partial(score_transfer, SIMPLE_GTA5),
        "the domain shift: score the network trained on GTA5 on Cityscapes",
    ),
    "train_ada": Action(
        partial(run_experiment, ADVERSARIAL), "adversarial adaptation to Cityscapes (AdaptSegNet)"
    ),
    "train_fda": Action(
        partial(run_experiment, FOURIER), "Fourier domain adaptation: one network per --fda_beta"
    ),
    "val_mbt": Action(
        partial(val_mbt, FOURIER, SELF_TRAINING),
        "multi-band transfer: score the three FDA networks and their ensemble",
        lambda explicit: {"ssl_round": 0},
    ),
    "generate_pseudo_labels": Action(
        partial(generate_pseudo_labels, FOURIER, SELF_TRAINING),
        "label Cityscapes' training images with that ensemble",
    ),
    "train_ssl_fda": Action(
        partial(run_experiment, SELF_TRAINING), "self-training: FDA with those pseudo-labels"
    ),
    "visualize": Action(
        partial(visualize, FOURIER, SELF_TRAINING),
        "pictures of predictions and errors: of a checkpoint, an ensemble, or every run",
    ),
    "benchmark": Action(
        partial(benchmark.benchmark, (SIMPLE_GTA5, ADVERSARIAL, FOURIER, SELF_TRAINING)),
        "this machine's speed: latency of the network by backend, images/s of each method",
        benchmark.defaults,
    ),
    "export": Action(
        export, "a checkpoint as ONNX or torch.export file for other programs, compared first"
    ),
}


OUT_OF_MEMORY = (
    "out of memory: lower --batch_size (2 at least in training) or --image_size; what was saved "
    "is kept"
)
INTERRUPTED = (
    "interrupted; what was saved is kept, and the same command, without --overwrite, goes on from "
    "there"
)


def main(argv: Sequence[str]) -> int:
    """Runs one action; the exit code: 0 done, 1 wrong data, 2 wrong usage, 128 + n stopped by
    signal n."""
    settings = parse_settings(
        argv,
        {name: action.help for name, action in ACTIONS.items()},
        {name: action.defaults for name, action in ACTIONS.items()},
    )
    # torch repeats it for every loader; --num_workers is the user's to choose.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    if settings.deterministic:
        ask_for_determinism()
    try:
        ACTIONS[settings.action].run(settings)
    except UserError as error:
        if settings.debug:
            traceback.print_exc()
        print(f"main.py: error: {error}", file=sys.stderr)
        return error.exit_code
    except (MemoryError, RuntimeError) as error:
        if settings.debug or not is_out_of_memory(error):
            raise
        print(f"main.py: error: {OUT_OF_MEMORY}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt as stop:
        print(INTERRUPTED, file=sys.stderr)
        return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
