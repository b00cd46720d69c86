"""Dataclasses whose fields are flags: each room, and each method, declares its own.

`joined` makes one flat class of several, the settings of a command; `SomeOptions.of(settings)`
takes one part of them. Nothing here knows which flags there are.
"""

import dataclasses
import functools
import string
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

ACTION, RUN, HARDWARE = "action", "run", "hardware"
DATA, TOY_CITY, NETWORK, TRAINING = "data", "toy", "network", "training"
ADAPTATION, SCORING, PREDICTION, DEPLOYMENT = "adaptation", "scoring", "prediction", "deployment"

GROUPS = {
    ACTION: "what to do",
    DATA: "folders, sizes, augmentation, loading",
    TOY_CITY: "Toy City, the built-in data",
    NETWORK: "its size, and the weights it starts from",
    TRAINING: "epochs, batches, optimiser, seed",
    ADAPTATION: "ADA, FDA and self-training",
    SCORING: "which checkpoint, which statistics, which pictures",
    PREDICTION: "your own images and videos",
    DEPLOYMENT: "export and benchmark",
    RUN: "the run on disk",
    HARDWARE: "device and precision",
}
"""Groups of flags in the order in which users see them: the word that `--help` knows each by, and
what it is about."""


SomeOptions = TypeVar("SomeOptions", bound="Options")
SomeFunction = TypeVar("SomeFunction", bound=Callable[..., Any])


class Follows(NamedTuple):
    """The default of a flag that is a consequence of another flag's value."""

    name: str
    value: Callable[[Any], Any]


def flag(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    check: Callable[[Any], Any] | None = None,
    metavar: str | tuple[str, ...] | None = None,
    word: str | None = None,
    follows: Follows | None = None,
    only_with: str | None = None,
    replaces: str | None = None,
    in_name: Callable[[Any], str] = str,
    affects_result: bool = True,
    may_be_empty: bool = False,
    everywhere: bool = False,
    decides: bool = False,
) -> Any:
    """Return a field that is a flag, in the group of its class.

    Args:
        default: its value where nobody gives one; None for one that `follows` another flag.
        choices: the words that are allowed.
        check: raises a ValueError for a value (or an element of a pair) that is not allowed.
        word: allowed beside the values of the field's type.
        only_with: a flag without which this one changes nothing.
        replaces: a flag that counts for nothing where this one is given.
        in_name: how its value is written in the name of a run.
        affects_result: False where it may differ when a run is continued.
        may_be_empty: an empty word stands for the default of this path; any other empty path is
            refused.
        everywhere: every action takes it: it names the machine and its folders, or forbids
            training.
        decides: it says what to do, or on which files. An action that ignored it would do another
            job, so it is refused instead.
    """
    return dataclasses.field(default=default, metadata={**locals()})  # all parameters, by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every dataclass of flags; `group` is that of the flags that a class declares."""

    _group: ClassVar[str]

    def __init_subclass__(cls, *, group: str | None = None, **others: Any):
        super().__init_subclass__(**others)
        if group:
            cls._group = group
        for field in vars(cls).values():
            if isinstance(field, dataclasses.Field) and field.metadata:
                metadata = {**field.metadata, "group": cls._group}
                field.metadata = types.MappingProxyType(metadata)

    def __post_init__(self) -> None:
        for field in flags_of(type(self)):
            follows = field.metadata["follows"]
            if follows and getattr(self, field.name) is None:
                value = follows.value(getattr(self, follows.name))
                object.__setattr__(self, field.name, value)

    def inconsistency(self) -> str | None:
        """Return what is wrong between flags that are each allowed, if anything is."""
        return None

    @classmethod
    def of(cls: type[SomeOptions], settings: "Options") -> SomeOptions:
        """Return these options as the settings, which hold them among others, have them."""
        return cls(**{f.name: getattr(settings, f.name) for f in dataclasses.fields(cls)})

    def changed(self: SomeOptions, **values: Any) -> SomeOptions:
        """Return the same options with other values of some flags.

        Unlike `dataclasses.replace`, it lets mypy pass the flags of a command's settings, whose
        class is made when the program runs.
        """
        return dataclasses.replace(self, **values)

    @classmethod
    def from_json(cls: type[SomeOptions], values: Mapping[str, Any]) -> SomeOptions:
        """Return the options of JSON values by name, which `takes` has allowed; what is absent is
        at its default, and other names count for nothing."""
        kinds, names = _hints(cls), {field.name for field in flags_of(cls)}
        chosen = {n: _from_json(kinds[n], value) for n, value in values.items() if n in names}
        return cls(**chosen)

    def values(self) -> dict[str, Any]:
        """Return the flags by name, in the users' order."""
        return {field.name: getattr(self, field.name) for field in flags_of(type(self))}

    def to_json(self) -> dict[str, Any]:
        """Return all flags as JSON types: paths as strings, pairs as lists."""
        return {name: _json_value(value) for name, value in self.values().items()}

    def result_settings(self, adaptation: Collection[str] = ()) -> dict[str, Any]:
        """Return the flags that a result depends on as JSON types; of `ADAPTATION` only those that
        are named."""
        values = self.to_json()
        replaced = {old for old, new in replacements(type(self)).items() if values[new]}
        return {
            field.name: values[field.name]
            for field in flags_of(type(self))
            for rule in [field.metadata]
            if rule["affects_result"]
            and field.name not in replaced
            and (rule["group"] != ADAPTATION or field.name in adaptation)
            and (rule["only_with"] is None or values[rule["only_with"]])
        }

    def filled(self, stem: str) -> str:
        """Return the stem of a name with the values of the flags that it holds in braces."""
        written = {f.name: f.metadata["in_name"] for f in flags_of(type(self))}
        return stem.format(**{n: written[n](getattr(self, n)) for n in names_in(stem)})


