"""The flags of `reproduce`, `demo` and `report`."""

import dataclasses
from pathlib import Path

from utils.cli.options import ACTION, Options, flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproductionOptions(Options, group=ACTION):
    """Flags for the output of a reproduction, and for the runs that are reported."""

    runs: tuple[Path, ...] = flag(
        (),
        "report: run folders typed by hand, such as checkpoints/*, whose tables are written into "
        "--save_model_path, report/ or --save_keyword (default: the folder of a reproduction)",
        metavar="FOLDER",
        affects_result=False,
        decides=True,
    )
    verbose: bool = flag(
        False,
        "reproduce, demo: print all that the steps print, which otherwise goes into log.txt in "
        "each run's folder",
        affects_result=False,
    )
