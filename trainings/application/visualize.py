"""Pictures of what networks do: image, truth, prediction and errors of telling images."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.catalog import data_set, has_labels
from datasets.data_set import Role
from datasets.loading.sets import unlabelled_samples, validation_samples
from datasets.samples import SampleDataset
from trainings.application.options import PictureOptions
from trainings.application.shown import (
    at_a_size,
    found_predictors,
    named_predictors,
    runs_to_show,
)
from trainings.experiment import Experiment
from trainings.options import EnsembleOptions, Settings
from trainings.scoring.mbt import ensemble_folder, ensemble_suffix
from trainings.scoring.predictors import LoadedPredictors, Predictor, load_predictors
from trainings.scoring.record import scoring_record, scoring_suffix, unusual_scoring
from trainings.scoring.runs import run_and_file
from trainings.scoring.trained import as_trained, with_data_of_run
from trainings.val import Evaluation, evaluate_each, scored_on, scores_table
from utils.disk.run_folder import BEST, PICTURES, SETTINGS, RunFolder
from utils.errors import UsageError
from utils.pictures.panels import ComparisonRow, comparison, error_panel, label_panel
from utils.spread import spread
from utils.text import in_percent
from utils.utils import resolve_device

SIDE_BY_SIDE = "the same images, side by side"
LONGEST_NAME = 100
"""Characters of a file's name that say which checkpoints it shows; more become a digest."""

WIDE, USUAL = 336, 256
"""Width in pixels of a picture on a sheet of one or two predictors, whose names then fit, and of
more."""

SPREAD = 4
"""How many images without labels are drawn beside the fixed and the random one."""

EXTREMES = 2
"""How many of the best and of the worst images are drawn."""


def visualize(
    fda: Experiment, ssl_fda: Experiment, supervised: Sequence[Experiment], settings: Settings
) -> None:
    """Draw what the named checkpoints see on the target's validation split, or on its images where
    they have no labels; or else every run of the settings' source and target, and FDA's ensemble.

    Each one's pictures go into its run's folder; several also into one sheet, side by side, with
    their scores: in the order in which they are named, else from the lowest mIoU to the highest.
    """
    predictors = named = named_predictors(settings)
    if named:
        first = named[0].checkpoints[0]
        settings = as_trained(settings, first)
        if settings.load_model_path:
            settings = with_data_of_run(settings, first)
    else:
        runs = runs_to_show(supervised, settings)
        settings = at_a_size(runs, settings)
        predictors = found_predictors(fda, ssl_fda, runs, settings)
    _refuse_training(predictors, settings)
    targets = [_place(predictor, settings) for predictor in predictors]  # refuses before drawing
    scored = has_labels(Role.TARGET, "val", settings)
    if scored:
        samples = validation_samples(Role.TARGET, settings)
    else:
        samples = unlabelled_samples(Role.TARGET, settings, whole=True)
    index = PictureOptions.of(settings).picture_index
    if index >= len(samples):
        raise UsageError(
            f"argument --picture_index: {index} is not below the {len(samples)} "
            "images that can be drawn"
        )
    seen = None if scored else samples.files
    loaded = load_predictors(predictors, Role.TARGET, settings, doing="drawn", seen=seen)
    if not scored:
        _draw_unlabelled(loaded, samples, settings, targets)
        return
    device = resolve_device(settings.device)
    evaluations = evaluate_each(loaded, samples, settings, device, pictured=())
    accuracies = [list(evaluation.image_accuracy.values()) for evaluation in evaluations]
    for number, (accuracy, place) in enumerate(zip(accuracies, targets, strict=True)):
        chosen = telling_images(accuracy, settings)
        _draw_one(loaded.only(number), chosen, samples, settings, place)
    if len(predictors) > 1:
        chosen = telling_images(np.mean(accuracies, axis=0).tolist(), settings)
        places: dict[int, str] = {}
        for kind, of_kind in chosen.items():
            for image in of_kind[:1]:
                places[image] = ", ".join(filter(None, (places.get(image), kind)))
        statistics, (evaluation, *_) = settings.bn_statistics, evaluations
        record = scoring_record(Role.TARGET, settings, evaluation, statistics)
        scores = [evaluation.scores() for evaluation in evaluations]
        compared = list(zip(predictors, scores, strict=True))
        if not named:
            compared.sort(key=lambda pair: pair[1]["mIoU"])
        _compare(compared, record["validation"], loaded, places, samples, settings)


