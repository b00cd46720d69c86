"""Fill the tables of benchmarks/README.md that need a CUDA GPU, in at most ten minutes.

    python benchmarks/gpu.py

Correctness comes first, by the tests of `pytest -m gpu`; then speed and memory compared with a
plain loss in the same precision and memory format, the operators that take a step's time, loaders,
loss curves of the precisions, the demo, and the whole test suite. Every row is measured on its own
and written as soon as it is known: a row that fails says why and leaves the others alone. With
`--device cpu`, and a small `--size`, `--batch` and `--width`, the script can be tried out; it then
writes to no file unless `--out` names one.
"""

import argparse
import contextlib
import dataclasses
import gc
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch
from step import METHODS, OWN_FLAGS, PLAIN, floor, ours, sample  # its neighbour
from step import step as forward_backward
from timing import machine, medians
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.catalog import TrainingFiles, labelled
from datasets.data_set import Role
from datasets.loading.batches import training_batches
from datasets.loading.pairs import SOURCE_STREAM, TARGET_STREAM, TrainingData
from datasets.loading.sets import training_samples
from datasets.samples import Batch
from datasets.toy_city import make_toy_city
from main import FlatSettings as Settings
from trainings.engine.state import TrainState
from trainings.engine.step import compile_parts, train_step
from trainings.experiment import new_network, unlabelled_target
from trainings.method import Method
from utils.cli.common import PRECISIONS
from utils.text import markdown
from utils.utils import autocast, float32_products, resolve_precision, seed_everything

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "benchmarks" / "README.md"

COMPILED = "auto, compiled"
FORMS = (*PRECISIONS, COMPILED)

WARM_UP = 8
"""Steps before any that is measured: the first compile, choose algorithms, fill caches and, where
networks are compiled, record CUDA graphs."""

AHEAD = 4
"""Batches of each worker that are not timed, and at least so many that are: a worker is always some
batches ahead, and these would seem to take no time."""

PARTS_OF_A_STEP = ("ours", "plain", "networks")
"""The columns of forward and backward passes that are timed alone."""

SHOWN = 8
"""Operators of a method in the table of a profile."""

LAST = 50
"""Steps at the end of a loss curve that are averaged."""

Row = tuple[str, ...]
Attempt = tuple[Row, Callable[[], list[Row]]]
"""The first cells of a row, and what measures the others; of several rows, those of each."""


class Bench:
    """The parts that are asked for, and the time that is left.

    Attributes:
        work: a folder for Toy City, caches and runs.
    """

    def __init__(self, args: argparse.Namespace, work: Path):
        self.args, self.work = args, work
        self.device = torch.device(args.device)
        self.deadline = time.monotonic() + 60 * args.minutes
        self.until = self.deadline

    def begin(self, part: str, following: Sequence[str]) -> None:
        """Give a part its share of the time that is left: what earlier parts spare, later ones
        have."""
        share = SHARES[part] / sum(SHARES[name] for name in (part, *following))
        now = time.monotonic()
        self.until = now + share * (self.deadline - now)

    @property
    def left(self) -> float:
        """Seconds that the part has."""
        return self.until - time.monotonic()

    def settings(self, **changes) -> Settings:
        args, city = self.args, self.work / "city"
        size = tuple(args.size)
        places = {"toy_root": city, "gta5_root": city / "GTA5"}
        places |= {"cityscapes_root": city / "Cityscapes", "cache_dir": self.work / "cache"}
        sizes = {"image_size": size, "source_resize": size, "base_width": args.width}
        recipe = {"batch_size": args.batch, "num_epochs": 1, "fda_beta": 0.05}
        return Settings(**{**places, **sizes, **recipe, **changes})

    def state(self, kind: str, precision: torch.dtype, settings: Settings) -> TrainState:
        """Return a method on the device before its first step."""
        seed_everything(settings.seed)
        settings = dataclasses.replace(settings, **OWN_FLAGS.get(kind, {}))
        method = METHODS[kind](new_network(settings), settings)
        method = method.to(self.device, memory_format=torch.channels_last).train()
        scaled = precision == torch.float16
        return TrainState(
            method, settings, steps_per_epoch=self.args.curve_steps, scale_loss=scaled
        )

    def batch(self) -> Batch:
        size = tuple(self.args.size)
        return Batch(*(sample(self.args.batch, size, self.args.device) for _ in range(2)))

    def data(self, kind: str, settings: Settings) -> TrainingData:
        """Return Toy City as a method trains on it; the true labels stand for SSL-FDA's
        pseudo-labels."""
        scenes = max(16, 2 * settings.batch_size)
        make_toy_city(settings.toy_root, train=scenes, val=1, size=settings.image_size, seed=0)
        source = TrainingFiles(Role.SOURCE, labelled(Role.SOURCE, "train", settings))
        target = {
            "supervised": lambda _: None,
            "ssl_fda": lambda _: TrainingFiles(
                Role.TARGET, labelled(Role.TARGET, "train", settings)
            ),
        }.get(kind, unlabelled_target)(settings)
        return TrainingData(
            training_samples(source, settings, SOURCE_STREAM),
            target and training_samples(target, settings, TARGET_STREAM),
            batch_size=settings.batch_size,
            seed=settings.seed,
        )


