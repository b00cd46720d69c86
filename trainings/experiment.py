"""Experiments, which define the training actions, and the networks that actions start from."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.catalog import TrainingFiles, has_labels, unlabelled
from datasets.classes import recorded_classes
from datasets.data_set import Role
from datasets.labels import CITYSCAPES, CLASS_TABLE
from datasets.options import FOLDER
from model.catalog import Design
from model.network import Network
from model.weights.loading import load_backbone, load_network
from model.weights.reading import read_record
from trainings.masked import MaskOptions
from trainings.method import Method
from trainings.options import Settings
from trainings.teacher import TeacherOptions
from utils.cli.options import ADAPTATION, flags_of, names_in
from utils.errors import UsageError
from utils.utils import find_input


@dataclass(frozen=True)
class Experiment:
    """A training action: its method, and the data that it trains and is scored on.

    Attributes:
        action: the word after `--action`.
        stem: what its runs are called by, as in `Settings.run_name`; the flags in it tell apart
            runs that are searched for.
        source: the role of the labelled data it trains on.
        validation: the role whose validation split scores it, and selects its best epoch.
        method: the class of the method.
        target: finds the files of the target that it adapts to, if it does.
        general: the experiment that does the same with other data sets, for one that is named after
            the usual ones.
        transfer: the action that scores its networks on the target, for one of the source alone.
        defaults: flags that are at other values here than elsewhere, unless a command names them.
    """

    action: str
    stem: str
    source: Role
    validation: Role
    method: type[Method]
    target: Callable[[Settings], TrainingFiles] | None = None
    general: "Experiment | None" = None
    transfer: str = ""
    defaults: tuple[tuple[str, Any], ...] = ()

    @property
    def distinguishing(self) -> tuple[str, ...]:
        """The flags that tell its runs apart."""
        return names_in(self.stem)

    def scored_role(self, settings: Settings) -> Role | None:
        """Return the role whose validation split scores a run: the experiment's, the source's where
        that one has no labels, None where neither has."""
        roles = dict.fromkeys((self.validation, self.source))
        return next((role for role in roles if has_labels(role, "val", settings)), None)

    def wanted(self, settings: Settings) -> dict[str, Any]:
        """Return the settings by which a run of this experiment is recognised."""
        chosen = {name: getattr(settings, name) for name in self.distinguishing}
        for role in self.roles:
            chosen[role.value] = getattr(settings, role.value)
            if chosen[role.value] == FOLDER:
                chosen[f"{role.value}_root"] = str(getattr(settings, f"{role.value}_root"))
        return {"action": self.action, **chosen}

    @property
    def roles(self) -> list[Role]:
        """Source and target, as far as its data are theirs."""
        used = {self.source, self.validation, *([Role.TARGET] if self.target else [])}
        return [role for role in Role if role in used]

    def check_pair(self, settings: Settings) -> None:
        """Raise UsageError where it is named after the usual data sets, and the settings name
        others."""
        for role in Role:
            usual = getattr(Settings, role.value)
            if self.general and getattr(settings, role.value) != usual:
                raise UsageError(
                    f"argument --{role.value}: {settings.action} is for {usual}; use --action "
                    f"{self.general.action}"
                )

    def with_data(self, settings: Settings) -> "Experiment":
        """Return the experiment that does the same with the settings' source and target."""
        usual = all(getattr(settings, r.value) == getattr(Settings, r.value) for r in Role)
        return self if usual else self.general or self

    def own_settings(self, settings: Settings) -> Settings:
        """Return the settings with the usual data set in each role that the experiment does not
        have, unless `--score_target` or `--watch_target` asks for it."""
        self.check_pair(settings)
        for role in Role:
            if role in self.roles:
                continue
            looks = role is Role.TARGET and (settings.score_target or settings.watch_target)
            if not looks:
                usual = {role.value: getattr(Settings, role.value), f"{role.value}_root": None}
                settings = dataclasses.replace(settings, **usual)
        return settings

    def own_flags(self, settings: Settings) -> tuple[str, ...]:
        """Return the flags of its method alone that a result depends on; those of a teacher only
        where there is one: the method's own, or that of masked consistency."""
        options = self.method.Options
        own = options.own_flags()
        masks = issubclass(options, MaskOptions) and MaskOptions.of(settings).mask_ratio
        if self.method.has_teacher or masks:
            return own
        return tuple(name for name in own if name not in TeacherOptions.own_flags())

    def without_effect(self, settings: Settings) -> dict[str, str]:
        """Return the flags that a command has changed and that count for nothing in a training,
        each with the flag that it needs."""
        fields, own = flags_of(type(settings)), self.method.Options.own_flags()
        needed = {f.name: f.metadata["only_with"] for f in fields if f.metadata["only_with"]}
        needed |= dict.fromkeys(TeacherOptions.own_flags(), "mask_ratio")
        counting = settings.result_settings(self.own_flags(settings))
        return {
            field.name: needed[field.name]
            for field in fields
            if field.name in needed
            and field.name in settings.given
            and getattr(settings, field.name) != field.default
            and field.name not in counting
            and (field.metadata["group"] != ADAPTATION or field.name in own)
        }

    def make_method(self, network: Network, settings: Settings) -> Method:
        """Return the method around a network; the method reads only its own options."""
        return self.method(network, self.method.Options.of(settings))


def unlabelled_target(settings: Settings) -> TrainingFiles:
    """Return the target of every adaptation but self-training."""
    return TrainingFiles(Role.TARGET, unlabelled(Role.TARGET, "train", settings))


def new_network(settings: Settings) -> Network:
    """Return the network of the settings, with random weights."""
    design = Design(settings.network, settings.backbone, settings.base_width)
    network = design.build(len(settings.class_table))
    network.classes = settings.class_table
    return network


def network_to_train(settings: Settings) -> Network:
    """Build the network of the settings with the heads that only training has."""
    network = new_network(settings)
    if settings.detail_guidance:
        network.add_detail_head()
    return network


def _has_classes_of(path: Path, settings: Settings) -> bool:
    """Return whether a checkpoint may have the settings' classes: one that records none is taken
    for one of Cityscapes' if it could be."""
    recorded = read_record(path, CLASS_TABLE)
    if recorded is None and len(settings.class_table) != len(CITYSCAPES):
        return True
    return recorded_classes(recorded, path).names == settings.class_table.names


def build_network(settings: Settings, *, continued: bool = False) -> Network:
    """Return the network of the settings with the weights they name, and say which were loaded.

    `continued`: its weights come from the run's own checkpoint, so none are read here.
    """
    network = network_to_train(settings)
    if continued:
        return network
    if settings.load_model_path:
        path = find_input(settings.load_model_path, "load_model_path")
        same = _has_classes_of(path, settings)
        report = load_network(network, path, to_train=True, same_classes=same)
        random = "; what is missing starts from random weights" if report.missing else ""
        print(f"{path}: {report}{random}")
    elif settings.pretrain_path:
        path = find_input(settings.pretrain_path, "pretrain_path")
        print(f"{path}: {load_backbone(network, path)}")
    else:
        print("no --pretrain_path: training starts from random weights")
    return network
