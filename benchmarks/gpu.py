"""What only a CUDA GPU can tell, into the tables of benchmarks/README.md.

    python benchmarks/gpu.py

Every action by the real command; images/s and memory of every method's training step; what a step
spends its time on; the loss curves of the precisions; and where the training loop waits for the
device. Each part writes its table as soon as it is known. On a CPU (`--device cpu`, with a small
`--size`, `--batch` and `--width`) it tries itself out, and writes into no file unless told.
"""

import argparse
import contextlib
import gc
import itertools
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from step import floor, sample  # its neighbour
from timing import machine, medians
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.samples import Batch
from datasets.toy_city import make_toy_city
from trainings.experiment import new_network, unlabelled_cityscapes
from trainings.loaders import (
    SOURCE_STREAM,
    TARGET_STREAM,
    Domain,
    TrainingData,
    TrainingFiles,
    labelled,
    training_batches,
    training_samples,
)
from trainings.loop import Training, compile_parts, train_step
from trainings.method import Method
from trainings.state import TrainState
from trainings.stopping import Stop
from trainings.train_ADA import ADA
from trainings.train_FDA import FDA
from trainings.train_simple import Supervised
from trainings.train_SSL_FDA import SSLFDA
from utils.errors import UsageError
from utils.run_folder import RunFolder
from utils.settings import Settings, with_derived_defaults
from utils.utils import is_out_of_memory, markdown, resolve_precision, seed_everything

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "benchmarks" / "README.md"

METHODS = {"supervised": Supervised, "ADA": ADA, "FDA": FDA, "SSL-FDA": SSLFDA}

TRAINED = ("--load_model_path", "runs/simple_gta5_sgd_noaug/best.pth")
COMMANDS = (
    ("make_toy_data",),
    ("check_data",),
    ("train_simple_cityscapes",),
    ("train_simple_gta5",),
    ("val_gta5_transfer",),
    ("train_ada",),
    *(("train_fda", "--fda_beta", beta) for beta in ("0.01", "0.05", "0.09")),
    ("val_mbt",),
    ("val_mbt", "--eval_scales", "0.5", "0.75", "1.0", "--eval_flip"),
    ("generate_pseudo_labels",),
    ("train_ssl_fda", "--fda_beta", "0.05"),
    ("visualize",),
    ("predict", *TRAINED, "--input", "city/Cityscapes/leftImg8bit/val"),
    ("demo",),
    ("reproduce", "--configs", "config2"),
    ("report",),
    ("export", *TRAINED),
    ("benchmark",),
)
"""Every action, each after those whose results it needs."""

SCENES = 16
"""Of a Toy City in each domain, at least; a training passes over them as often as it takes."""

WARM_UP = 3
"""Steps before any that is measured: the first compile, choose algorithms and fill caches."""

SHOWN = 15
"""Operators in the table of a profile."""

LAST = 50
"""Steps at the end of a loss curve that are averaged."""

LOG_EVERY = 10
LOGGED_STEPS = 25


class Form(NamedTuple):
    """How a step is run."""

    precision: str = "auto"
    compiled: bool = False
    cudnn_benchmark: bool = False


FORMS = {
    "fp32": Form("fp32"),
    "bf16": Form("bf16"),
    "fp16": Form("fp16"),
    "compiled": Form(compiled=True),
    "cudnn.benchmark": Form(cudnn_benchmark=True),
}


def actions(args: argparse.Namespace, work: Path) -> str:
    """Every action end to end, for one epoch, each in a process of its own."""
    folder, size = work / "actions", [str(side) for side in args.size]
    folder.mkdir(exist_ok=True)
    city = folder / "city"
    common = [
        *("--toy_root", city, "--gta5_root", city / "GTA5", "--cityscapes_root"),
        *(city / "Cityscapes", "--toy_train", max(SCENES, 2 * args.batch), "--toy_val", "4"),
        *("--toy_size", *size, "--image_size", *size, "--batch_size", args.batch),
        *("--num_epochs", "1", "--base_width", args.width, "--device", args.device),
        *("--save_model_path", folder / "runs", "--cache_dir", work / "cache"),
        *("--num_workers", args.workers),
    ]
    rows = [("command", "exit code", "s", "in")]
    for words in COMMANDS:
        command = [sys.executable, ROOT / "main.py", "--action", *words, *common]
        start = time.perf_counter()
        done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            print(done.stderr, file=sys.stderr)
        precisions = dict.fromkeys(re.findall(r"on (?:cuda|cpu) in (\w+)", done.stdout))
        rows.append(
            (" ".join(words), str(done.returncode), f"{seconds:.0f}", ", ".join(precisions))
        )
    return markdown(rows, numbers=(1, 2))


