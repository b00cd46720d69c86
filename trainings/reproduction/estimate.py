"""Estimate the time of a plan, by the epochs that its folders record, or else by measuring."""

import contextlib
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from datasets.catalog import labelled, unlabelled
from datasets.data_set import Role
from datasets.loading.batches import each_item
from datasets.loading.pairs import check_batch_size
from datasets.options import ToyOptions
from model.deployment.folding import fold
from model.network import WHITE
from model.weights.loading import load_network
from trainings.engine.length import Length
from trainings.engine.scorer import STATISTICS_IMAGES
from trainings.engine.timing import random_sample, timed, training_step
from trainings.experiment import Experiment, new_network
from trainings.options import Settings
from trainings.reproduction.order import chains, needs
from trainings.reproduction.plan import Command, PlannedStep
from trainings.val import PANEL_ROWS
from utils import processes
from utils.disk.run_folder import BEST, RunFolder
from utils.metrics import ConfusionMatrix
from utils.pictures.panels import PanelRow, panel
from utils.text import markdown
from utils.upsampling import upsampled_max
from utils.utils import autocast, resolve_device, resolve_precision

MOST_REPEATS, MOST_SECONDS = 4, 5.0
"""Of one measurement; the first repeat, which warms up, counts only where it is the only one.
Several processes do not look at the seconds."""

WARM_UP_ON_GPU = 2
"""Repeats before the measurement on a GPU: in the first, kernels are compiled and algorithms are
chosen, which takes hundreds of times as long as a step."""

NOTE = (
    "Times: from the epochs already made in these folders (with the --jobs of then), else from a "
    "few steps of the method on random images on this device. Loading networks, drawing pictures "
    "and starting workers are counted; reading the data is not."
)


class DataSizes(NamedTuple):
    """Images of each split, and (height, width) of the target's validation labels."""

    source: int
    source_validation: int
    target: int
    target_validation: int
    label_size: tuple[int, int]

    def validated(self, experiment: Experiment) -> int:
        """Return the number of images in one validation of the experiment."""
        own = experiment.validation is Role.SOURCE
        return self.source_validation if own else self.target_validation

    def trained(self, experiment: Experiment) -> int:
        """Return the number of images in one epoch of the experiment."""
        return self.source if experiment.source is Role.SOURCE else self.target


def data_sizes(settings: Settings) -> DataSizes:
    """Return the sizes of the data sets. Raise UserError where one is missing."""
    validation = labelled(Role.TARGET, "val", settings)
    with Image.open(validation[0].label_path) as label:
        width, height = label.size
    return DataSizes(
        source=len(labelled(Role.SOURCE, "train", settings)),
        source_validation=len(labelled(Role.SOURCE, "val", settings)),
        target=len(unlabelled(Role.TARGET, "train", settings)),
        target_validation=len(validation),
        label_size=(height, width),
    )


def toy_sizes(settings: Settings) -> DataSizes:
    """Return the sizes of a Toy City that is not drawn yet."""
    toy = ToyOptions.of(settings)
    return DataSizes(
        source=toy.toy_train,
        source_validation=math.ceil(toy.toy_train / 4),
        target=toy.toy_train,
        target_validation=toy.toy_val,
        label_size=toy.toy_size,
    )


