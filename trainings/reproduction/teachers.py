"""The networks whose pseudo-labels a run has learned from, as the labels' record names them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from trainings.reproduction.lines import listed
from trainings.reproduction.results import Run, read_json
from trainings.scoring.pseudo_label_folder import SUMMARY
from utils.disk.run_folder import SETTINGS


def teacher_title(run: Run, titles: Mapping[str, str]) -> str:
    """Return the method that made a run's pseudo-labels; empty where no record names it.

    Args:
        titles: those of the methods, by action.
    """
    named = run.settings.get("pseudo_label_path")
    if not named:
        return ""
    # The folders of a project may have moved together.
    beside = run.folder.parent / Path(named).name
    labels = _first(place / SUMMARY for place in (Path(named), beside))
    if labels is None:
        return ""
    members = [Path(one["path"]) for one in read_json(labels).get("checkpoints", [])]
    actions = [_action(path, (labels.parent.parent, run.folder.parent)) for path in members]
    title = listed(titles.get(action) for action in actions)
    return f"an ensemble of {title}" if title and len(members) > 1 else title


def _action(checkpoint: Path, roots: tuple[Path, ...]) -> str:
    """Return the action of the run of a checkpoint, which lies below one of the roots."""
    settings = _first((root / checkpoint).parent / SETTINGS for root in roots)
    return read_json(settings).get("action", "") if settings else ""


def _first(paths: Iterator[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)
