"""The flags of `reproduce`, `demo` and `report`."""

import dataclasses
from pathlib import Path

from utils.cli.checks import at_least, one_of, seed_range
from utils.cli.common import PRESETS
from utils.cli.options import ACTION, Options, flag

MOST_JOBS = 4
"""Steps at a time of a demo that names no other number; each takes almost a gigabyte of memory, and
another one of a GPU's. Its small images keep neither several threads nor a GPU busy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproductionOptions(Options, group=ACTION):
    """Flags of `reproduce`, `demo` and `report`."""

    configs: tuple[str, ...] = flag(
        (),
        "reproduce, demo: presets to run the whole job with (default: that of --config; for "
        "reproduce config1 config2 where neither it nor --optimizer is given)",
        check=one_of(*PRESETS),
        metavar="CONFIG",
        affects_result=False,
        decides=True,
    )
    seeds: tuple[int, ...] = flag(
        (),
        "reproduce, demo: seeds to run the whole job with (default: that of --seed)",
        check=seed_range,
        metavar="N",
        affects_result=False,
        decides=True,
    )
    runs: tuple[Path, ...] = flag(
        (),
        "report: run folders typed by hand, such as checkpoints/*, whose tables are written into "
        "--save_model_path, report/ or --save_keyword (default: the folder of a reproduction)",
        metavar="FOLDER",
        affects_result=False,
        decides=True,
    )
    jobs: int | None = flag(
        None,
        "reproduce, demo: steps at a time, each in a process with its part of the cores, and on "
        "one of the GPUs (default: 1; for demo one for each core, up to "
        f"{MOST_JOBS})",
        check=at_least(1),
        affects_result=False,
        decides=True,
    )
    verbose: bool = flag(
        False,
        "reproduce, demo: print all that the steps print, which otherwise goes into log.txt in "
        "each run's folder; one step at a time",
        affects_result=False,
    )

    def inconsistency(self) -> str | None:
        if self.verbose and self.jobs not in (None, 1):
            return "argument --verbose: it prints one step at a time; leave it or --jobs out"
        return super().inconsistency()
