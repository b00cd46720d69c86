import pickle
from dataclasses import dataclass, replace

import pytest

from utils.cli.options import ADAPTATION, TRAINING, Follows, Options, flag, flags_of, joined


@dataclass(frozen=True, kw_only=True)
class Training(Options, group=TRAINING):
    """Flags of a room."""

    optimizer: str = flag("sgd", "")
    rate: float = flag(None, "", follows=Follows("optimizer", {"sgd": 0.1, "adam": 0.01}.get))
    epochs: int = flag(5, "")
    steps: int | None = flag(None, "", replaces="epochs")


@dataclass(frozen=True, kw_only=True)
class Shared(Options, group=ADAPTATION):
    """A flag that two methods share."""

    weight: float = flag(0.5, "", in_name="{:.0%}".format)


@dataclass(frozen=True, kw_only=True)
class One(Shared):
    """A method."""

    beta: float = flag(0.1, "")


@dataclass(frozen=True, kw_only=True)
class Other(Shared):
    """Another method."""

    delta: float = flag(0.2, "", affects_result=False)


ALL = joined((One, Other, Training))


def test_flags_are_joined_by_group_and_class():
    names = [field.name for field in flags_of(ALL)]
    assert names == ["optimizer", "rate", "epochs", "steps", "weight", "beta", "delta"]
    assert isinstance(ALL(), Training) and isinstance(ALL(), Other)
    assert joined((One, Other, Training)) is ALL


def test_two_flags_of_one_name_are_an_error():
    @dataclass(frozen=True, kw_only=True)
    class Clashing(Options, group=ADAPTATION):
        beta: float = flag(0.1, "")

    with pytest.raises(AssertionError, match="two flags are called beta"):
        joined((One, Clashing))


def test_a_part_has_its_own_flags_alone():
    part = One.of(ALL(beta=0.3, rate=2.0))
    assert type(part) is One and part == One(beta=0.3)
    assert not hasattr(part, "delta")


def test_settings_go_to_another_process():
    changed = ALL(beta=0.3, rate=2.0)
    assert pickle.loads(pickle.dumps(changed)) == changed


def test_a_default_that_follows_is_there_at_once():
    assert (ALL().rate, ALL(optimizer="adam").rate, ALL(rate=1.0).rate) == (0.1, 0.01, 1.0)
    assert replace(ALL(), optimizer="adam", rate=None).rate == 0.01
    assert ALL.from_json({"optimizer": "adam", "unknown": 1}).rate == 0.01


def test_a_result_depends_on_a_method_s_own_flags():
    changed = ALL(steps=3, beta=0.3, delta=0.4)
    assert changed.result_settings(["beta"]) == {
        "optimizer": "sgd",
        "rate": 0.1,
        "steps": 3,
        "beta": 0.3,
    }


def test_a_name_holds_flags_as_they_are_written_in_names():
    assert ALL(weight=0.25, epochs=7).filled("run{weight}_{epochs}") == "run25%_7"
