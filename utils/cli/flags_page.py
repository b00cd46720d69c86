"""Print the page of all flags: `python -m utils.cli.flags_page > docs/flags.md`."""

import re
import runpy
from collections.abc import Mapping

from utils.cli.action import Action, settings_type
from utils.cli.flags import FlagParser
from utils.cli.options import GROUPS, flags_of
from utils.disk.files import REPOSITORY

INTRODUCTION = """# Flags

`python -m utils.cli.flags_page > docs/flags.md` writes this page from the settings, and a test
compares the two. `python main.py --help` prints the same texts in the terminal: `--help train_fda`
explains an action, `--help training` a topic, `--help fda_beta` a flag.
"""

TABLE = "| flag | meaning |\n|---|---|"


def flags_page(actions: Mapping[str, Action]) -> str:
    """Return the page as Markdown: a table of flags for each topic."""
    parser, topic, lines = FlagParser(actions), None, [INTRODUCTION.rstrip()]
    for field in flags_of(settings_type(actions)):
        if field.metadata["group"] != topic:
            topic = field.metadata["group"]
            what = GROUPS[topic]
            lines.append(f"\n## {topic}\n\n{what[0].upper()}{what[1:]}.\n\n{TABLE}")
        words, text = parser.described(field)
        escaped = words.replace("|", r"\|"), re.sub(r"([|<*])", r"\\\1", text)
        lines.append("| `{}` | {} |".format(*escaped))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(flags_page(runpy.run_path(str(REPOSITORY / "main.py"))["ACTIONS"]), end="")