def names_in(stem: str) -> tuple[str, ...]:
    """Return the flags that a stem holds: `fda_beta` for `fda{fda_beta}`."""
    return tuple(name for _, name, *_ in string.Formatter().parse(stem) if name)


@functools.cache
def joined(kinds: tuple[type[Options], ...]) -> Any:
    """Return the frozen dataclass of all flags of these dataclasses, which are its bases."""
    known: dict[str, dataclasses.Field] = {}
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        assert known.setdefault(field.name, field) is field, f"two flags are called {field.name}"
    bases = [
        kind
        for kind in kinds
        if not any(issubclass(other, kind) for other in kinds if other is not kind)
    ]

    def reduce(settings: Options) -> tuple[Any, ...]:  # pickle finds no class made here by its name
        return _made, (kinds, vars(settings))

    # A dataclass lists the fields of its last base first.
    return dataclasses.make_dataclass(
        "Settings",
        [],
        bases=tuple(reversed(bases)),
        namespace={"__reduce__": reduce},
        frozen=True,
        kw_only=True,
    )


def _made(kinds: tuple[type[Options], ...], values: Mapping[str, Any]) -> Options:
    return joined(kinds)(**values)


def _cached(function: SomeFunction) -> SomeFunction:
    """Return `functools.cache` of a function with the types of its parameters.

    mypy counts no class of options as hashable, since their values are compared by content.
    """
    return cast(SomeFunction, functools.cache(function))


@_cached
def flags_of(kind: type[Options]) -> tuple[dataclasses.Field, ...]:
    """Return the fields of the dataclass that are flags, by group in the users' order."""
    fields = (field for field in dataclasses.fields(kind) if field.metadata)
    order = [*GROUPS]
    return tuple(sorted(fields, key=lambda field: order.index(field.metadata["group"])))


def replacements(kind: type[Options]) -> dict[str, str]:
    """Return the flags that another one replaces where it is given, each with that one."""
    return {f.metadata["replaces"]: f.name for f in flags_of(kind) if f.metadata["replaces"]}


_hints = _cached(typing.get_type_hints)


def kind_of(options: type[Options], field: dataclasses.Field) -> Any:
    """Return the type of a field."""
    return _hints(options)[field.name]


def takes(options: type[Options], field: dataclasses.Field, value: Any) -> bool:
    """Return whether a JSON value can be that of a flag. Rules beyond the type are those of today,
    so only flags that affect a result are held to them."""
    if not _is_json_of(kind_of(options, field), value):
        return False
    choices, check = field.metadata["choices"], field.metadata["check"]
    if value is None or not field.metadata["affects_result"]:
        return True
    try:
        for element in value if isinstance(value, list) else [value]:
            if check:
                check(element)
    except ValueError:
        return False
    return not choices or value in choices


def _is_json_of(kind: Any, value: Any) -> bool:
    """Return whether `to_json` would write such a value for a flag of that type."""
    if isinstance(kind, types.UnionType):
        return any(_is_json_of(one, value) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        elements = typing.get_args(kind)
        if not isinstance(value, list) or (
            Ellipsis not in elements and len(value) != len(elements)
        ):
            return False
        return all(_is_json_of(elements[0], element) for element in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, {Path: str, float: int | float}.get(kind, kind))


def _json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_json_value(item) for item in value] if isinstance(value, tuple) else value


def _from_json(kind: Any, value: Any) -> Any:
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, list):
        return tuple(_from_json(kinds[0], item) for item in value)
    return Path(value) if Path in kinds and isinstance(value, str) else value
