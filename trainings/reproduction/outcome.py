"""Say in a few words what a finished step of a reproduction has found, for the console."""

from datasets.data_set import Role
from trainings.reproduction.kinds import ADAPTED, LAST
from trainings.reproduction.plan import PlannedStep
from trainings.reproduction.results import Run, Scores
from trainings.scoring.pseudo_label_folder import SUMMARY
from utils.disk.run_folder import RunFolder


def outcome(step: PlannedStep) -> str:
    """Return the step's mIoU after the last epoch, or the share of pixels that it has labelled."""
    if RunFolder(step.folder).has(SUMMARY):
        return _labelled(step)
    trains = next((command.trains for command in step.commands if command.trains), None)
    on_target = any(command.scores for command in step.commands)
    settings = step.commands[0].settings.to_json()
    validates_on = trains.validation if trains else Role.TARGET
    run = Run(step.folder, settings, False, validates_on)
    scores = run.scores(Role.TARGET if on_target else validates_on)
    if on_target or validates_on is Role.TARGET:
        last, adapted = _percent(scores.get(LAST)), _percent(scores.get(ADAPTED))
        return f"mIoU {last}, with target statistics {adapted}"
    return f"mIoU {_percent(scores.get(LAST))} on the source"


def _percent(scores: Scores | None) -> str:
    return "–" if scores is None or scores.miou is None else f"{100 * scores.miou:.1f} %"


def _labelled(step: PlannedStep) -> str:
    classes = RunFolder(step.folder).read_json(SUMMARY)["classes"].values()
    pixels = sum(one["predicted_pixels"] for one in classes)
    kept = sum((one["kept_share"] or 0) * one["predicted_pixels"] for one in classes)
    return f"{100 * kept / max(1, pixels):.0f} % of the pixels labelled"
