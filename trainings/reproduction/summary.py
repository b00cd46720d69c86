"""The sentences that read the main table."""

from collections.abc import Sequence

from trainings.reproduction.differences import FEWEST_IMAGES, Difference
from trainings.reproduction.kinds import AS_TRAINED, BOTH_ADAPTED, WITH_FREE
from trainings.reproduction.lines import Line, listed


def reading(lines: Sequence[Line]) -> list[str]:
    """Return the sentences that say what the main table of one config shows."""
    methods = [(line, miou) for line in lines if line.adapts and (miou := line.miou())]
    unlabelled = listed(line.unlabelled_target for line in lines)
    if not methods and unlabelled:
        return [
            f"No method is ranked: {unlabelled} has no labels, so that these scores are of the "
            "source's validation split and do not tell how well a network does on the target."
        ]
    if not methods:
        return ["No method that adapts to the target has been scored yet."]
    best, miou = max(methods, key=lambda pair: pair[1].mean)
    difference = best.comparisons.get(AS_TRAINED)
    over = f" ({_in_words(difference)} source-only)" if difference else ""
    sentence = f"{best.name} has the highest mIoU without target labels: {miou.text()}{over}."
    return [sentence, *_against_free(lines, [line for line, _ in methods])]


def _against_free(lines: Sequence[Line], methods: Sequence[Line]) -> list[str]:
    """Return a sentence that compares with what costs nothing, where that has been scored."""
    free = next((miou for line in lines if line.is_free and (miou := line.miou())), None)
    if free is None:
        return []
    what = f"source-only with target statistics ({free.text()}), which costs nothing"
    for kind, how in ((WITH_FREE, "as trained"), (BOTH_ADAPTED, "with target statistics")):
        found = [(line.comparisons[kind], line) for line in methods if kind in line.comparisons]
        if found and found[0][0].images < FEWEST_IMAGES:
            return [f"{found[0][0].images} images are too few to compare with {what}."]
        winners = [one for one in found if one[0].is_gain]
        if winners:
            difference, line = max(winners, key=lambda one: one[0].value)
            return [f"{line.name} {how} beats {what}, by {difference.points()[1:]} points."]
    return [f"No method is shown to beat {what}."]


def _in_words(difference: Difference) -> str:
    return f"{difference.points()[1:]} points {'over' if difference.value >= 0 else 'below'}"
