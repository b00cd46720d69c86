"""The kinds of scores: which a training writes, which have columns, and which are compared."""

from collections.abc import Mapping
from typing import NamedTuple

from trainings.scoring.batch_norm import TARGET, TRAINING
from trainings.scoring.record import Kind

LAST, BEST, ADAPTED = ("last", TRAINING), ("best", TRAINING), ("last", TARGET)
AVERAGE, AVERAGE_ADAPTED = ("ema", TRAINING), ("ema", TARGET)

KINDS = (LAST, BEST, ADAPTED, ("best", TARGET), AVERAGE, AVERAGE_ADAPTED)
"""The kinds of scores that are read. Most runs have the first three; those with a teacher, or with
`--ema_decay`, have those of the averaged weights."""

OWN_SCORES = {
    LAST: "last",
    BEST: "best",
    ADAPTED: "last_target_statistics",
    AVERAGE: "last_average",
    AVERAGE_ADAPTED: "last_average_target_statistics",
}
"""Names of the scores that a training itself writes, by kind."""

HEADINGS = {LAST: "", BEST: ", best epoch", ADAPTED: ", target statistics"}
"""Kinds of scores that have columns in the tables, and the ends of the columns' headings."""

AVERAGE_HEADINGS = {
    AVERAGE: ", averaged weights",
    AVERAGE_ADAPTED: ", averaged weights, target statistics",
}
"""Kinds of scores of averaged weights: a teacher's, or the average of `--ema_decay`."""


class Compared(NamedTuple):
    """Which scores of a method are compared with which of source-only."""

    method: Kind
    source_only: Kind


AS_TRAINED, BEST_EPOCH = Compared(LAST, LAST), Compared(BEST, BEST)
BOTH_ADAPTED, WITH_FREE = Compared(ADAPTED, ADAPTED), Compared(LAST, ADAPTED)

COMPARED: Mapping[Compared, str] = {
    AS_TRAINED: "mIoU",
    BEST_EPOCH: "mIoU, best epoch",
    BOTH_ADAPTED: "mIoU, both with target statistics",
    WITH_FREE: "mIoU as trained, over source-only with target statistics",
}
"""The comparisons, and the headings of their columns."""
