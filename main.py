"""Real-time domain adaptation for semantic segmentation: `python main.py --action …`.

This is the only file that knows every action.
"""

import functools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trainings import demo
from trainings.experiment import Experiment, score_experiment, score_transfer, train
from trainings.loaders import Domain
from trainings.train_simple import Supervised
from utils.errors import UserError
from utils.settings import Settings, parse_settings


def no_defaults(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


class Action(NamedTuple):
    """What an action runs, its line of help, and its own defaults given the explicit flags."""

    run: Callable[[Settings], None]
    help: str
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = no_defaults


TRAININGS = {
    "train_simple_cityscapes": Experiment(
        "simple_cityscapes", Domain.CITYSCAPES, Domain.CITYSCAPES, Supervised
    ),
    "train_simple_gta5": Experiment("simple_gta5", Domain.GTA5, Domain.GTA5, Supervised),
}


def run_training(action: str, settings: Settings) -> None:
    if settings.validation_only:
        score_experiment(TRAININGS[action], action, settings)
    else:
        train(TRAININGS[action], settings)


def training(action: str, help: str) -> Action:
    return Action(functools.partial(run_training, action), help)


ACTIONS: dict[str, Action] = {
    "demo": Action(
        functools.partial(demo.demo, TRAININGS["train_simple_gta5"]),
        "the whole job on Toy City: train on its synthetic domain, score on both, draw pictures",
        demo.defaults,
    ),
    "make_toy_data": Action(
        demo.make_toy_data, "draw Toy City: labelled street scenes in the two real layouts"
    ),
    "train_simple_cityscapes": training(
        "train_simple_cityscapes", "supervised on Cityscapes: what labels of the target would give"
    ),
    "train_simple_gta5": training(
        "train_simple_gta5", "supervised on GTA5: the source-only baseline"
    ),
    "val_gta5_transfer": Action(
        functools.partial(score_transfer, TRAININGS["train_simple_gta5"], "train_simple_gta5"),
        "the domain shift: score the network trained on GTA5 on Cityscapes",
    ),
}


def main(argv: Sequence[str]) -> int:
    """Runs one action; the exit code: 0 done, 1 wrong data, 2 wrong usage, 130 interrupted."""
    settings = parse_settings(
        argv,
        {name: action.help for name, action in ACTIONS.items()},
        {name: action.defaults for name, action in ACTIONS.items()},
    )
    try:
        ACTIONS[settings.action].run(settings)
    except UserError as error:
        if settings.debug:
            traceback.print_exc()
        print(f"main.py: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