def _draw_unlabelled(
    loaded: LoadedPredictors,
    samples: SampleDataset,
    settings: Settings,
    targets: Sequence[tuple[Path, str]],
) -> None:
    """Draw the predictions of each predictor on images without labels, and all side by side."""
    everywhere = spread(len(samples), SPREAD)
    chosen = telling_images([math.nan] * len(samples), settings) | {"spread": everywhere}
    for number, place in enumerate(targets):
        _draw_one(loaded.only(number), chosen, samples, settings, place, scored=False)
    if len(targets) > 1:
        places = dict.fromkeys(everywhere, "")
        sheet = comparison_sheet(loaded, places, samples, settings)
        folder = RunFolder(settings.save_model_path / settings.run_name("visualize") / PICTURES)
        name = f"comparison{_compared(loaded.predictors[0], settings)}.png"
        print(f"side by side: {folder.save_picture(name, sheet)}")


def _refuse_training(predictors: Sequence[Predictor], settings: Settings) -> None:
    """Raise UsageError where the pictures of several would lie in the folder of a training."""
    folder = settings.save_model_path / settings.run_name("visualize")
    networks = [path for predictor in predictors for path in predictor.checkpoints]
    if len(networks) > 1 and (folder / SETTINGS).exists():
        raise UsageError(
            f"argument --save_keyword: {folder} is the folder of a training; choose another name "
            f"for what shows several, or draw that run with --load_model_path {folder / BEST}"
        )


def _compare(
    compared: Sequence[tuple[Predictor, Mapping[str, Any]]],
    validation: Mapping[str, Any],
    loaded: LoadedPredictors,
    places: Mapping[int, str],
    samples: SampleDataset,
    settings: Settings,
) -> None:
    """Draw a sheet of predictors under their mIoU, and print and write a table of their scores;
    each names the data of the validation."""
    records, titled = [], []
    for predictor, scores in compared:
        checkpoints = [str(path) for path in predictor.checkpoints]
        records.append({"title": predictor.title, "checkpoints": checkpoints, **scores})
        title = f"{predictor.title}, {in_percent(scores['mIoU'])} %"
        titled.append(predictor._replace(title=title))
    sheet = comparison_sheet(
        LoadedPredictors(titled, loaded.networks),
        places,
        samples,
        settings,
        title=f"{SIDE_BY_SIDE}, with mIoU on {scored_on(validation)} and on each image",
    )
    folder = RunFolder(settings.save_model_path / settings.run_name("visualize") / PICTURES)
    name = f"comparison{_compared(loaded.predictors[0], settings)}"
    folder.write_json(f"{name}.json", {"validation": validation, "predictors": records})
    path = folder.save_picture(f"{name}.png", sheet)
    rows = ((predictor.title, scores) for predictor, scores in compared)
    table = scores_table(rows, validation)
    print(f"\n{table}\nside by side: {path.with_suffix('.*')}")


def telling_images(accuracy: Sequence[float], settings: Settings) -> dict[str, list[int]]:
    """Return places of images to look at, by kind: the fixed one, one drawn from the seed, and
    those with the lowest and the highest pixel accuracy, the most extreme first. An image without a
    valid pixel is neither."""
    order = sorted(
        (place for place, value in enumerate(accuracy) if not math.isnan(value)),
        key=lambda place: accuracy[place],
    )
    return {
        "fixed": [PictureOptions.of(settings).picture_index],
        "random": [int(np.random.default_rng(settings.seed).integers(len(accuracy)))],
        "worst": order[:EXTREMES],
        "best": order[::-1][:EXTREMES],
    }


