"""Record what a result was made with: machine, versions and revision."""

import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import torch
import torchvision

from utils.disk.files import REPOSITORY
from utils.utils import bf16_instructions


def machine(device: str) -> str:
    """Return the GPU or CPU, the threads and the versions that a measurement depends on."""
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    return (
        f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, Python {platform.python_version()}"
    )


def cpu_name() -> str:
    """Return the CPU's name, if the system tells it, and its instructions that matter here."""
    told = Path("/proc/cpuinfo")
    text = told.read_text() if told.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    kind = name.group(1) if name else platform.processor()
    words = (kind, platform.machine(), torch.backends.cpu.get_cpu_capability())
    return " ".join(word for word in (*words, *bf16_instructions()) if word)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def git_revision() -> str | None:
    """Commit of this checkout, with `+` where files differ from it; None outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
