"""Real-time domain adaptation for semantic segmentation: `python main.py --action …`.

This is the only file that knows every action.
"""

import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from trainings import demo
from trainings.experiment import Experiment, run_experiment, score_transfer
from trainings.loaders import Domain
from trainings.train_simple import Supervised
from utils.errors import UserError
from utils.settings import Settings, parse_settings
from utils.utils import is_out_of_memory


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

ACTIONS: dict[str, Action] = {
    "demo": Action(
        partial(demo.demo, SIMPLE_GTA5),
        "the whole job on Toy City: train on its synthetic domain, score on both, draw pictures",
        demo.defaults,
    ),
    "make_toy_data": Action(
        demo.make_toy_data, "draw Toy City: labelled street scenes in the two real layouts"
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
}


OUT_OF_MEMORY = (
    "out of memory: lower --batch_size (2 at least in training) or --image_size; the last "
    "checkpoint is kept"
)
INTERRUPTED = (
    "interrupted; the same command, without --overwrite, continues a training run from its last "
    "checkpoint"
)


def main(argv: Sequence[str]) -> int:
    """Runs one action; the exit code: 0 done, 1 wrong data, 2 wrong usage, 130 interrupted."""
    settings = parse_settings(
        argv,
        {name: action.help for name, action in ACTIONS.items()},
        {name: action.defaults for name, action in ACTIONS.items()},
    )
    # torch repeats it for every loader; --num_workers is the user's to choose.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
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
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
