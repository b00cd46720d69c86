"""Settings of every test: a cache folder of the tests, one thread, since tests run side by side,
and no GPU except for tests marked `gpu`.

    pytest -m gpu                          on a machine with a CUDA device
    GPU_TESTS_ON=cpu pytest -m gpu         tries their logic out without one
"""

import atexit
import gc
import os
import re
import shutil
import tempfile

import pytest
import torch

# Before anything reads it: the tests' caches must not pile up in a contributor's home.
folder = tempfile.mkdtemp(prefix="stdc_adaptation_tests_")
os.environ["XDG_CACHE_HOME"] = folder
atexit.register(shutil.rmtree, folder, ignore_errors=True)

# Networks of this size gain nothing from more; subprocesses inherit it. Sums of two threads are
# rounded differently from those of one, by which the golden losses were written.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

DEVICE = os.environ.get("GPU_TESTS_ON", "cuda")
"""What the tests marked `gpu` run on."""


def pytest_configure(config: pytest.Config) -> None:
    """Hide CUDA, before torch looks for it, from the tests of the CPU and the commands that they
    start. Keep the order of the files, in which tests/commands come early."""
    asked = re.search(r"(?<!not )\bgpu\b", config.option.markexpr)
    if not asked or DEVICE == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # pytest-xdist would begin with the files of most tests; those of the fewest take the longest.
    config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_auto_num_workers() -> int:
    """Let `-n auto` start a process more than there are cores: tests wait for disks, and for the
    processes that they start."""
    from utils.processes import usable_cores  # not before the cache folder is set

    return usable_cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    why = "needs a CUDA device: pytest -m gpu on a machine with one"
    for item in items:
        tried = DEVICE == "cpu" and "gpu_device" in item.fixturenames
        if item.get_closest_marker("gpu") and not tried:
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_collection_finish() -> None:
    """Spare each collection of garbage the half million objects of torch."""
    gc.freeze()


@pytest.fixture(scope="session")
def gpu_device() -> torch.device:
    """Return the GPU, or the CPU on which a test of the GPU is tried out."""
    return torch.device(DEVICE)
