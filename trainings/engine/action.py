"""The action of an experiment: training a network, or scoring it with `--validation_only`."""

from collections.abc import Sequence
from functools import partial

from datasets.data_set import Role
from model.options import NetworkOptions
from trainings.action_flags import (
    SAMPLES_READ,
    SCORING_READ,
    SOURCE_READ,
    TARGET_READ,
    TRAINING_FLAGS,
)
from trainings.engine.run import run_experiment
from trainings.experiment import Experiment
from trainings.options import RecipeOptions, Settings, TrainingOptions
from trainings.recipes import values_of
from utils.cli.action import Action
from utils.cli.common import HardwareOptions, RunOptions

PRETRAINED = "--pretrain_path STDCNet813M_73.91.tar"


def _named_data(experiment: Experiment) -> tuple[str, ...]:
    """Return the flags that name an experiment's data, unless it is for the usual ones."""
    roles = () if experiment.general else experiment.roles
    return tuple(name for role in roles for name in (role.value, f"{role.value}_root"))


def training(
    experiment: Experiment, help: str, *, examples: Sequence[str] = (PRETRAINED,)
) -> Action:
    """Return the action of an experiment."""
    of_data: tuple[str, ...] = SOURCE_READ
    if Role.SOURCE not in experiment.roles:  # one that is named after its data has Cityscapes
        of_data = () if experiment.general else TARGET_READ
    of_target: tuple[str, ...] = ("watch_target",) if experiment.target else ()
    if experiment.validation is Role.SOURCE:
        named = () if experiment.general else ("target", "target_root")
        of_target = ("score_target", "watch_target", *named)
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
            *of_data,
            *of_target,
        ),
        reads_to_score=SCORING_READ,
        resumes=True,
    )
