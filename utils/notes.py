"""Notes to the user that many places could make, and that are printed once."""

import sys

from torch.utils.data import get_worker_info

from utils import processes

_said: set[str] = set()


def say_once(text: str) -> None:
    """Print a note on standard error, unless this process has printed it before.

    If several processes train together, the first one prints the note. Workers that load data
    cannot ask the others, so each worker prints its own.
    """
    if text in _said:
        return
    _said.add(text)
    if get_worker_info() is None and not processes.first_to_say(text):
        return
    sys.stdout.flush()  # in a log, what was printed before stands before
    print(text, file=sys.stderr, flush=True)
