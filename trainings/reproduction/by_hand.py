"""Lines of the report from runs that were typed by hand, wherever their folders lie."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets.data_set import Role
from datasets.labels import CLASS_TABLE, USUAL
from trainings.experiment import Experiment
from trainings.options import Settings
from trainings.reproduction.commands import command_for, recorded_commands
from trainings.reproduction.lines import Line, by_config, is_ranked
from trainings.reproduction.results import Run, ensemble_record, read_json
from trainings.reproduction.steps import Step, by_action, run_flags
from trainings.reproduction.teachers import teacher_title
from trainings.scoring.record import scored_checkpoints
from utils.disk.run_folder import SCORES, SETTINGS, RunFolder
from utils.errors import UserError

OPTIMIZER, BETA, AUGMENTATION = "optimizer", "fda_beta", "aug_method"
WEIGHTS, DATA, TEACHER = "weights", "data", "teacher"
"""Beside settings: the digest of the weights that a run starts from, its data in words, and the
method whose pseudo-labels it has learned from."""

DIGEST_SHOWN = 6

OF_A_STEP = {OPTIMIZER, BETA, WEIGHTS, DATA, TEACHER, CLASS_TABLE}
"""Settings that are not compared between steps: a step, or a table, has a value of its own."""


class Group(NamedTuple):
    """Runs that differ in their seed alone.

    Attributes:
        action: of the trainings; that of the ensemble's members for an ensemble.
        ensemble_round: of self-training, for an ensemble.
        settings: what their results depend on.
        runs: by seed.
        domain: what they are scored on: the source where the target that they adapt to has no
            labels.
    """

    action: str
    ensemble_round: int | None
    settings: Mapping[str, Any]
    runs: dict[int, Run]
    domain: Role = Role.TARGET

    def scored_data(self) -> tuple[str, tuple[str, ...]] | None:
        """Return the data set and the classes of their scores, None where there are no scores."""
        for run in self.runs.values():
            for scores in run.scores(self.domain).values():
                found = scores.validation
                title = found.get("data_set") or found.get("domain") or run.title(self.domain)
                return title, tuple(scores.class_iou)
        return None


def lines_by_hand(paths: Sequence[Path], steps: Sequence[Step], command: Settings) -> list[Line]:
    """Return the lines of the runs in these folders, those that differ only in their seed pooled.

    The lines are in the order of the steps. In their titles are settings in which two lines of a
    step differ, or a line differs from most others of its table. Runs that are scored on different
    data sets or classes get different configs, so that no table ranks one against another.
    `command` has the flags that runs have recorded. Folders without scores are passed over and
    named. Raise UserError where no folder has any.
    """
    groups = _grouped(paths, steps, command)
    if not groups:
        raise UserError(
            f"argument --runs: none of the {len(paths)} folders holds the {SCORES} of a training "
            "or the scores of an ensemble: name run folders, such as checkpoints/*"
        )
    groups = [one for group in groups for one in _on_each_target(group)]
    configs = _configs(groups)
    tables = {
        config: [group for group, own in zip(groups, configs, strict=True) if own == config]
        for config in configs
    }
    entries = [
        (step, group, config)
        for step in steps
        if step.domain
        for group, config in zip(groups, configs, strict=True)
        if _is_of(group, step, steps, _common_augmentation(tables[config], steps))
    ]
    lines = [
        _line(
            *(step, group, config, _usual(tables[config])),
            [g for of, g, its in entries if (of, its) == (step, config)],
        )
        for step, group, config in entries
    ]
    return [line for own in by_config(lines).values() for line in _without_target(own)]


def _without_target(lines: list[Line]) -> list[Line]:
    """Return the lines of a config without those on a target that has no labels."""
    return lines if is_ranked(lines) else [line for line in lines if not line.on_target]


def _on_each_target(group: Group) -> list[Group]:
    """Return a group that scores itself on the source once for each target that it was scored on;
    one that adapts to a target without labels keeps a line on the source, too."""
    if any(run.validates_on is Role.TARGET for run in group.runs.values()):
        return [group]
    records = [read_json(f) for r in group.runs.values() for f in sorted(r.folder.glob("*.json"))]
    source = {run.title(Role.SOURCE) for run in group.runs.values()}
    titles = dict.fromkeys(
        record["validation"]["domain"] for record in records if scored_checkpoints(record)
    )
    scored = [
        group._replace(
            runs={seed: replace(run, target_title=title) for seed, run in group.runs.items()},
            domain=Role.TARGET,
        )
        for title in titles
        if title not in source
    ]
    found = [one for one in scored if one.scored_data()]
    return [group, *found] if group.domain is Role.SOURCE else found or [group]


def _configs(groups: Sequence[Group]) -> list[str]:
    """Return the config of each group: its optimiser and, where those of one optimiser are scored
    on several data sets or classes, these."""
    found = []
    for group in groups:
        optimizer = group.settings["optimizer"]
        alike = [one for one in groups if one.settings["optimizer"] == optimizer]
        tables = list(dict.fromkeys(data for one in alike if (data := one.scored_data())))
        if len(tables) < 2:
            found.append(optimizer)
            continue
        # A group without scores is shown among the first ones on the target, as not scored.
        of_target = (one.scored_data() for one in alike if one.domain is Role.TARGET)
        title, classes = group.scored_data() or next(filter(None, of_target), tables[0])
        same = [other for name, other in tables if name == title]
        number = f" (classes {same.index(classes) + 1})" if len(same) > 1 else ""
        found.append(f"{optimizer} on {title}{number}")
    return found


def _grouped(paths: Sequence[Path], steps: Sequence[Step], command: Settings) -> list[Group]:
    """Return the runs with scores, grouped by all settings but the seed."""
    experiments = by_action(steps)
    titles = {step.experiment.action: step.title for step in steps if not step.teacher}
    teaching = {step.experiment.action for step in steps if step.teacher}
    groups: dict[str, Group] = {}
    passed_over: list[Path] = []
    for path in dict.fromkeys(path.resolve() for path in paths):
        found = _read(path, experiments, command)
        if found is None:
            passed_over.append(path)
            continue
        if found.action in teaching:
            (run,) = found.runs.values()
            found = found._replace(settings={**found.settings, TEACHER: teacher_title(run, titles)})
        group = groups.setdefault(str(found[:3]), found)
        for seed, run in found.runs.items():
            if group.runs.setdefault(seed, run) is not run:
                print(f"{run.folder} is left out: {group.runs[seed].folder} is the same run")
    if passed_over:
        print(f"passed over, no finished runs: {', '.join(path.name for path in passed_over)}")
    for path in passed_over:
        if recorded_commands(path):
            print(f"{path.name} is a whole reproduction; to make its report: {command_for(path)}")
    return list(groups.values())


def _read(folder: Path, experiments: Mapping[str, Experiment], command: Settings) -> Group | None:
    """Return the run in a folder as a group of its own, None where there is no finished one."""
    run = RunFolder(folder)
    if run.has(SETTINGS) and run.has(SCORES):
        settings = run.read_settings(command)
        experiment = experiments.get(settings.get("action", ""))
        if experiment is None:
            return None
        read = Run(folder, settings, False, experiment.validation)
        if "validation" not in read.record:
            return None
        if scored_on_source(read):
            read = replace(read, validates_on=Role.SOURCE)
        return _group(experiment, None, _relevant(experiment, settings, command), read)
    if not run.has(SETTINGS) and (record := ensemble_record(folder)):
        settings = type(command).from_json(record["settings"]).to_json()
        member = _member_settings(scored_checkpoints(record), folder, command)
        if experiment := experiments.get(member.get("action", "")):
            relevant = _relevant(experiment, member, command) | {BETA: None, WEIGHTS: None}
            read = Run(folder, settings, True)
            return _group(experiment, settings["ssl_round"], relevant, read)
    return None


def _member_settings(
    checkpoints: Iterable[Path], folder: Path, command: Settings
) -> Mapping[str, Any]:
    """Return the settings of an ensemble's first member that is still there."""
    for checkpoint in checkpoints:
        for place in (folder.parent / checkpoint.parent.name, checkpoint.parent):
            if (place / SETTINGS).exists():
                return RunFolder(place).read_settings(command)
    return {}


