"""The command line: a flag per field of `Settings`; the door that all settings pass."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from utils.settings import PRESETS, Settings, setting_fields, with_derived_defaults


def parse_settings(
    argv: Sequence[str],
    action_help: Mapping[str, str],
    action_defaults: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]],
) -> Settings:
    """Settings of a command line; leaves through the parser's error (exit 2) where they are wrong.

    A value is the explicit flag's, else the preset's, else the action's default, else the field's.
    An action's defaults may follow from the explicit flags.
    """
    parser = _build_parser(action_help)
    explicit = vars(parser.parse_args(argv))
    preset = PRESETS.get(explicit.get("config"), {})
    merged = {**action_defaults[explicit["action"]](explicit), **preset, **explicit}
    settings = with_derived_defaults(Settings(**merged, given=frozenset(explicit)))
    problem = _inconsistency(settings)
    if problem:
        parser.error(problem)
    return settings


def _inconsistency(settings: Settings) -> str | None:
    """What is wrong between settings that are each allowed."""
    resized = zip(settings.source_resize, settings.image_size, strict=True)
    if any(source < image for source, image in resized):
        return (
            f"argument --source_resize: {_words(settings.source_resize)} is smaller than "
            f"--image_size {_words(settings.image_size)}, which is cropped from it"
        )
    return None


def _words(pair: tuple[int, ...]) -> str:
    return " ".join(map(str, pair))


def _build_parser(action_help: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py",
        usage="main.py --action ACTION [--flag value ...]",
        description=_description(action_help),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for field in setting_fields():
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        _add_flag(groups[group], field, action_help)
    return parser


def _description(action_help: Mapping[str, str]) -> str:
    width = max(map(len, action_help))
    actions = "\n".join(f"  {name:{width}}  {text}" for name, text in action_help.items())
    return (
        "Real-time domain adaptation for semantic segmentation: train STDC-BiSeNet on labelled\n"
        "synthetic street scenes and make it work on unlabelled real ones.\n\n"
        f"actions:\n{actions}"
    )


EXAMPLES = """examples:
  python main.py --action demo
  python main.py --action train_simple_gta5 --config config1 --aug_method C-S-HF
  python main.py --action val_gta5_transfer --load_model_path runs/a/best.pth
"""


def _add_flag(group: Any, field: dataclasses.Field, action_help: Mapping[str, str]) -> None:
    kind = _kind(typing.get_type_hints(Settings)[field.name])
    options: dict[str, Any] = {"help": _help(field)}
    if field.name == "action":
        options |= {"required": True, "choices": tuple(action_help), "metavar": "ACTION"}
    elif field.metadata["choices"]:
        options |= {"choices": field.metadata["choices"]}
    elif kind is bool:
        options |= {"type": _boolean, "nargs": "?", "const": True, "metavar": "True|False"}
    else:
        several = typing.get_origin(kind) is tuple
        elements = typing.get_args(kind) if several else (kind,)
        nargs = "+" if Ellipsis in elements else len(elements)
        options |= {
            "type": _checked(elements[0], field),
            "nargs": nargs if several else None,
            "metavar": field.metadata["metavar"] or {int: "N", float: "X"}.get(kind),
            "action": _StoreTuple if several else "store",
        }
    group.add_argument(f"--{field.name}", **options)


def _help(field: dataclasses.Field) -> str:
    text, default = field.metadata["help"], field.default
    if default is None or default is False or default in ("", ()) or "(default" in text:
        return text
    shown = _words(default) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def _kind(hint: Any) -> Any:
    """The type of a field without its `| None`."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return hint


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False") from None


def _checked(kind: type, field: dataclasses.Field) -> Callable[[str], Any]:
    """Parser of one word; an empty word stands for the default, as an unset notebook variable."""
    nouns = {int: "a whole number", float: "a number"}

    def parse(text: str) -> Any:
        if text == "" and kind not in nouns:
            return field.default
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {nouns[kind]}") from None
        try:
            if field.metadata["check"]:
                field.metadata["check"](value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
        return value

    return parse


class _StoreTuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        # An empty word has become the default of a list, which is empty.
        setattr(namespace, self.dest, tuple(value for value in values if value != ()))