def _draw_one(
    loaded: LoadedPredictors,
    chosen: Mapping[str, Sequence[int]],
    samples: SampleDataset,
    settings: Settings,
    place: tuple[Path, str],
    *,
    scored: bool = True,
) -> None:
    """Draw one picture per kind of image that one predictor sees, at a `_place`; with the truth and
    the errors where the images are `scored`."""
    (predictor,) = loaded.predictors
    places = list(dict.fromkeys(place for places in chosen.values() for place in places))
    (evaluation,) = evaluate_some(loaded, places, samples, settings)
    rows = {
        place: row._replace(
            note=f"{in_percent(evaluation.image_accuracy[row.name], 1)} % of the pixels right"
        )
        for place, row in zip(places, evaluation.rows, strict=True)
    }
    path, suffix = place
    suffix += scoring_suffix(Role.TARGET, settings, predictor.checkpoints[0])
    folder = RunFolder(path / PICTURES)
    for kind, of_kind in chosen.items():
        if of_kind:
            split = "validation" if scored else "target"
            images = f"{kind}, {len(of_kind)} of {len(samples)} {split} images"
            data = data_set(Role.TARGET, settings)
            title = f"{predictor.title}{_in_title(predictor, settings)}: {images} of {data}"
            shown = [rows[place] for place in of_kind]
            if scored:
                picture = error_panel(shown, title=title, classes=settings.class_table)
            else:
                pairs = [(row.name, row.image, row.prediction) for row in shown]
                picture = label_panel(
                    pairs, title=title, heading="prediction", classes=settings.class_table
                )
            folder.save_picture(f"{kind}{suffix}.png", picture)
    kinds = ",".join(kind for kind, of_kind in chosen.items() if of_kind)
    print(f"{predictor.title}: {folder.path}/{{{kinds}}}{suffix}.png")


def _place(predictor: Predictor, settings: Settings) -> tuple[Path, str]:
    """Return the run's own folder, or one that the settings name for an ensemble or a checkpoint
    from elsewhere; and the suffix of the file names, empty for the folder's best checkpoint."""
    if len(predictor.checkpoints) > 1:
        folder = ensemble_folder(predictor.checkpoints, settings.changed(ssl_round=0))
        return folder, ensemble_suffix(settings)
    (checkpoint,) = predictor.checkpoints
    own = checkpoint.resolve().parent
    if (own / SETTINGS).exists():
        return own, "" if checkpoint.name == BEST else f"_{checkpoint.stem}"
    folder = settings.save_model_path / settings.run_name("visualize")
    return folder, f"_{run_and_file(checkpoint)}"


def _compared(first: Predictor, settings: Settings) -> str:
    """Return the end of the file name of a sheet of these checkpoints; empty for every run's best.
    It also names an unusual way of scoring, compared with the run of the first checkpoint."""
    ensemble = EnsembleOptions.of(settings).mbt_checkpoints
    named = (settings.load_model_path, *PictureOptions.of(settings).compare, *ensemble)
    names = "_".join(run_and_file(path) for path in named if path)
    if not names:
        names = "" if settings.select == "best" else settings.select
    elif len(names) > LONGEST_NAME:
        names = hashlib.sha256(names.encode()).hexdigest()[:12]
    suffix = scoring_suffix(Role.TARGET, settings, first.checkpoints[0])
    return f"{names and '_'}{names}{suffix}"


def evaluate_some(
    loaded: LoadedPredictors, places: Sequence[int], samples: SampleDataset, settings: Settings
) -> list[Evaluation]:
    """Return evaluations of the samples at these places alone, with all their predictions."""
    device = resolve_device(settings.device)
    pictured = range(len(places))
    return evaluate_each(loaded, samples.subset(places), settings, device, pictured=pictured)


def comparison_sheet(
    loaded: LoadedPredictors,
    places: Mapping[int, str],
    samples: SampleDataset,
    settings: Settings,
    *,
    title: str = SIDE_BY_SIDE,
) -> np.ndarray:
    """Draw the image, its truth if there is one, and every predictor's prediction of the samples at
    these places, each with its note."""
    titles = [predictor.title for predictor in loaded.predictors]
    return comparison(
        comparison_rows([loaded], places, samples, settings),
        titles,
        title=title + _in_title(loaded.predictors[0], settings),
        width=WIDE if len(titles) <= 2 else USUAL,
        classes=settings.class_table,
    )


def comparison_rows(
    several: Sequence[LoadedPredictors],
    places: Mapping[int, str],
    samples: SampleDataset,
    settings: Settings,
) -> list[ComparisonRow]:
    """Return the samples at these places as every predictor sees them, each with its note."""
    chosen = list(places)
    evaluations = [e for one in several for e in evaluate_some(one, chosen, samples, settings)]
    by_image = zip(*(evaluation.rows for evaluation in evaluations), strict=True)
    return [
        ComparisonRow(
            one.name, one.image, one.truth, [row.prediction for row in (one, *more)], note
        )
        for note, (one, *more) in zip(places.values(), by_image, strict=True)
    ]


def _in_title(predictor: Predictor, settings: Settings) -> str:
    ways = unusual_scoring(Role.TARGET, settings, predictor.checkpoints[0])
    return "".join(f", {way}" for way in ways)