class Estimator:
    """Seconds that commands will take; each method is measured once, and only where needed.

    Args:
        jobs: how many steps run at a time and share the machine.
    """

    def __init__(self, plan: Sequence[PlannedStep], sizes: DataSizes, jobs: int = 1):
        self.sizes, self.jobs = sizes, jobs
        self._known: dict[str, float] = {}
        self._image_seconds: float | None = None
        self._scoring_seconds: float | None = None
        made: dict[str, list[Made]] = {}
        for command, folder in ((c, step.folder) for step in plan for c in step.commands):
            if command.trains:
                made.setdefault(command.trains.action, []).append(epochs_made(folder))
        for action, runs in made.items():
            if epochs := sum(run.epochs for run in runs):
                self._known[action] = sum(run.seconds for run in runs) / epochs

    def seconds(self, step: PlannedStep) -> float:
        """Return the seconds that are left of a step."""
        with _threads(max(1, torch.get_num_threads() // self.jobs)):
            return sum(self._of_command(c, step.folder) for c in step.commands if not c.is_done())

    def _of_command(self, command: Command, folder: Path) -> float:
        sizes, passes = self.sizes, command.passes
        images = passes.validation * sizes.target_validation + passes.training * sizes.target
        settings, own = command.settings, epochs_made(folder)
        scorings = max(passes)
        if not command.trains:
            return images * self._image(settings) + scorings * self._scoring(settings)
        epoch = own.seconds / own.epochs if own.epochs else self._epoch(command.trains, settings)
        length = self._length(command.trains, settings)
        done = 0 if settings.overwrite else min(own.epochs, length.epochs)
        left = length.epochs - done
        validations = length.validations_from(round(done * length.steps_per_epoch))
        if settings.ema_decay or command.trains.method.has_teacher:
            # The average is scored, too, after its statistics are measured.
            statistics_images = min(STATISTICS_IMAGES, sizes.trained(command.trains))
            images += images + validations * statistics_images
            validations *= 2
            scorings *= 2
        images += validations * sizes.validated(command.trains)
        if settings.score_target:
            images += validations * sizes.target_validation
        scorings += validations + 1  # the network that training starts from is loaded as well
        return left * epoch + images * self._image(settings) + scorings * self._scoring(settings)

    def epochs(self, step: PlannedStep) -> float:
        """Return the epochs of a step's training; 0 where it has none."""
        trainings = ((command.trains, command.settings) for command in step.commands)
        return sum(self._length(one, settings).epochs for one, settings in trainings if one)

    def epochs_left(self, step: PlannedStep) -> float:
        """Return the epochs of its training that a step has still to make."""
        made = 0 if step.commands[0].settings.overwrite else epochs_made(step.folder).epochs
        return max(0, self.epochs(step) - made)

    def _length(self, experiment: Experiment, settings: Settings) -> Length:
        return Length.of(settings, max(1, self._steps_per_epoch(experiment, settings)))

    def _epoch(self, experiment: Experiment, settings: Settings) -> float:
        if experiment.action not in self._known:
            steps = self._steps_per_epoch(experiment, settings)
            self._known[experiment.action] = steps * step_seconds(experiment, settings)
        return self._known[experiment.action]

    def _steps_per_epoch(self, experiment: Experiment, settings: Settings) -> int:
        return self.sizes.trained(experiment) // (settings.batch_size * settings.accumulate_steps)

    def _image(self, settings: Settings) -> float:
        if self._image_seconds is None:
            self._image_seconds = image_seconds(settings, self.sizes.label_size)
        return self._image_seconds

    def _scoring(self, settings: Settings) -> float:
        if self._scoring_seconds is None:
            self._scoring_seconds = scoring_seconds(settings, self.sizes.label_size)
        return self._scoring_seconds


class Made(NamedTuple):
    """Epochs that a run has made, and the seconds that they took."""

    epochs: float
    seconds: float


def epochs_made(folder: Path) -> Made:
    """Read how far a run has come; 0 epochs if there is none."""
    rows = RunFolder(folder).read_history()
    seconds = sum(float(row["train_seconds"]) for row in rows)
    return Made(float(rows[-1]["epoch"]) if rows else 0.0, seconds)


def step_seconds(experiment: Experiment, settings: Settings) -> float:
    """Return the seconds of one update of the experiment's method on random images."""
    device = resolve_device(settings.device)
    check_batch_size(settings.batch_size, 1, settings.batch_size)
    step = training_step(experiment, settings, device, passes=settings.accumulate_steps)
    return _measured(step, device)


def image_seconds(settings: Settings, label_size: tuple[int, int]) -> float:
    """Return the seconds of one network's prediction of one random image, scored at the size of a
    label; the processes share the images of a validation by whole batches."""
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    network = new_network(settings).to(device).to(memory_format=torch.channels_last).eval()
    batch = random_sample(settings.batch_size, settings, device)
    label = torch.zeros(label_size, dtype=torch.uint8, device=device)

    def score() -> None:
        with torch.inference_mode(), autocast(device, precision):
            maps = network.main_logits(batch.image)
            for scores in maps:
                ConfusionMatrix(network.num_classes).update(
                    upsampled_max(scores, label_size)[1], label
                )

    return _measured(score, device) / settings.batch_size / processes.count()


def scoring_seconds(settings: Settings, label_size: tuple[int, int]) -> float:
    """Return the seconds that scoring a network takes beside its images: to load and fold it, to
    start the workers, and to draw a picture. With small images most of the time goes there."""
    image = np.random.default_rng(0).integers(0, WHITE + 1, (*settings.image_size, 3), np.uint8)
    label = np.zeros(label_size, np.uint8)
    rows = [PanelRow("", image, label, label)] * PANEL_ROWS
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder), shared=True)
        run.save_checkpoint(BEST, {"network": new_network(settings).state_dict()})

        def score() -> None:
            network = new_network(settings)
            load_network(network, run.path / BEST)
            fold(network)
            list(each_item(int, range(settings.workers), num_workers=settings.workers))
            run.save_picture("validation.png", panel(rows, title=""))

        return _measured(score, torch.device("cpu"))


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch use this number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(call: Callable[[], Any], device: torch.device) -> float:
    """Return the median seconds of a call."""
    at_least = 1 if processes.count() == 1 else MOST_REPEATS
    warm_up = WARM_UP_ON_GPU if device.type == "cuda" else 0
    seconds = timed(
        call,
        device,
        at_least=at_least,
        at_most=MOST_REPEATS,
        budget=MOST_SECONDS,
        warm_up=warm_up,
    )
    return statistics.median(seconds[1:] or seconds)


def plan_in_words(
    plan: Sequence[PlannedStep], estimator: Estimator, folder: Path, *, as_table: bool
) -> str:
    """Return the number of steps and the time of all that is left; with `as_table` below a table of
    the steps and their times."""
    rows = [("Step", "What", "Config", "Seed", "Folder", "Time")]
    done = [step.is_done() for step in plan]
    left = [0 if d else estimator.seconds(step) for step, d in zip(plan, done, strict=True)]
    total = max(sum(left) / estimator.jobs, *chains(needs(plan), left))
    for step, is_done, seconds in zip(plan, done, left, strict=True):
        place = step.folder.relative_to(folder).as_posix()
        time_left = "finished" if is_done else f"about {duration(seconds)}"
        rows.append((step.number, step.title, step.config, str(step.seed), place, time_left))
    table, note = (f"{markdown(rows)}\n", f" {NOTE}\n") if as_table else ("", "")
    steps = f"{table}{len(plan)} steps in {folder}"
    if all(done):
        return f"{steps}, all finished.{note and chr(10)}"
    at_a_time = f", {estimator.jobs} at a time" if estimator.jobs > 1 else ""
    return f"{steps}, {sum(done)} finished; about {duration(total)} for the rest{at_a_time}.{note}"


def duration(seconds: float) -> str:
    """Return a time in words: "2 d 3 h", "3 h 20 min", "12 min", "40 s"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {minutes:02d} min"
