"""What a training action is, and the networks that actions start from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets.catalog import Domain, TrainingFiles, unlabelled
from datasets.labels import NUM_CLASSES
from model.catalog import Design
from model.network import Network
from model.weights.loading import load_backbone, load_network
from trainings.method import Method
from trainings.options import Settings
from utils.cli.options import names_in
from utils.utils import find_input


@dataclass(frozen=True)
class Experiment:
    """What distinguishes one training action from another.

    Attributes:
        action: the word after `--action`.
        stem: what its runs are called by, as in `Settings.run_name`; the flags in it tell apart
            runs that are searched for.
        source: the labelled domain it trains on.
        validation: the domain whose validation split scores it.
        method: the class of the method.
        target: finds the files of the domain it adapts to, if it does.
    """

    action: str
    stem: str
    source: Domain
    validation: Domain
    method: type[Method]
    target: Callable[[Settings], TrainingFiles] | None = None

    @property
    def distinguishing(self) -> tuple[str, ...]:
        """The flags that tell its runs apart."""
        return names_in(self.stem)

    def wanted(self, settings: Settings) -> dict[str, Any]:
        """What a run's settings must hold to be this experiment's with these settings."""
        chosen = {name: getattr(settings, name) for name in self.distinguishing}
        return {"action": self.action, **chosen}

    def make_method(self, network: Network, settings: Settings) -> Method:
        """The method around a network, which reads no other flags than its own options."""
        return self.method(network, self.method.Options.of(settings))


def unlabelled_cityscapes(settings: Settings) -> TrainingFiles:
    """The target of every adaptation but self-training."""
    return TrainingFiles(Domain.CITYSCAPES, unlabelled(Domain.CITYSCAPES, "train", settings))


def new_network(settings: Settings) -> Network:
    """The network of the settings, with random weights."""
    return Design(settings.network, settings.backbone, settings.base_width).build(NUM_CLASSES)


def build_network(settings: Settings, *, continued: bool = False) -> Network:
    """The network of the settings with the weights they name, saying which were loaded.

    `continued`: its weights come from the run's own checkpoint, so none are read here.
    """
    network = new_network(settings)
    if continued:
        return network
    if settings.load_model_path:
        path = find_input(settings.load_model_path, "load_model_path")
        report = load_network(network, path, to_train=True)
        random = "; what is missing starts from random weights" if report.missing else ""
        print(f"{path}: {report}{random}")
    elif settings.pretrain_path:
        path = find_input(settings.pretrain_path, "pretrain_path")
        print(f"{path}: {load_backbone(network, path)}")
    else:
        print("no --pretrain_path: training starts from random weights")
    return network
