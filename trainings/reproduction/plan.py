"""The plan of a whole reproduction: every step the users list, as the commands they would type.

<folder>/<config>/seed<k>/<run>: ordinary runs under ordinary names, so that each command finds what
the ones before it made.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets.catalog import Domain
from trainings.engine.run import is_trained, own_folder, run_experiment
from trainings.experiment import Experiment
from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.mbt import BETAS, ensemble_stem, ensemble_suffix, val_mbt
from trainings.scoring.pseudo_labels import SUMMARY, generate_pseudo_labels, label_folder
from trainings.scoring.record import checkpoint_scores_name, scores_name
from trainings.scoring.runs import selected
from trainings.scoring.score import score_transfer
from utils.cli.settings import PRESETS, TOY_CITY, Settings, setting_fields, with_derived_defaults
from utils.errors import UsageError, UserError
from utils.transforms import augmentation_codes

AUGMENTATION = "C-S-HF"
"""Of the second source-only training, unless `--aug_method` names another; the rest has none."""

UPPER_BOUND, SOURCE_ONLY, ADVERSARIAL, FOURIER, ENSEMBLE, SELF_TRAINING, SECOND_ENSEMBLE = (
    "Supervised on the target",
    "Source-only",
    "ADA",
    "FDA",
    "MBT",
    "SSL-FDA",
    "MBT of SSL-FDA",
)

ADAPTED_SOURCE_ONLY = f"{SOURCE_ONLY}, target statistics"

SCORED = (("best", TRAINING), ("last", TRAINING), ("last", TARGET))
"""`--select` and `--bn_statistics` of the scores that every method gets on the target."""

PLANS_OWN = (
    *("load_model_path", "mbt_checkpoints", "compare", "pseudo_label_path", "validation_only"),
    *("fda_beta", "ssl_round", "eval_scales", "eval_flip"),
)
"""Flags of single steps, which the plan decides."""

NOT_PASSED_ON = {
    *("action", "config", "configs", "seed", "seeds", "dry_run", "save_model_path"),
    *("save_keyword", "aug_method"),
    *(f.name for f in setting_fields() if f.metadata["group"] == TOY_CITY),
}
"""Flags of the whole, which no step takes over as they are."""


class Methods(NamedTuple):
    """The experiments of a reproduction."""

    source_only: Experiment
    ada: Experiment
    fda: Experiment
    ssl_fda: Experiment
    upper_bound: Experiment


class Passes(NamedTuple):
    """How many networks see the target's validation and its training images, training aside."""

    validation: int = 0
    training: int = 0


class Command(NamedTuple):
    """One command: its flags, the settings they mean, and what it runs.

    `trains` is its experiment, if it is a training. Any other command makes the files `makes` from
    the files `made_from`.
    """

    flags: Mapping[str, Any]
    settings: Settings
    run: Callable[[Settings], None]
    passes: Passes
    trains: Experiment | None = None
    makes: tuple[Path, ...] = ()
    made_from: tuple[Path, ...] = ()

    def is_done(self) -> bool:
        """Whether it has nothing left to do. Raises UsageError where another run lies in its
        folder."""
        if self.settings.overwrite:
            return False
        if self.trains:
            return _is_trained(self.trains, self.settings)
        files = (*self.makes, *self.made_from)
        return all(file.exists() for file in files) and min(map(_age, self.makes)) >= max(
            map(_age, self.made_from)
        )

    def text(self) -> str:
        """As a user would type it."""
        return shlex.join(["python", "main.py", *words(self.flags)])


def _is_trained(experiment: Experiment, settings: Settings) -> bool:
    try:
        return is_trained(experiment, settings)
    except UsageError:
        raise
    except UserError:  # its data are still to be made, or have gone: the training itself will say
        return False


def _age(path: Path) -> float:
    return path.stat().st_mtime


def words(flags: Mapping[str, Any]) -> list[str]:
    """The command line of flags."""
    parts: list[str] = []
    for name, value in flags.items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            parts += [f"--{name}", *map(str, values)]
    return parts


