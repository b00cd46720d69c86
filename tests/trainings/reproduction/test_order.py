"""Which steps may run side by side, and which are the most urgent."""

import main
from trainings import catalog
from trainings.reproduction.order import chains, needs
from trainings.reproduction.plan import make_plan
from utils.cli.command_line import parse_settings


def plan(*words):
    return make_plan(catalog.STEPS, parse_settings(("--action", "reproduce", *words), main.ACTIONS))


def test_a_step_needs_those_whose_networks_and_labels_it_uses():
    steps = plan("--config", "config1")
    titles = [step.title for step in steps]
    needed = {t: {titles[n] for n in own} for t, own in zip(titles, needs(steps), strict=True)}
    fda, ssl = ([f"{kind} {beta}" for beta in (0.01, 0.05, 0.09)] for kind in ("FDA", "SSL-FDA"))
    assert {title: own for title, own in needed.items() if own} == {
        "Domain shift": {"Source-only"},
        "MBT": set(fda),
        "Pseudo-labels": set(fda),
        **{title: {"Pseudo-labels"} for title in ssl},
        "MBT of SSL-FDA": set(ssl),
        "Distillation of MIC": {"MIC"},
    }


def test_steps_of_other_seeds_and_configs_need_nothing_of_one_another():
    steps = plan("--seeds", "0", "1", "--configs", "config1", "config2")
    trials = [(step.seed, step.config) for step in steps]
    assert len(set(trials)) == 4
    for trial, own in zip(trials, needs(steps), strict=True):
        assert {trials[number] for number in own} <= {trial}


def test_a_chain_lasts_until_the_last_step_that_waits_for_it():
    """0 ← 1 ← 3 and 2 ← 3: after 2 seconds of step 0 come 3 of step 1 and 7 of step 3."""
    assert chains([set(), {0}, set(), {1, 2}], [2, 3, 5, 7]) == [12, 10, 12, 7]
