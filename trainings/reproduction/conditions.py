"""Collect the conditions of scores beside the network, and find scores that do not compare."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.catalog import ROWS
from datasets.data_set import Role
from trainings.options import Settings
from trainings.reproduction.kinds import LAST
from trainings.reproduction.lines import Line
from trainings.reproduction.results import Run, Scores
from trainings.scoring.batch_norm import TRAINING
from trainings.val import different_classes
from utils.cli.flags import command_line
from utils.cli.options import Options
from utils.cli.repeat import repeating_command
from utils.disk.run_folder import LATEST, SCORES, RunFolder
from utils.text import dimensions

UNPAIRED = "; until then no difference is formed between it and scores on the other images"


class Conditions(NamedTuple):
    """Conditions of a score beside the network. The data set is None in old records. `names` are
    those of the images; they are empty where no counts tell them, but their digest may be known."""

    image_size: tuple[int, ...]
    proportions: str
    scales: tuple[float, ...]
    flip: bool
    label_sizes: tuple[tuple[int, ...], ...]
    data_set: str | None
    images: int
    names: frozenset[str]
    fingerprint: str

    @classmethod
    def of(cls, scores: Scores) -> "Conditions":
        """Return the conditions of scores. The counts tell the images: an interrupted scoring may
        have left counts of other images than its record says."""
        found, counts = scores.validation, scores.counts()
        names = frozenset(counts[0] if counts else ())
        return cls(
            image_size=tuple(found.get("image_size") or ()),
            proportions=found.get("proportions", ""),
            scales=tuple(found.get("scales", ())),
            flip=found.get("flip", False),
            label_sizes=tuple(map(tuple, found.get("label_sizes", ()))),
            data_set=found.get("data_set"),
            images=len(names) or found["images"],
            names=names,
            fingerprint="" if names else found.get("fingerprint", ""),
        )

    def same_images(self, other: "Conditions") -> bool:
        known = self.names and other.names
        same_names = self.images == other.images and (not known or self.names == other.names)
        digests = {self.fingerprint, other.fingerprint} - {""}
        return same_names and len(digests) < 2 and not self._of_another_set(other)

    def _of_another_set(self, other: "Conditions") -> bool:
        return None not in (self.data_set, other.data_set) and self.data_set != other.data_set

    def alike(self, other: "Conditions") -> bool:
        """Return whether scores under both conditions can be compared."""
        return self[:5] == other[:5] and self.same_images(other)

    def text(self, other: "Conditions") -> str:
        """Return the size and number of images in words, and what else differs from the other."""
        scales = f"scales {'-'.join(map(str, self.scales))}"
        words = [f"at {dimensions(self.image_size) if self.image_size else scales}"]
        if self.proportions != other.proportions:
            words += [f"with proportions {self.proportions or 'stretched'}"]
        words += ["and mirrored"] * (self.flip > other.flip)
        words += [f"on {self.images} images"]
        if self.label_sizes != other.label_sizes:
            words += [f"with labels of {' and '.join(map(dimensions, self.label_sizes))}"]
        if self._of_another_set(other):
            words += [f"of {self.data_set}"]
        elif self.images == other.images and not self.same_images(other):
            words += [
                f"such as {min(self.names - other.names)}" if self.names else "of other names"
            ]
        return " ".join(words)


def odd_scores(lines: Sequence[Line], folder: Path, *, by_hand: bool = False) -> list[str]:
    """Return a sentence for each file whose numbers cannot be compared with most others of its
    config and domain: it was scored at another size or on other images."""
    return [
        f"{relative(file, folder)} was scored {found.text(usual)}, the others "
        f"of {config} {usual.text(found)}: score it again ({_again(file, by_hand)})"
        f"{'' if found.same_images(usual) else UNPAIRED}"
        for (config, _), scored in _scored(lines).items()
        for file, found, usual in _odd(scored)
    ]


def _again(file: Path, by_hand: bool) -> str:
    """Return how a file of scores is made again."""
    if not by_hand:
        return "remove the file and give the command of the reproduction again"
    if file.name == SCORES:  # what the training wrote itself cannot be made again without training
        return (
            "the run's own command with --validation_only True --select last, and --image_size and "
            "data as of the others, writes further scores; leave this file"
        )
    return "remove the file and score that checkpoint with --image_size and data as of the others"


def unscored(lines: Sequence[Line], folder: Path, kind: type[Options]) -> list[str]:
    """Return a sentence for each run of the source alone, and each ensemble, whose last epoch is
    not scored on the target, with the command that scores it; `kind` has all flags."""
    sentences = []
    for line in lines:
        if not line.on_target or line.is_free:
            continue
        for run in line.runs.values():
            scores = run.scores(Role.TARGET)
            scored_apart = run.is_ensemble or run.validates_on is Role.SOURCE
            if scored_apart and LAST not in scores:
                best = "is scored on the target at its best epoch only"
                sentences.append(
                    f"{line.series} ({relative(run.folder, folder)}) "
                    f"{best if scores else 'has no score on the target yet'}, and the tables lead "
                    "with the last epoch: score it with --select last, as in "
                    f"`{_scoring_command(run, _scored_target(line, lines), kind)}`"
                )
    return sentences


def _scored_target(line: Line, lines: Sequence[Line]) -> dict[str, Any]:
    """Return the target in the settings of a score on the target of the same table, with its root;
    nothing where no score there has recorded its settings."""
    for run in (r for one in lines if one.config == line.config for r in one.runs.values()):
        for scores in run.scores(Role.TARGET).values():
            own = scores.file.name == SCORES  # written by the training, with its settings apart
            record = run.settings if own else _recorded_settings(run, scores)
            if "target" in record:
                return {name: record.get(name) for name in ("target", "target_root")}
    return {}


def _recorded_settings(run: Run, scores: Scores) -> dict[str, Any]:
    """Return the settings of the command that wrote a file of scores; none in old records."""
    return RunFolder(run.folder).read_json(scores.file.name).get("settings") or {}


def _scoring_command(run: Run, target: Mapping[str, Any], kind: type[Options]) -> str:
    """Return the command that scores the last epoch of an ensemble, or of a run of the source
    alone, on the target, which is that of the run's own settings where `target` is empty."""
    if run.is_ensemble:
        return repeating_command(kind, {**run.settings, "select": "last"})
    for scores in run.scores(Role.TARGET).values():  # another checkpoint's: the same, but for that
        recorded = _recorded_settings(run, scores)
        if recorded and recorded["action"] != run.settings["action"]:
            named = recorded["load_model_path"] and str(run.folder / LATEST)
            last = {"select": "last", "load_model_path": named, "bn_statistics": TRAINING}
            return repeating_command(kind, {**recorded, **last})
    general = run.settings["action"] == "train_source"
    flags: dict[str, Any] = {
        "action": "val_transfer" if general else "val_gta5_transfer",
        "select": "last",
        "save_model_path": run.folder.parent,
        "save_keyword": run.folder.name,
    }
    if general:
        title = run.title(Role.TARGET)
        named = next((n for n, row in ROWS.items() if row.title == title), run.settings["target"])
        flags |= {"source": run.settings["source"], "target": target.get("target", named)}
    for name in ("source_root", "target_root", "gta5_root", "cityscapes_root"):
        value = {**run.settings, **target}.get(name)
        if value and value != str(getattr(Settings, name)):
            flags[name] = value
    return command_line(flags)


def odd_means(lines: Sequence[Line]) -> list[str]:
    """Return a sentence for each config and domain whose mIoU average over different classes."""
    return [
        f"{config.removesuffix(f' on {domain}')} on {domain}: {sentence}"
        for (config, domain), scored in _scored(lines).items()
        if (sentence := different_classes(scores.class_iou for scores in scored))
    ]


def relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _scored(lines: Sequence[Line]) -> dict[tuple[str, str], list[Scores]]:
    """Return all scores of each config on each data set."""
    found: dict[tuple[str, str], list[Scores]] = {}
    for line in lines:
        for run in line.runs.values():
            scored = found.setdefault((line.config, run.title(line.domain)), [])
            scored += run.scores(line.domain).values()
    return found


def _odd(scored: Iterable[Scores]) -> Iterator[tuple[Path, Conditions, Conditions]]:
    """Yield the files that are unlike most, with what they were scored under and what most were; of
    two halves that is the one with the oldest file."""
    by_age = sorted(scored, key=lambda scores: scores.file.stat().st_mtime)
    files = {scores.file: Conditions.of(scores) for scores in by_age}
    for usual, _ in Counter(files.values()).most_common(1):
        for file, found in files.items():
            if not found.alike(usual):
                yield file, found, usual
