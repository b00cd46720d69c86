"""Say in sentences what a report does not show, so that no reader takes it for measured."""

from collections.abc import Sequence

from trainings.reproduction.differences import FEWEST_IMAGES
from trainings.reproduction.kinds import ADAPTED, LAST
from trainings.reproduction.lines import Line, all_runs, listed, target_data

TOY = "Toy City"


def not_measured(lines: Sequence[Line]) -> list[str]:
    """Return what was not measured, from what the runs have recorded."""
    sentences = []
    if TOY in target_data(lines):
        sentences.append(
            "Real data: Toy City is drawn by this program. It shows that all parts work and does "
            "not rank methods on real images."
        )
    if unlabelled := listed(line.unlabelled_target for line in lines):
        sentences.append(
            f"How well any network does on {unlabelled}, which has no labels. A few labelled "
            "pictures of it would tell (docs/own_camera.md)."
        )
    absent = [line for line in lines if not line.scores(LAST)]
    if absent:
        sentences.append(f"Not trained or not scored: {_names(absent)}.")
    no_statistics = [
        line for line in lines if line not in absent and line.on_target and not line.scores(ADAPTED)
    ]
    if no_statistics:
        sentences.append(f"Not scored with target statistics: {_names(no_statistics)}.")
    single = [line for line in lines if len(line.runs) == 1]
    if single:
        who = "All methods" if len(single) == len(lines) - len(absent) else _names(single)
        intervals = any(line.comparisons for line in lines)
        told = " The intervals tell what other validation images would change." if intervals else ""
        sentences.append(f"What another seed would change: {who} have one seed.{told}")
    images = {d.images for line in lines for d in line.comparisons.values()}
    if images and max(images) < FEWEST_IMAGES:
        sentences.append(
            f"Whether differences are more than chance: {max(images)} validation images are too "
            "few for an interval to mean that."
        )
    unpaired = [
        line
        for line in lines
        if any(difference.low is None for difference in line.comparisons.values())
    ]
    if unpaired:
        sentences.append(
            f"Intervals of {_names(unpaired)}: the counts of each image are not recorded. Scoring "
            "the run with --validation_only True records them."
        )
    records = [record for _, _, run in all_runs(lines) if (record := run.record)]
    devices = sorted({f"{record['device']} in {record['precision']}" for record in records})
    if devices:
        sentences.append(
            f"Other machines: all runs were made on {' and '.join(devices)}. Seconds per epoch are "
            "of that machine; the speed of a finished network is what --action benchmark measures."
        )
    if any(not run.settings.get("pretrain_path") for _, _, run in all_runs(lines)):
        sentences.append(
            "Pretrained backbones: some runs, or all, started from random weights, which published "
            "results do not."
        )
    return sentences


def _names(lines: Sequence[Line]) -> str:
    several = len({line.config for line in lines}) > 1
    names = (f"{line.name} ({line.config})" if several else line.name for line in lines)
    return ", ".join(dict.fromkeys(names))