class Step(NamedTuple):
    """A step of the users' list, for one config and seed, with the folder it fills."""

    number: str
    title: str
    config: str
    seed: int
    folder: Path
    commands: tuple[Command, ...]

    def is_done(self) -> bool:
        return all(command.is_done() for command in self.commands)


def plan_folder(settings: Settings) -> Path:
    return settings.save_model_path / (settings.save_keyword or settings.action)


def make_plan(
    methods: Methods,
    settings: Settings,
    *,
    recipe: Mapping[str, Any] | None = None,
    self_training: Sequence[float] = BETAS,
) -> list[Step]:
    """All steps, seed after seed, so that every config has a first result early.

    Explicit flags go on to every step and beat a preset, which beats the recipe. `self_training`
    are the betas of SSL-FDA. Raises UsageError for flags that only a single step can have, and
    where two configs are the same.
    """
    explicit = settings.explicit()
    if single := [name for name in PLANS_OWN if name in explicit]:
        raise UsageError(
            f"argument --{single[0]}: {settings.action} decides it step by step; leave it out, or "
            "run the step by its own action"
        )
    if settings.select == "ema" and not settings.ema_decay:
        raise UsageError("argument --select: no step makes averaged weights without --ema_decay")
    flags = {**(recipe or {}), **explicit}
    seeds = dict.fromkeys(settings.seeds or (settings.seed,))
    planners = [
        _Planner(methods, settings, _beating(config, flags, explicit), config, seed, self_training)
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
    """Those of the flags that a config's preset does not replace."""
    preset = PRESETS.get(config, {})
    return {n: value for n, value in flags.items() if n in explicit or n not in preset}


def _configs(settings: Settings, flags: Mapping[str, Any]) -> list[str]:
    """The presets to run; or the optimiser's name, where that is given instead."""
    if settings.configs:
        return list(dict.fromkeys(settings.configs))
    if settings.config:
        return [settings.config]
    return [flags["optimizer"]] if "optimizer" in flags else list(PRESETS)


class _Planner:
    """Makes the steps of one config and seed."""

    def __init__(
        self,
        methods: Methods,
        settings: Settings,
        flags: Mapping[str, Any],
        config: str,
        seed: int,
        self_training: Sequence[float],
    ):
        self.methods, self.config, self.seed = methods, config, seed
        self.self_training = self_training
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
        return with_derived_defaults(Settings(**{**preset, **self.flags, **changes}))

    def steps(self) -> Iterator[Step]:
        """In the users' order."""
        augmented = {"aug_method": self.augmentation}
        first, second = self.methods.fda, self.methods.ssl_fda
        yield self._trained("1.A", UPPER_BOUND, self.methods.upper_bound)
        source_only = self._training(self.methods.source_only)
        yield self._step("1.B", SOURCE_ONLY, source_only)
        yield self._step("1.C", "Domain shift", *self._transfers(), folder=_folder(source_only))
        again = self._training(self.methods.source_only, **augmented)
        yield self._step(
            "1.D", f"{SOURCE_ONLY}, {self.augmentation}", again, *self._transfers(**augmented)
        )
        yield self._trained("2", ADVERSARIAL, self.methods.ada)
        for beta in BETAS:
            yield self._trained("3.A", f"{FOURIER} {beta}", first, fda_beta=beta)
        yield self._step("3.B", ENSEMBLE, *self._ensembles(first, 0))
        yield self._step("3.C", "Pseudo-labels", self._labels())
        for beta in self.self_training:
            yield self._trained("3.C", f"{SELF_TRAINING} {beta}", second, fda_beta=beta)
        if set(BETAS) <= set(self.self_training):
            yield self._step("3.C", SECOND_ENSEMBLE, *self._ensembles(second, 1))

    def _step(
        self, number: str, title: str, *commands: Command, folder: Path | None = None
    ) -> Step:
        folder = folder or _folder(commands[0])
        return Step(number, title, self.config, self.seed, folder, commands)

    def _trained(self, number: str, title: str, experiment: Experiment, **changes: Any) -> Step:
        """A training that is validated on the target, and its scores there."""
        training = self._training(experiment, **changes)
        return self._step(number, title, training, *self._scorings(experiment, **changes))

    def _command(
        self,
        action: str,
        run: Callable[[Settings], None],
        passes: Passes,
        changes: Mapping[str, Any],
        **details: Any,
    ) -> Command:
        flags = {"action": action, **self.flags, **changes}
        return Command(flags, self.settings(action=action, **changes), run, passes, **details)

    def _training(self, experiment: Experiment, **changes: Any) -> Command:
        run = partial(run_experiment, experiment)
        passes = Passes(1, 1) if experiment.target else Passes()
        return self._command(experiment.action, run, passes, changes, trains=experiment)

    def _scorings(self, experiment: Experiment, **changes: Any) -> Iterator[Command]:
        run = partial(run_experiment, experiment)
        for select, statistics in SCORED:
            chosen = {
                **changes,
                "validation_only": True,
                "select": select,
                "bn_statistics": statistics,
            }
            settings = self.settings(**chosen)
            folder = own_folder(experiment, settings).path
            yield self._command(
                experiment.action,
                run,
                Passes(1, int(statistics == TARGET)),
                chosen,
                makes=(_scores(folder, settings),),
                made_from=(folder / selected(settings),),
            )

    def _transfers(self, **changes: Any) -> Iterator[Command]:
        source_only = self.methods.source_only
        for select in dict(SCORED):
            chosen = {**changes, "select": select}
            settings = self.settings(**chosen)
            folder = own_folder(source_only, settings).path
            both = (self.settings(**chosen, bn_statistics=s) for s in (TRAINING, TARGET))
            yield self._command(
                "val_gta5_transfer",
                partial(score_transfer, source_only),
                Passes(2, 1),
                chosen,
                makes=tuple(_scores(folder, one) for one in both),
                made_from=(folder / selected(settings),),
            )

    def _ensembles(self, experiment: Experiment, ssl_round: int) -> Iterator[Command]:
        for select, statistics in SCORED:
            chosen = {"ssl_round": ssl_round, "select": select, "bn_statistics": statistics}
            settings = self.settings(**chosen)
            name = scores_name(Domain.CITYSCAPES, settings, ensemble_suffix(settings))
            folder = settings.save_model_path / settings.run_name(ensemble_stem(ssl_round))
            yield self._command(
                "val_mbt",
                partial(val_mbt, self.methods.fda, self.methods.ssl_fda),
                Passes(len(BETAS), len(BETAS) * (statistics == TARGET)),
                chosen,
                makes=(folder / f"{name}.json",),
                made_from=self._members(experiment, settings),
            )

    def _labels(self) -> Command:
        """By the last epochs: the best ones are chosen with the target's labels."""
        chosen = {"select": self.flags.get("select", "last")}
        settings = self.settings(**chosen)
        return self._command(
            "generate_pseudo_labels",
            partial(generate_pseudo_labels, self.methods.fda, self.methods.ssl_fda),
            Passes(training=2 * len(BETAS)),
            chosen,
            makes=(label_folder(settings) / SUMMARY,),
            made_from=self._members(self.methods.fda, settings),
        )

    def _members(self, experiment: Experiment, settings: Settings) -> tuple[Path, ...]:
        """The checkpoints of an ensemble, also before they are trained."""
        folders = (
            own_folder(experiment, self.settings(fda_beta=beta, ssl_round=1)).path for beta in BETAS
        )
        return tuple(folder / selected(settings) for folder in folders)


def _folder(command: Command) -> Path:
    """What a command fills."""
    if command.trains:
        return own_folder(command.trains, command.settings).path
    return command.makes[0].parent


def _scores(folder: Path, settings: Settings) -> Path:
    """The scores of a run's selected checkpoint on the target."""
    checkpoint = folder / selected(settings)
    name = checkpoint_scores_name(checkpoint, folder, Domain.CITYSCAPES, settings)
    return folder / f"{name}.json"