def speed(args: argparse.Namespace, work: Path) -> str:
    """Images/s of the source, and the memory that torch's allocator holds at most."""
    rows = [("method", "form", "images/s", "ms a step", "peak MB")]
    for kind, (form, how) in itertools.product(args.methods, FORMS.items()):
        if form in args.forms:
            rows.append((kind, form, *_speed(kind, how, args)))
    return markdown(rows, numbers=(2, 3, 4))


def _speed(kind: str, form: Form, args: argparse.Namespace) -> tuple[str, str, str]:
    try:
        with _cudnn_benchmark(form.cudnn_benchmark):
            step, _ = synthetic_step(kind, form, args)
            _repeat(step, WARM_UP, args.device)
            if args.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = _repeat(step, args.steps, args.device)
    except UsageError:
        return "not on this device", "", ""
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return "out of memory", "", ""
    finally:
        step = None
        _forget(args.device)
    peak = f"{torch.cuda.max_memory_allocated() / 1e6:.0f}" if args.device == "cuda" else ""
    return f"{args.batch / seconds:.1f}", f"{1e3 * seconds:.1f}", peak


def synthetic_step(
    kind: str, form: Form, args: argparse.Namespace
) -> tuple[Callable[[], object], TrainState]:
    """A training step as the loop makes it, on one batch that lies ready, and its state."""
    device = torch.device(args.device)
    precision = resolve_precision(form.precision, device)
    settings = _settings(args, args.size)
    batch = Batch(*(sample(args.batch, tuple(args.size), args.device) for _ in range(2)))
    state = _state(kind, settings, precision, device, steps_per_epoch=1000)
    if form.compiled:
        compile_parts(state.method)
    return partial(train_step, state.method, state, [batch], precision), state


def profile(args: argparse.Namespace, work: Path) -> str:
    """Of each method: where a step's time goes by operator, and what is not the networks'."""
    what_is_left = [
        ("method", "ms a step", "device busy, ms", "idle %", "networks alone, ms", "the rest %")
    ]
    tables = []
    for kind in args.methods:
        step, state = synthetic_step(kind, Form(), args)
        _repeat(step, WARM_UP, args.device)
        wall = 1e3 * _repeat(step, args.steps, args.device)
        spent = _spent(step, args)
        busy = sum(spent.values())
        alone = 1e3 * _networks_alone(state.method, args)
        idle = f"{100 * max(0.0, 1 - busy / wall):.0f}" if args.device == "cuda" else ""
        what_is_left.append(
            (kind, f"{wall:.1f}", f"{busy:.1f}", idle, f"{alone:.1f}", f"{_rest(alone, wall):.0f}")
        )
        largest = sorted(spent.items(), key=lambda item: -item[1])[:SHOWN]
        shares = [(name, f"{ms:.2f}", f"{100 * ms / busy:.1f}") for name, ms in largest]
        table = markdown([("operator", "ms a step", "%"), *shares], numbers=(1, 2))
        tables.append(f"{kind}:\n\n{table}")
        del step, state
        _forget(args.device)
    return "\n".join([markdown(what_is_left, numbers=range(1, 6)), *tables])


def _rest(alone: float, wall: float) -> float:
    return 100 * max(0.0, 1 - alone / wall)