def _relevant(
    experiment: Experiment, settings: Mapping[str, Any], command: Settings
) -> dict[str, Any]:
    """Return the recorded settings that a result depends on beside its seed."""
    recorded = type(command).from_json(settings)
    found = recorded.result_settings(experiment.own_flags(recorded))
    found |= {WEIGHTS: settings.get(WEIGHTS), CLASS_TABLE: settings.get(CLASS_TABLE, USUAL)}
    without = {"seed", "action", *(role.value for role in Role if role not in experiment.roles)}
    return {name: value for name, value in found.items() if name not in without}


def _group(
    experiment: Experiment, ensemble_round: int | None, relevant: Mapping[str, Any], run: Run
) -> Group:
    settings = {**relevant, DATA: " and ".join(run.trained_on())}
    adapts_on_source = experiment.validation is not run.validates_on
    domain = run.validates_on if adapts_on_source else Role.TARGET
    return Group(experiment.action, ensemble_round, settings, {run.settings["seed"]: run}, domain)


def scored_on_source(run: Run) -> bool:
    """Return whether a run adapted to a target without labels, so that it scored itself on the
    source."""
    domain = run.record["validation"].get("domain", run.title(Role.TARGET))
    return domain == run.title(Role.SOURCE) != run.title(Role.TARGET)


