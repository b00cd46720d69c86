"""Pictures of what networks do: image, truth, prediction and errors of telling images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.samples import SampleDataset
from trainings.experiment import Experiment
from trainings.loaders import Domain, validation_samples
from trainings.mbt import BETAS
from trainings.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.val import Evaluation, evaluate_each
from utils.errors import UsageError, UserError
from utils.pictures import ComparisonRow, PanelRow, comparison, error_panel
from utils.run_folder import SETTINGS, RunFolder, find_runs, selected
from utils.settings import Settings
from utils.utils import find_input, resolve_device

PICTURES = "pictures"
EXTREMES = 2
"""How many of the best and of the worst images are drawn."""


def visualize(fda: Experiment, settings: Settings) -> None:
    """Draws what the named checkpoints see on Cityscapes' validation split, or else every run of
    `--optimizer` and FDA's ensemble.

    Each one's pictures go into its run's folder; several also into one sheet, side by side.
    """
    predictors = named_predictors(settings) or found_predictors(fda, settings)
    samples = validation_samples(Domain.CITYSCAPES, settings)
    if settings.picture_index >= len(samples):
        raise UsageError(
            f"argument --picture_index: {settings.picture_index} is not below the {len(samples)} "
            "images of the validation split"
        )
    loaded = load_predictors(predictors, Domain.CITYSCAPES, settings)
    device = resolve_device(settings.device)
    evaluations = evaluate_each(loaded, samples, settings, device, pictured=())
    accuracies = [list(evaluation.image_accuracy.values()) for evaluation in evaluations]
    for number, accuracy in enumerate(accuracies):
        chosen = telling_images(accuracy, settings)
        _draw_one(loaded.only(number), chosen, samples, settings)
    if len(predictors) > 1:
        chosen = telling_images(np.mean(accuracies, axis=0).tolist(), settings)
        places = [places[0] for places in chosen.values() if places]
        sheet = comparison_sheet([loaded], places, samples, settings)
        folder = RunFolder(settings.save_model_path / settings.run_name("visualize") / PICTURES)
        print(f"side by side: {folder.save_picture('comparison.png', sheet)}")


def named_predictors(settings: Settings) -> list[Predictor]:
    """What the command names: a checkpoint, the members of an ensemble, checkpoints to compare."""
    named = []
    if settings.load_model_path:
        named.append(single(find_input(settings.load_model_path, "load_model_path")))
    named += [single(find_input(path, "compare")) for path in settings.compare]
    if settings.mbt_checkpoints:
        members = [find_input(path, "mbt_checkpoints") for path in settings.mbt_checkpoints]
        named.append(Predictor("MBT", tuple(members)))
    return named


def found_predictors(fda: Experiment, settings: Settings) -> list[Predictor]:
    """Every run of `--optimizer` under `--save_model_path`, and MBT where its members are there."""
    alike = {name: getattr(settings, name) for name in ("optimizer", "backbone", "base_width")}
    runs = find_runs(settings.save_model_path, selected(settings), alike)
    if not runs:
        raise UserError(
            f"no run of --optimizer {settings.optimizer} in {settings.save_model_path}: train one, "
            "or name a checkpoint with --load_model_path"
        )
    predictors = [single(folder / selected(settings)) for folder in runs]
    members = {
        run["fda_beta"]: folder / selected(settings)
        for folder, run in runs.items()
        if run["action"] == fda.action
    }
    if set(BETAS) <= set(members):
        predictors.append(Predictor("MBT", tuple(members[beta] for beta in BETAS)))
    return predictors


def single(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint.resolve().parent.name, (checkpoint,))


def telling_images(accuracy: Sequence[float], settings: Settings) -> dict[str, list[int]]:
    """Places of images to look at, by kind: the fixed one, one drawn from the seed, and those with
    the lowest and the highest pixel accuracy, the most extreme first. An image without a valid
    pixel is neither."""
    order = sorted(
        (place for place, value in enumerate(accuracy) if not math.isnan(value)),
        key=lambda place: accuracy[place],
    )
    return {
        "fixed": [settings.picture_index],
        "random": [int(np.random.default_rng(settings.seed).integers(len(accuracy)))],
        "worst": order[:EXTREMES],
        "best": order[::-1][:EXTREMES],
    }


def _draw_one(
    loaded: LoadedPredictors,
    chosen: Mapping[str, Sequence[int]],
    samples: SampleDataset,
    settings: Settings,
) -> None:
    """One picture per kind of image that one predictor sees."""
    (predictor,) = loaded.predictors
    folder = RunFolder(_folder(predictor, settings) / PICTURES)
    for kind, places in chosen.items():
        if places:
            (evaluation,) = evaluate_some(loaded, places, samples, settings)
            rows = [_noted(row, evaluation.image_accuracy[row.name]) for row in evaluation.rows]
            picture = error_panel(rows, title=f"{predictor.title}: {kind}")
            folder.save_picture(f"{kind}.png", picture)
    print(f"{predictor.title}: {folder.path}/{{{','.join(chosen)}}}.png")


def _folder(predictor: Predictor, settings: Settings) -> Path:
    """The run's own folder; one named by the settings for an ensemble or a strange checkpoint."""
    if len(predictor.checkpoints) > 1:
        return settings.save_model_path / settings.run_name("mbt")
    own = predictor.checkpoints[0].resolve().parent
    if (own / SETTINGS).exists():
        return own
    return settings.save_model_path / settings.run_name("visualize")


def _noted(row: PanelRow, accuracy: float) -> PanelRow:
    return row._replace(note=f"{100 * accuracy:.1f} % of the pixels right")


def evaluate_some(
    loaded: LoadedPredictors, places: Sequence[int], samples: SampleDataset, settings: Settings
) -> list[Evaluation]:
    """Evaluations of the samples at these places alone, with all their predictions."""
    device = resolve_device(settings.device)
    pictured = range(len(places))
    return evaluate_each(loaded, samples.subset(places), settings, device, pictured=pictured)


def comparison_sheet(
    several: Sequence[LoadedPredictors],
    places: Sequence[int],
    samples: SampleDataset,
    settings: Settings,
) -> np.ndarray:
    """Image, truth and every predictor's prediction of the samples at these places."""
    places = list(dict.fromkeys(places))
    evaluations = [e for one in several for e in evaluate_some(one, places, samples, settings)]
    rows = [
        ComparisonRow(same[0].name, same[0].image, same[0].truth, [row.prediction for row in same])
        for same in zip(*(evaluation.rows for evaluation in evaluations), strict=True)
    ]
    titles = [predictor.title for one in several for predictor in one.predictors]
    return comparison(rows, titles, title="the same images, side by side")