def _spent(step: Callable, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a step of the device's own time of each operator."""
    on_gpu = args.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        _repeat(step, args.steps, args.device)
    time_of = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # An event of the GPU repeats the time of the operator that launched it.
    operators = [one for one in profiler.key_averages() if one.device_type == DeviceType.CPU]
    return {one.key: getattr(one, time_of) / 1e3 / args.steps for one in operators}


def _networks_alone(method: Method, args: argparse.Namespace) -> float:
    """Seconds of the networks' forward and backward passes alone, as in step.py."""
    precision = resolve_precision("auto", torch.device(args.device))
    batch = Batch(*(sample(args.batch, tuple(args.size), args.device) for _ in range(2)))

    def call() -> None:
        method.zero_grad()
        floor(method, batch, precision)

    return medians({"floor": call}, args.steps, args.device)["floor"]


def curves(args: argparse.Namespace, work: Path) -> str:
    """Trainings on Toy City, each from the same weights and on the same batches in every
    precision: the mean loss of the last steps, and by how much it differs from fp32's."""
    size = tuple(max(64, side // 2) for side in args.size)
    precisions = [p for p in ("fp32", "bf16", "fp16") if p in args.forms and _runs(p, args)]
    rows = [("method", "fp32", *(f"{name} - fp32" for name in precisions[1:]))]
    for kind in (kind for kind in ("supervised", "FDA") if kind in args.methods):
        losses = {
            name: [
                _final_loss(kind, name, replace(_settings(args, size, work), seed=seed), args)
                for seed in args.seeds
            ]
            for name in precisions
        }
        fp32 = losses["fp32"]
        differences = [
            [a - b for a, b in zip(losses[name], fp32, strict=True)] for name in precisions[1:]
        ]
        rows.append((kind, _spread(fp32), *(_spread(one, sign="+") for one in differences)))
    seeds = " ".join(map(str, args.seeds))
    note = (
        f"{args.curve_steps} steps of batches of {args.batch} at {'x'.join(map(str, size))}, mean "
        f"of the last {min(LAST, args.curve_steps)}; mean ± deviation over the seeds {seeds}."
    )
    return f"{markdown(rows)}\n{note}\n"


def _runs(precision: str, args: argparse.Namespace) -> bool:
    try:
        resolve_precision(precision, torch.device(args.device))
    except UsageError:
        return False
    return True


def _final_loss(kind: str, name: str, settings: Settings, args: argparse.Namespace) -> float:
    device = torch.device(args.device)
    precision = resolve_precision(name, device)
    data = _toy_training(kind, settings)
    state = _state(kind, settings, precision, device, steps_per_epoch=args.curve_steps)
    batches = training_batches(data, 0, args.curve_steps, num_workers=args.workers, device=device)
    losses = [train_step(state.method, state, [batch], precision)["loss"] for batch in batches]
    return torch.stack(losses[-LAST:]).mean().item()


def _spread(values: Sequence[float], sign: str = "") -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):{sign}.3f} ± {deviation:.3f}"


def waits(args: argparse.Namespace, work: Path) -> str:
    """How often the real loop waits for the device, by torch's own warnings: the first step fills
    caches, every `--log_every`th and the last one log."""
    rows = [("method", "in", "first step", "steps that log", "other steps", "where")]
    for kind in args.methods:
        for name in ("bf16", "fp16"):
            if name in args.forms and _runs(name, args):
                rows.append((kind, name, *_waits(kind, name, args, work)))
    note = f"Times that torch waited in {LOGGED_STEPS} steps with --log_every {LOG_EVERY}."
    return f"{markdown(rows, numbers=(2, 3, 4))}\n{note}\n"


def _waits(kind: str, name: str, args: argparse.Namespace, work: Path) -> tuple[str, ...]:
    device = torch.device(args.device)
    precision = resolve_precision(name, device)
    settings = replace(
        _settings(args, args.size, work),
        log_every=LOG_EVERY,
        num_epochs=2,
        ema_decay=0.999,
        clip_grad_norm=5.0,
    )
    data = _toy_training(kind, settings)
    state = _state(kind, settings, precision, device, steps_per_epoch=LOGGED_STEPS)
    run = RunFolder(work / "waits" / f"{kind}_{name}")
    run.path.mkdir(parents=True, exist_ok=True)
    batches = training_batches(data, 0, LOGGED_STEPS, num_workers=args.workers, device=device)
    training = Training(state.method, state, data, run, settings, precision, Stop())
    with _noticing_waits(args.device) as noticed:
        # A step ends where the loop asks for the next batch.
        counts: list[int] = []
        training._train_epoch(_counting(batches, noticed, counts))
        counts.append(len(noticed))
    run.close()
    per_step = {step: b - a for step, (a, b) in enumerate(itertools.pairwise(counts), start=1)}
    logging = {s for s in per_step if s % LOG_EVERY == 0 or s == LOGGED_STEPS}
    columns = (
        per_step[1],
        sum(per_step[step] for step in logging),
        sum(count for step, count in per_step.items() if step > 1 and step not in logging),
    )
    where = {f"{Path(one.filename).name}:{one.lineno}" for one in noticed}
    return *map(str, columns), ", ".join(sorted(where))


def _counting(batches: Iterator[Batch], noticed: list, counts: list[int]) -> Iterator[Batch]:
    """The batches; notes how much has been noticed before each of them is made."""
    for _ in range(LOGGED_STEPS):
        counts.append(len(noticed))
        yield next(batches)


@contextlib.contextmanager
def _noticing_waits(device: str) -> Iterator[list[warnings.WarningMessage]]:
    """Inside, every wait for the GPU is an entry of the list."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("always", message=".*called a synchronizing")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def _settings(args: argparse.Namespace, size: Sequence[int], work: Path | None = None) -> Settings:
    city = (work or Path()) / f"city_{size[0]}x{size[1]}"
    return with_derived_defaults(
        Settings(
            toy_root=city,
            gta5_root=city / "GTA5",
            cityscapes_root=city / "Cityscapes",
            cache_dir=(work or Path()) / "cache",
            image_size=tuple(size),
            source_resize=tuple(size),
            base_width=args.width,
            batch_size=args.batch,
            num_workers=args.workers,
            num_epochs=1,
            fda_beta=0.05,
        )
    )


def _state(
    kind: str,
    settings: Settings,
    precision: torch.dtype,
    device: torch.device,
    *,
    steps_per_epoch: int,
) -> TrainState:
    seed_everything(settings.seed)
    method = METHODS[kind](new_network(settings), settings)
    method = method.to(device, memory_format=torch.channels_last).train()
    scale_loss = precision == torch.float16
    return TrainState(method, settings, steps_per_epoch=steps_per_epoch, scale_loss=scale_loss)


def _toy_training(kind: str, settings: Settings) -> TrainingData:
    """Toy City as a method trains on it; the true labels stand for SSL-FDA's pseudo-labels."""
    train = max(SCENES, 2 * settings.batch_size)
    make_toy_city(settings.toy_root, train=train, val=1, size=settings.image_size, seed=0)
    source = TrainingFiles(Domain.GTA5, labelled(Domain.GTA5, "train", settings))
    target = {
        "supervised": lambda _: None,
        "SSL-FDA": lambda _: TrainingFiles(
            Domain.CITYSCAPES, labelled(Domain.CITYSCAPES, "train", settings)
        ),
    }.get(kind, unlabelled_cityscapes)(settings)
    return TrainingData(
        training_samples(source, settings, SOURCE_STREAM),
        target and training_samples(target, settings, TARGET_STREAM),
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def _repeat(call: Callable, times: int, device: str) -> float:
    """Seconds a call."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return (time.perf_counter() - start) / times


@contextlib.contextmanager
def _cudnn_benchmark(on: bool) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _forget(device: str) -> None:
    """Gives back what the forms before took, also in memory."""
    torch.compiler.reset()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


PARTS = {
    "actions": actions,
    "speed": speed,
    "profile": profile,
    "curves": curves,
    "waits": waits,
}


def fill(path: Path, part: str, text: str) -> None:
    """Puts a part between its markers in a Markdown file."""
    begin, end = f"<!-- gpu.py {part} -->\n", f"<!-- end of {part} -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{path} has no markers of {part}"
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=64, help="--base_width of the network")
    parser.add_argument("--steps", type=int, default=20, help="that are timed")
    parser.add_argument("--curve_steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the curves")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/README.md on CUDA, else none")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA GPU here; --device cpu tries the script out")
    out = args.out or (README if args.device == "cuda" else None)
    command = " ".join(["python benchmarks/gpu.py", *argv])
    with tempfile.TemporaryDirectory() as work:
        for part in args.parts:
            table = PARTS[part](args, Path(work))
            text = f"{table}\n`{command}`, part {part}: {machine(args.device)}\n"
            print(f"\n{part}\n\n{text}", flush=True)
            if out:
                fill(out, part, text)


if __name__ == "__main__":
    main(sys.argv[1:])
