"""Write the text of `--help`: in short, or on an action, a topic or a flag."""

import re
from collections.abc import Mapping, Sequence

from utils.cli.action import Action, settings_type
from utils.cli.flags import PROGRAM, FlagParser, nearest
from utils.cli.options import GROUPS, flags_of
from utils.disk.files import REPOSITORY

ALL = "all"

WHAT = """Real-time domain adaptation for semantic segmentation: train STDC-BiSeNet on labelled
synthetic street scenes and make it work on unlabelled real ones."""

EXAMPLES = """examples:
  python main.py --action demo
  python main.py --action train_simple_gta5 --config config1 --aug_method C-S-HF
  python main.py --action val_gta5_transfer --load_model_path runs/a/best.pth
  python main.py --config_file checkpoints/ada_sgd_noaug/settings.json --save_keyword again"""

FURTHER = f"""more:
  {PROGRAM} --help ACTION    what an action does, examples, and the flags made for it
  {PROGRAM} --help TOPIC     the flags of a topic
  {PROGRAM} --help FLAG      one flag
  {PROGRAM} --help {ALL}       every flag
  {PROGRAM} --version        the version"""

MORE_FLAGS = f"\nmore flags: {PROGRAM} --help TOPIC, which is {', '.join(GROUPS)} or {ALL}\n"


def version() -> str:
    """Return the version that pyproject.toml names."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    named = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert named
    return named[1]


def help_text(asked: str, actions: Mapping[str, Action]) -> str:
    """Return the help on an action, a topic or a flag, on `ALL`, or in short for an empty word.

    Raise ValueError, with the nearest name, where there is none of what is asked for.
    """
    name = asked.lstrip("-")
    fields = flags_of(settings_type(actions))
    listed = _listed("actions", {one: action.help for one, action in actions.items()})
    if name == "":
        return _text(actions, [], WHAT, listed, _listed("topics", GROUPS), EXAMPLES, FURTHER)
    if name == ALL:
        return _text(actions, fields, WHAT, listed)
    if name in actions:
        own = [field for field in fields if field.name in actions[name].flags]
        title = f"{name}: {actions[name].help}"
        return _text(actions, own, title, _examples(name, actions[name])) + MORE_FLAGS
    chosen = [field for field in fields if name in (field.name, field.metadata["group"])]
    if chosen:
        return _text(actions, chosen)
    meant = nearest(name, [*actions, *GROUPS, *(field.name for field in fields)])
    raise ValueError(f"no action, topic or flag is called {asked!r}{meant}")


def _text(actions: Mapping[str, Action], fields: Sequence, *paragraphs: str) -> str:
    return FlagParser(actions, fields, description="\n\n".join(paragraphs)).format_help()


def _listed(title: str, lines: Mapping[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join([f"{title}:", *(f"  {name:{width}}  {text}" for name, text in lines.items())])


def _examples(name: str, action: Action) -> str:
    lines = (f"  python {PROGRAM} --action {name} {words}".rstrip() for words in action.examples)
    return "\n".join(["examples:", *lines])