def _common_augmentation(groups: Sequence[Group], steps: Sequence[Step]) -> str:
    """Return the augmentation that all adaptations among the groups share; "" where they differ.

    Source-only training with that augmentation is the baseline, and not a step of its own.
    """
    experiments = by_action(steps)
    adaptations = (one for one in groups if experiments[one.action].target)
    found = {one.settings[AUGMENTATION] for one in adaptations}
    return found.pop() if len(found) == 1 else ""


def _usual(groups: Sequence[Group]) -> dict[str, str]:
    """Return the settings that all groups have, each with the value that most of them have."""
    names = set.intersection(*(set(group.settings) for group in groups)) - OF_A_STEP
    counts = {name: Counter(str(group.settings[name]) for group in groups) for name in names}
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


def _is_of(group: Group, step: Step, steps: Sequence[Step], augmentation: str) -> bool:
    """Return whether the step's lines show such runs."""
    if step.experiment.action != group.action or step.ensemble_round != group.ensemble_round:
        return False
    if group.ensemble_round is not None:
        return True
    own = [
        one
        for one in steps
        if one.experiment is step.experiment and _sets(one, group, augmentation)
    ]
    return step in own if own else step.flag in ("", BETA)


def _sets(step: Step, group: Group, augmentation: str) -> bool:
    """Return whether a step sets a flag, and these runs have another value of it than the default,
    or than the augmentation of all adaptations."""
    if step.flag in ("", BETA):
        return False
    usual = {run_flags([step], step.experiment)[step.flag]}
    if step.flag == AUGMENTATION:
        usual.add(augmentation)
    return group.settings.get(step.flag) not in usual


def _line(
    step: Step, group: Group, config: str, usual: Mapping[str, str], alike: Sequence[Group]
) -> Line:
    """Return the line of a group; `usual` are the settings of most groups of its config, `alike`
    all groups of that step and config."""
    beta = group.settings[BETA] if step.flag == BETA else None
    if beta is not None:
        alike = [other for other in alike if other.settings[BETA] == beta]
    words = [
        _in_words(name, value)
        for name, value in group.settings.items()
        if name not in (OPTIMIZER, TEACHER)
        and (
            str(value) != usual.get(name, str(value))
            or len({str(one.settings[name]) for one in alike if name in one.settings}) > 1
        )
    ]
    if step.flag == AUGMENTATION:
        words = [
            group.settings[AUGMENTATION],
            *(w for w in words if not w.startswith(AUGMENTATION)),
        ]
    title = ", ".join([_title(step, group), *words])
    assert step.domain
    domain = Role.SOURCE if group.domain is Role.SOURCE else step.domain
    shown_beta = "" if beta is None else f"{beta:g}"
    return Line(step, title, shown_beta, config, dict(sorted(group.runs.items())), domain)


def _title(step: Step, group: Group) -> str:
    """Return the step's title; that of a distillation names the teacher that is recorded."""
    if not step.teacher:
        return step.title
    teacher = group.settings[TEACHER]
    method, _, _ = step.title.partition(" of ")
    return f"{method} of {teacher}" if teacher else method


def _in_words(name: str, value: Any) -> str:
    if name == WEIGHTS:
        return f"weights {str(value)[:DIGEST_SHOWN]}"
    if name == CLASS_TABLE:
        digest = hashlib.sha256(value.encode()).hexdigest()
        return "the usual classes" if value == USUAL else f"classes {digest[:DIGEST_SHOWN]}"
    if name == DATA:
        return str(value)
    shown = " ".join(map(str, value)) if isinstance(value, list) else value
    return f"{name} {'none' if shown in (None, '') else shown}"