# ------------------------------------------------------------------------------------- correctness


def correctness(bench: Bench) -> Iterator[Attempt]:
    """Run the test functions of `pytest -m gpu` one after the other."""
    chosen = ("-m", "gpu", "-k", bench.args.tests)
    for name in _collected(chosen, bench):
        yield (name.rpartition("::")[2],), partial(_tested, bench, name, *chosen)


def suite(bench: Bench) -> Iterator[Attempt]:
    """Run all other tests, which are about the CPU, on this machine, file by file."""
    chosen = ("-m", "not gpu", "-k", bench.args.tests)
    for name in dict.fromkeys(name.partition("::")[0] for name in _collected(chosen, bench)):
        yield (name,), partial(_tested, bench, name, *chosen)


def _collected(chosen: Sequence[str], bench: Bench) -> list[str]:
    """Return the names of the test functions, by file; a single entry for all where no time is
    left."""
    if bench.left <= 0:
        return ["all"]
    found = _pytest(bench, "--collect-only", *chosen)
    names = (line.partition("[")[0] for line in found.splitlines() if "::" in line)
    return list(dict.fromkeys(names))


def _tested(bench: Bench, name: str, *chosen: str) -> list[Row]:
    """Return how many cases passed, the seconds they took, and which failed."""
    report = bench.work / "tests.xml"
    report.unlink(missing_ok=True)
    _pytest(bench, name, *chosen, f"--junitxml={report}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    run = [case for case in cases if case.find("skipped") is None]
    failed = [case for case in run if {"failure", "error"} & {e.tag for e in case}]
    seconds = sum(float(case.get("time")) for case in run)
    which = ", ".join(case.get("name").partition("[")[2].strip("]") or "all" for case in failed)
    return [(f"{len(run) - len(failed)} of {len(run)}", f"{seconds:.0f}", which)]


def _pytest(bench: Bench, *words: str) -> str:
    """Return what pytest prints; pytest and its child processes end when their time is over."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "GPU_TESTS_ON": bench.args.device}
    return within(bench.left, command, environment).stdout


def within(
    seconds: float, command: Sequence[str], environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess:
    """Run a command and return it with its output. Raise TimeoutExpired when its time is over; no
    process that it has started is left in any case."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=max(1.0, seconds))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, printed)


# ------------------------------------------------------------------------------- speed and profile


def speed(bench: Bench) -> Iterator[Attempt]:
    """Measure the whole step, then forward and backward alone: ours, plain, and the networks'
    alone."""
    # The compiled form comes last: it takes a minute a method, and time may run out.
    for form, kind in itertools.product(bench.args.forms, bench.args.methods):
        yield (kind, form), partial(_speed, bench, kind, form)


def _speed(bench: Bench, kind: str, form: str) -> list[Row]:
    name, args, compiled = form.partition(",")[0], bench.args, form == COMPILED
    precision = resolve_precision(name, bench.device)
    state, batch = bench.state(kind, precision, bench.settings()), bench.batch()
    if compiled:
        compile_parts(state.method)
    with float32_products(name):
        step = partial(train_step, state, [batch], precision)
        _repeat(step, WARM_UP, args.device)
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = _repeat(step, args.steps, args.device)
        peak = f"{_peak(compiled):.0f}" if args.device == "cuda" else ""
        runs = {"ours": (_marked if compiled else ours, state.method)}
        if compiled:
            # The plain form and the networks alone hold several passes at a time, for which CUDA
            # graphs are recorded anew.
            as_written = bench.state(kind, precision, bench.settings()).method
            runs["plain"] = (_plain(kind), as_written)
        else:
            runs |= {"plain": (_plain(kind), state.method), "networks": (floor, state.method)}
        calls = {
            part: partial(forward_backward, run, method, batch, precision)
            for part, (run, method) in runs.items()
        }
        alone = medians(calls, max(1, args.steps // 4), args.device)
    of = [f"{1e3 * alone[part]:.1f}" if part in alone else "" for part in PARTS_OF_A_STEP]
    ratio = f"{alone['plain'] / alone['ours']:.2f}"
    return [(f"{args.batch / seconds:.1f}", f"{1e3 * seconds:.1f}", peak, *of, ratio)]


def _marked(method: Method, batch: Batch, precision: torch.dtype) -> None:
    """Run ours as a step of the loop does with compiled networks."""
    torch.compiler.cudagraph_mark_step_begin()
    ours(method, batch, precision)


def _peak(compiled: bool) -> float:
    """Return megabytes: the most that tensors held; where steps are CUDA graphs, which own their
    memory, all that torch has taken."""
    taken = torch.cuda.max_memory_reserved if compiled else torch.cuda.max_memory_allocated
    return taken() / 1e6


def _plain(kind: str) -> Callable:
    """Return the plain form of step.py, in the precision and memory format of ours."""

    def run(method: Method, batch: Batch, precision: torch.dtype) -> None:
        with autocast(batch.source.image.device, precision):
            PLAIN[kind](method, batch)

    return run


def profile(bench: Bench) -> Iterator[Attempt]:
    """List the operators that take most of the device's own time, in the precision of auto, and
    how long the device computes in a step of compiled networks."""
    forms = ("auto", *(form for form in bench.args.forms if form == COMPILED))
    for form, kind in itertools.product(forms, bench.args.methods):
        yield (kind, form), partial(_profile, bench, kind, form)


def _profile(bench: Bench, kind: str, form: str) -> list[Row]:
    args, on_gpu = bench.args, bench.args.device == "cuda"
    precision = resolve_precision("auto", bench.device)
    state = bench.state(kind, precision, bench.settings())
    if form == COMPILED:
        compile_parts(state.method)
    step = partial(train_step, state, [bench.batch()], precision)
    _repeat(step, WARM_UP, args.device)
    wall = 1e3 * _repeat(step, args.steps, args.device)
    with torch.profiler.profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    ) as profiler:
        _repeat(step, args.steps, args.device)
    time_of = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [one for one in profiler.key_averages() if not one.is_user_annotation]

    def milliseconds(device: DeviceType) -> dict[str, float]:
        on_it = [one for one in events if one.device_type == device]
        return {one.key: getattr(one, time_of) / 1e3 / args.steps for one in on_it}

    # The kernels of a CUDA graph have no operator that launched them.
    busy = sum(milliseconds(DeviceType.CUDA if on_gpu else DeviceType.CPU).values())
    total = ("all, and the step by the clock", f"{busy:.2f}", f"{wall:.2f}")
    if form == COMPILED:
        return [total]
    largest = sorted(milliseconds(DeviceType.CPU).items(), key=lambda item: -item[1])[:SHOWN]
    return [total, *((name, f"{ms:.2f}", f"{100 * ms / busy:.0f} %") for name, ms in largest)]


# ------------------------------------------------------------------------------- loaders and curves


def loaders(bench: Bench) -> Iterator[Attempt]:
    """Measure batches of FDA's data on the device, from the cache, without any step between
    them."""
    for codes, workers in itertools.product(("", "C-S-HF"), bench.args.workers):
        yield (codes or "none", str(workers)), partial(_loaded, bench, codes, workers)


def _loaded(bench: Bench, codes: str, workers: int) -> list[Row]:
    data = bench.data("fda", bench.settings(aug_method=codes))
    ahead = max(WARM_UP, AHEAD * workers)
    timed = max(bench.args.steps, ahead)
    batches = training_batches(data, 0, ahead + timed, num_workers=workers, device=bench.device)
    for _ in range(ahead):  # those that the workers make while the first ones are awaited
        next(batches)
    seconds = _repeat(partial(next, batches), timed, bench.args.device)
    return [(f"{bench.args.batch / seconds:.1f}",)]


def curves(bench: Bench) -> Iterator[Attempt]:
    """Train on Toy City from the same weights and on the same batches in every precision."""
    names = [form for form in bench.args.forms if form != COMPILED]
    for kind, name in itertools.product(bench.args.methods, names):
        yield (kind, name), partial(_curve, bench, kind, name)


def _curve(bench: Bench, kind: str, name: str) -> list[Row]:
    precision, steps, last = resolve_precision(name, bench.device), bench.args.curve_steps, []
    for seed in bench.args.seeds:
        settings = bench.settings(seed=seed)
        state, data = bench.state(kind, precision, settings), bench.data(kind, settings)
        workers = bench.args.workers[0]
        batches = training_batches(data, 0, steps, num_workers=workers, device=bench.device)
        with float32_products(name):
            steps_made = [train_step(state, [one], precision) for one in batches]
        last.append(torch.stack([terms["loss"] for terms in steps_made[-LAST:]]).mean().item())
    spread = f"{statistics.stdev(last):.3f}" if len(last) > 1 else ""
    return [(f"{statistics.mean(last):.3f}", spread)]


# ------------------------------------------------------------------------------------------- demo


def demo(bench: Bench) -> Iterator[Attempt]:
    """Run the README's demo as it is, or smaller in a trial."""
    small = ("--toy_train", "8", "--toy_val", "4", "--toy_size", "64", "128", "--num_epochs", "1")
    words = () if bench.args.device == "cuda" else (*small, "--base_width", "8")
    yield ("demo",), partial(_demo, bench, words)


def _demo(bench: Bench, words: Sequence[str]) -> list[Row]:
    places = ("--toy_root", bench.work / "demo", "--save_model_path", bench.work / "runs")
    command = [sys.executable, ROOT / "main.py", "--action", "demo", *places, *words]
    start = time.perf_counter()
    device = ("--device", bench.args.device)
    within(bench.left, list(map(str, (*command, *device)))).check_returncode()
    return [(f"{time.perf_counter() - start:.0f}",)]


# ------------------------------------------------------------------------------------------ driver

PARTS = {
    "correctness": (correctness, ("test", "passed", "s", "failed")),
    "speed": (
        speed,
        (
            *("method", "form", "images/s", "ms a step", "peak MB"),
            *("ours, ms", "plain, ms", "networks alone, ms", "plain / ours"),
        ),
    ),
    "profile": (profile, ("method", "form", "operator", "ms a step", "share")),
    "loaders": (loaders, ("augmentation", "workers", "pairs/s")),
    "curves": (curves, ("method", "precision", "mean loss of the last steps", "± over seeds")),
    "demo": (demo, ("command", "s")),
    "suite": (suite, ("tests", "passed", "s", "failed")),
}

SHARES = {
    **{"correctness": 4, "speed": 4, "profile": 1, "loaders": 2, "curves": 2, "demo": 2},
    "suite": 10,
}
"""Shares of `--minutes` that the parts may take."""


def measured(bench: Bench, part: str) -> Iterator[str]:
    """Yield the part's table as Markdown, again after every row."""
    attempts, head = PARTS[part]
    rows = [head]
    for first, measure in attempts(bench):
        begun = bench.left > 0
        try:
            found = measure() if begun else [("no time left",)]
        except Exception as error:  # a form that fails must not lose the others
            found = [(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}",)]
        rows += [(first + row + ("",) * len(head))[: len(head)] for row in found]
        if begun:
            _forget(bench.args.device)
        yield markdown(rows)
    if len(rows) == 1:
        yield markdown([*rows, ("nothing was chosen", *("",) * (len(head) - 1))])


def _repeat(call: Callable, times: int, device: str) -> float:
    """Return the seconds of one call."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return (time.perf_counter() - start) / times


def _forget(device: str) -> None:
    """Free what the forms before took, memory included."""
    torch.compiler.reset()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def fill(path: Path, part: str, text: str) -> None:
    """Put a part between its markers in a Markdown file."""
    begin, end = f"<!-- gpu.py {part} -->\n", f"<!-- end of {part} -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{path} has no markers of {part}"
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = [part for part in PARTS if part != "suite"]
    parser.add_argument("--parts", nargs="+", default=default, choices=PARTS)
    parser.add_argument("--suite", action="store_true", help="all other tests, too, at the end")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=64, help="--base_width of the network")
    parser.add_argument("--steps", type=int, default=12, help="that are timed")
    parser.add_argument("--curve_steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the curves")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--minutes", type=float, default=10, help="after which no row is begun")
    parser.add_argument("--tests", default="", help="-k of pytest, for a trial")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/README.md on CUDA, else none")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA GPU here; --device cpu tries the script out")
    out = args.out or (README if args.device == "cuda" else None)
    command = " ".join(["python benchmarks/gpu.py", *argv])
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(args, Path(work))
        parts = list(dict.fromkeys([*args.parts, *(["suite"] if args.suite else [])]))
        for number, part in enumerate(parts, 1):
            bench.begin(part, parts[number:])
            for table in measured(bench, part):
                text = f"{table}\n`{command}`, part {part}: {machine(args.device)}\n"
                if out:
                    fill(out, part, text)
            print(f"\n{part}\n\n{text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
