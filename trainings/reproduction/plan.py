"""The plan of a whole reproduction: the table of steps as the commands that a user would type.

<folder>/<config>/seed<k>/<run>: ordinary runs under ordinary names, so that each command finds what
the ones before it made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets.catalog import name_of, resize_size
from datasets.data_set import Role
from datasets.options import ToyOptions
from trainings.engine.run import is_trained, own_folder
from trainings.experiment import Experiment
from trainings.options import PseudoLabelOptions, Settings, SoftOptions
from trainings.reproduction.kinds import ADAPTED, BEST, LAST
from trainings.reproduction.options import ReproductionOptions
from trainings.reproduction.steps import AUGMENTATION, Step, Work, on_pair
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.mbt import BETAS, ensemble_stem
from trainings.scoring.pseudo_label_folder import SUMMARY, label_folder, label_folder_of
from trainings.scoring.record import Kind, find_scores, scored_size
from trainings.scoring.runs import CHECKPOINTS
from utils.cli.common import PRESETS
from utils.cli.flags import command_line
from utils.cli.options import flags_of
from utils.errors import UsageError, UserError
from utils.notes import say_once
from utils.transforms import augmentation_codes

SCORED = (BEST, LAST, ADAPTED)
"""`--select` and `--bn_statistics` of the scores that every method gets on the target."""

PLANS_OWN = (
    *("load_model_path", "mbt_checkpoints", "compare", "pseudo_label_path", "validation_only"),
    *("fda_beta", "ssl_round", "eval_scales", "eval_flip", "soft", "mask_ratio"),
)
"""Flags that the plan sets for each step; a user cannot give them."""

NOT_PASSED_ON = {
    *("action", "config", "configs", "seed", "seeds", "jobs", "dry_run", "verbose"),
    *("save_model_path", "save_keyword", "aug_method"),
    *(field.name for field in flags_of(ToyOptions)),
}
"""Flags of the whole reproduction, which the plan does not pass on to its steps."""


class Passes(NamedTuple):
    """How many networks predict the target's validation images and its training images, beside the
    updates of a training."""

    validation: int = 0
    training: int = 0


class Command(NamedTuple):
    """One command: its flags, the settings they mean, and the folder it fills.

    `trains` is its experiment, if it is a training. Any other command makes scores of the kinds
    `scores`, or pseudo-labels where there are none. `made_from` are the files of other commands
    that it uses: checkpoints, or the record of the pseudo-labels that it learns from.
    """

    flags: Mapping[str, Any]
    settings: Settings
    folder: Path
    trains: Experiment | None = None
    made_from: tuple[Path, ...] = ()
    scores: tuple[Kind, ...] = ()

    @property
    def passes(self) -> Passes:
        if self.trains:
            return Passes(1, 1) if self.trains.target else Passes()
        if not self.scores:  # hard labels need thresholds first
            times = 1 if SoftOptions.of(self.settings).soft else 2
            return Passes(training=times * len(self.made_from))
        adapted = [statistics for _, statistics in self.scores].count(TARGET)
        return Passes(len(self.scores) * len(self.made_from), adapted * len(self.made_from))

    def is_done(self) -> bool:
        """Return whether nothing is left to do. Raise UsageError where another run lies in its
        folder."""
        if self.settings.overwrite:
            return False
        if self.trains:
            return _is_trained(self.trains, self.settings)
        makes = self._scores() if self.scores else [self.folder / SUMMARY]
        made = [file for file in makes if file is not None]
        if len(made) < len(makes) or not all(file.exists() for file in (*made, *self.made_from)):
            return False
        return min(map(_age, made)) >= max(map(_age, self.made_from))

    def _scores(self) -> list[Path | None]:
        """Return the file of each score, at the size that the command asks for."""
        size = resize_size(Role.TARGET, self.settings)
        found = find_scores(self.folder, name_of(Role.TARGET, self.settings), size)
        at_size = {kind: file for kind, (file, one) in found.items() if scored_size(one) == size}
        return [at_size.get(kind) for kind in self.scores]

    def without_overwrite(self) -> "Command":
        """Return the command that goes on with what it finds."""
        flags = {name: value for name, value in self.flags.items() if name != "overwrite"}
        return self._replace(flags=flags, settings=replace(self.settings, overwrite=False))

    def text(self) -> str:
        """Return the command as a user would type it."""
        return command_line(self.flags)


def _is_trained(experiment: Experiment, settings: Settings) -> bool:
    try:
        return is_trained(experiment, settings)
    except UsageError:
        raise
    except UserError:  # its data are still to be made, or have gone: the training itself will say
        return False


def _age(path: Path) -> float:
    return path.stat().st_mtime


class PlannedStep(NamedTuple):
    """A step of the table for one config, seed and value of its flag, with the folder it fills."""

    number: str
    title: str
    config: str
    seed: int
    folder: Path
    commands: tuple[Command, ...]

    def is_done(self) -> bool:
        return all(command.is_done() for command in self.commands)


def plan_folder(settings: Settings) -> Path:
    """Return the folder of a whole reproduction; `report` reads that of `reproduce`."""
    action = "reproduce" if settings.action == "report" else settings.action
    return settings.save_model_path / (settings.save_keyword or f"{action}{settings.pair()}")


def make_plan(
    table: Sequence[Step], settings: Settings, *, recipe: Mapping[str, Any] | None = None
) -> list[PlannedStep]:
    """Return all steps, seed after seed, so that every config has a first result early.

    Explicit flags go on to every step and beat a preset, which beats the recipe. Raise UsageError
    for flags that only a single step can have, and where two configs are the same.
    """
    explicit = settings.explicit()
    if single := [name for name in PLANS_OWN if name in explicit]:
        raise UsageError(
            f"argument --{single[0]}: {settings.action} decides it step by step; leave it out, or "
            "run the step by its own action"
        )
    table = on_pair(table, settings)
    flags = {**(recipe or {}), **explicit}
    seeds = dict.fromkeys(ReproductionOptions.of(settings).seeds or (settings.seed,))
    planners = [
        _Planner(table, settings, _beating(config, flags, explicit), config, seed)
        for seed in seeds
        for config in _configs(settings, flags)
    ]
    results = [str(planner.settings().result_settings()) for planner in planners]
    if len(set(results)) < len(results):
        raise UsageError(
            f"argument --configs: with these flags {' and '.join(_configs(settings, flags))} are "
            "the same; name one of them"
        )
    return [step for planner in planners for step in planner.steps()]


def _beating(config: str, flags: Mapping[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that the preset of a config does not replace."""
    preset = PRESETS.get(config, {})
    return {n: value for n, value in flags.items() if n in explicit or n not in preset}


