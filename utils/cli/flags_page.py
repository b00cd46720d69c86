"""Print the page of all flags: `python -m utils.cli.flags_page > docs/flags.md`."""

import re

from utils.cli.flags import FlagParser
from utils.cli.settings import setting_fields

INTRODUCTION = """# Flags

`python -m utils.cli.flags_page > docs/flags.md` writes this page from the settings, and a test
compares the two. `python main.py --help` prints the same texts in the terminal: `--help train_fda`
explains an action, `--help training` a topic, `--help fda_beta` a flag.
"""

TABLE = "| flag | meaning |\n|---|---|"


def flags_page() -> str:
    """Return the page as Markdown: a table of flags for each topic."""
    parser, topic, lines = FlagParser(()), None, [INTRODUCTION.rstrip()]
    for field in setting_fields():
        if field.metadata["group"] != topic:
            topic = field.metadata["group"]
            name, _, what = topic.partition(": ")
            lines.append(f"\n## {name}\n\n{what[:1].upper()}{what[1:]}.\n\n{TABLE}")
        words, text = parser.described(field)
        escaped = words.replace("|", r"\|"), re.sub(r"([|<*])", r"\\\1", text)
        lines.append("| `{}` | {} |".format(*escaped))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(flags_page(), end="")
