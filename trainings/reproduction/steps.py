"""Define a step of the whole study; `trainings/catalog.py` has the table of the steps."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from datasets.catalog import has_labels, name_of
from datasets.data_set import Role
from trainings.experiment import Experiment
from trainings.options import Settings
from trainings.scoring.batch_norm import TRAINING
from utils.cli.options import flags_of
from utils.errors import UserError

AUGMENTATION = "C-S-HF"
"""Augmentation of the one step that has any, unless `--aug_method` names another."""

SOURCE_ONLY = "Source-only"
ADAPTED_SOURCE_ONLY = f"{SOURCE_ONLY}, target statistics"


class Work(Enum):
    """The kinds of commands of a step."""

    TRAIN = auto()
    SCORE = auto()
    ENSEMBLE = auto()
    LABEL = auto()


@dataclass(frozen=True)
class Step:
    """A row of the table.

    Attributes:
        number: the step's number in the users' list.
        title: its name in the tables of results.
        experiment: what it trains, or whose networks it uses.
        work: its commands, in order; a row without any only adds a line to the results.
        flag: a flag that the step sets, with a training for each of `values`.
        found: the results have a line for each value of `flag` that was trained, not for `values`.
        domain: the data set that its line is scored on; a step without one has no line.
        statistics: TARGET for a line that has only scores with the target's statistics.
        baseline: the results compare all other lines with this one.
        plan_title: its name in the plan, where that is another one.
        teacher: whose networks' soft labels it makes and learns from.
    """

    number: str
    title: str
    experiment: Experiment
    work: tuple[Work, ...] = (Work.TRAIN, Work.SCORE)
    flag: str = ""
    values: tuple[Any, ...] = ()
    found: bool = False
    domain: Role | None = Role.TARGET
    statistics: str = TRAINING
    baseline: bool = False
    plan_title: str = ""
    teacher: Experiment | None = None

    @property
    def ensemble_round(self) -> int | None:
        """The round of self-training whose networks are its ensemble, if it has one."""
        if Work.ENSEMBLE not in self.work:
            return None
        return int("ssl_round" in self.experiment.distinguishing)

    def title_with(self, value: Any) -> str:
        """Return the title of the step with a value of its flag."""
        return f"{self.title}, {value}" if isinstance(value, str) else f"{self.title} {value:g}"


def by_action(steps: Iterable[Step]) -> dict[str, Experiment]:
    """Return the experiments of the steps by the actions that train them, on the usual data sets
    or on others."""
    experiments = dict.fromkeys(step.experiment for step in steps)
    others = {one.general.action: one for one in experiments if one.general}
    return others | {one.action: one for one in experiments}


def on_pair(steps: Iterable[Step], settings: Settings) -> list[Step]:
    """Return the steps with experiments on the settings' source and target."""
    return [replace(step, experiment=step.experiment.with_data(settings)) for step in steps]


def with_labels(steps: Iterable[Step], settings: Settings) -> list[Step]:
    """Return the steps for which the target has labels; print which ones are left out, because it
    has none to train on. Raise UserError where it has none to score on."""
    own = list(steps)
    title = name_of(Role.TARGET, settings)
    if not has_labels(Role.TARGET, "val", settings):
        raise UserError(
            f"{title} has no labels of its val split, and {settings.action} compares methods by "
            "their scores on it: label some of its pictures, as val/images and val/labels beside "
            "train/images, or train one method by its own action, such as train_dacs, and look "
            "with visualize"
        )
    if has_labels(Role.TARGET, "train", settings):
        return own
    left_out = [step.title for step in own if step.experiment.source is Role.TARGET]
    print(f"left out, because {title} has no labels to train on: {', '.join(left_out)}")
    return [step for step in own if step.experiment.source is not Role.TARGET]


def run_flags(steps: Iterable[Step], experiment: Experiment) -> dict[str, Any]:
    """Return the flags that tell an experiment's runs apart in the steps, with their defaults."""
    own = {step.flag for step in steps if step.experiment is experiment and step.flag}
    kinds = (Settings, experiment.method.Options)
    defaults = {field.name: field.default for kind in kinds for field in flags_of(kind)}
    return {name: defaults[name] for name in sorted({"aug_method", *own})}