def _configs(settings: Settings, flags: Mapping[str, Any]) -> list[str]:
    """Return the presets to run, or the optimiser's name where `--optimizer` is given instead."""
    if configs := ReproductionOptions.of(settings).configs:
        return list(dict.fromkeys(configs))
    if settings.config:
        return [settings.config]
    return [flags["optimizer"]] if "optimizer" in flags else list(PRESETS)


class _Planner:
    """Makes the steps of one config and seed."""

    def __init__(
        self,
        table: Sequence[Step],
        settings: Settings,
        flags: Mapping[str, Any],
        config: str,
        seed: int,
    ):
        self.table, self.config, self.seed = table, config, seed
        self.kind, self.classes = type(settings), settings.class_table
        codes = augmentation_codes(settings.aug_method)
        self.augmentation = settings.aug_method if codes else AUGMENTATION
        self.flags = {
            **({"config": config} if config in PRESETS else {}),
            **{name: value for name, value in flags.items() if name not in NOT_PASSED_ON},
            "seed": seed,
            "save_model_path": plan_folder(settings) / config / f"seed{seed}",
        }

    def settings(self, **changes: Any) -> Settings:
        preset = PRESETS.get(self.config, {})
        return self.kind(**{**preset, **self.flags, **changes}, class_table=self.classes)

    def steps(self) -> Iterator[PlannedStep]:
        """Yield the steps in the table's order; an ensemble needs a network of each beta."""
        trained = {step.experiment: step.values for step in self.table if step.flag == "fda_beta"}
        for step in self.table:
            if step.ensemble_round is None or set(BETAS) <= set(trained[step.experiment]):
                augmented = step.flag == "aug_method"
                for value in (self.augmentation,) if augmented else step.values or (None,):
                    yield from self._planned(step, value)

    def _planned(self, step: Step, value: Any) -> Iterator[PlannedStep]:
        changes = self._defaults(step.experiment) | ({step.flag: value} if step.flag else {})
        if step.teacher:
            changes["pseudo_label_path"] = self._labels_of(step.teacher)
        commands = tuple(c for work in step.work for c in self._commands(step, work, changes))
        if commands:
            title = step.title_with(value) if step.flag else step.plan_title or step.title
            folder = next((c.folder for c in commands if c.trains), commands[0].folder)
            yield PlannedStep(step.number, title, self.config, self.seed, folder, commands)

    def _defaults(self, experiment: Experiment) -> dict[str, Any]:
        """Return the defaults of an experiment that no flag of the command replaces; a method with
        a teacher, whose average is scored anyway, trains without `--ema_decay`."""
        own = {n: value for n, value in experiment.defaults if n not in self.flags}
        averaged = experiment.method.has_teacher and "ema_decay" in self.flags
        return own | ({"ema_decay": 0.0} if averaged else {})

    def _labels_of(self, teacher: Experiment) -> Path:
        """Return the folder of the soft labels that the network of a training makes."""
        return label_folder_of(self._folder(teacher) / CHECKPOINTS["last"], self.settings())

    def _folder(self, experiment: Experiment) -> Path:
        """Return the folder of the run that an experiment's defaults mean."""
        return own_folder(experiment, self.settings(**self._defaults(experiment))).path

    def _commands(self, step: Step, work: Work, changes: Mapping[str, Any]) -> Iterator[Command]:
        experiment = step.experiment
        folder = own_folder(experiment, self.settings(**changes)).path
        if work is Work.TRAIN:
            watched = {"score_target": True} if experiment.validation is Role.SOURCE else {}
            chosen = {**changes, **watched}
            labels = self._labels_read(experiment, chosen)
            yield self._command(
                experiment.action, chosen, folder, trains=experiment, made_from=labels
            )
        elif work is Work.SCORE and experiment.validation is Role.TARGET:
            for select, statistics in SCORED:
                chosen = {"validation_only": True, "select": select, "bn_statistics": statistics}
                yield self._command(
                    experiment.action,
                    {**changes, **chosen},
                    folder,
                    made_from=(folder / CHECKPOINTS[select],),
                    scores=((select, statistics),),
                )
        elif work is Work.SCORE:
            for select in dict(SCORED):
                yield self._command(
                    experiment.transfer,
                    {**changes, "select": select},
                    folder,
                    made_from=(folder / CHECKPOINTS[select],),
                    scores=((select, TRAINING), (select, TARGET)),
                )
        elif step.teacher:
            yield self._soft_labels(step.teacher)
        else:
            yield from self._of_members(step, work)

    def _labels_read(self, experiment: Experiment, changes: Mapping[str, Any]) -> tuple[Path, ...]:
        """Return the record of the pseudo-labels that an experiment learns from, if it does."""
        if not issubclass(experiment.method.Options, PseudoLabelOptions):
            return ()
        return (label_folder(self.settings(**changes)) / SUMMARY,)

    def _soft_labels(self, teacher: Experiment) -> Command:
        """Return the command by which the last network of a training labels the target."""
        select, folder = self._labelling(teacher), self._labels_of(teacher)
        checkpoint = self._folder(teacher) / CHECKPOINTS[select]
        chosen = {"load_model_path": checkpoint, "soft": True, "pseudo_label_path": folder}
        return self._command("generate_pseudo_labels", chosen, folder, made_from=(checkpoint,))

    def _labelling(self, experiment: Experiment) -> str:
        """Return the `--select` of an experiment's networks that make pseudo-labels."""
        select = self.flags.get("select", "last")
        averaged = experiment.method.has_teacher or self.flags.get("ema_decay")
        if select == "ema" and not averaged:
            say_once(
                f"note: the networks of {experiment.action} label with their last epoch: they have "
                "averaged weights with --ema_decay only"
            )
            return "last"
        return select

    def _of_members(self, step: Step, work: Work) -> Iterator[Command]:
        """Yield the commands that use the networks of all betas together."""
        if work is Work.LABEL:  # by the last epochs: the best are chosen with the target's labels
            chosen = {"select": self._labelling(step.experiment)}
            folder = label_folder(self.settings(**chosen))
            members = self._members(step.experiment, chosen["select"])
            yield self._command("generate_pseudo_labels", chosen, folder, made_from=members)
            return
        number = step.ensemble_round
        assert number is not None
        for select, statistics in SCORED:
            ways = {"ssl_round": number, "select": select, "bn_statistics": statistics}
            settings = self.settings(**ways)
            folder = settings.save_model_path / settings.run_name(ensemble_stem(number))
            members = self._members(step.experiment, settings.select)
            scores = ((select, statistics),)
            yield self._command("val_mbt", ways, folder, made_from=members, scores=scores)

    def _command(
        self, action: str, changes: Mapping[str, Any], folder: Path, **details: Any
    ) -> Command:
        flags = {"action": action, **self.flags, **changes}
        return Command(flags, self.settings(action=action, **changes), folder, **details)

    def _members(self, experiment: Experiment, select: str) -> tuple[Path, ...]:
        """Return the checkpoints of an ensemble, also before they are trained."""
        members = (self.settings(fda_beta=beta) for beta in BETAS)
        folders = (own_folder(experiment, settings).path for settings in members)
        return tuple(folder / CHECKPOINTS[select] for folder in folders)
