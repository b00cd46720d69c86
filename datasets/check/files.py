"""Reading every file as training does, in workers, past whatever is wrong."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.cache import PNG_END
from datasets.check.alike import content_of
from datasets.check.findings import Files, Finding, Kind, Reading
from datasets.labels import IGNORE
from datasets.reading import (
    UnequalSizes,
    UnknownLabels,
    check_sizes,
    read_ids,
    read_image,
)
from utils.errors import UserError
from utils.utils import file_digest

PNG_START = b"\x89PNG\r\n\x1a\n"


def read(files: Files) -> Reading:
    """Read the files of a sample with training's own readers; nothing in them raises.

    A worker reads them, and only what is counted travels.
    """
    findings: list[Finding] = []
    image = ids = digest = counts = content = None
    values: list[int] = []
    if files.image:
        with _kept(files.image, findings):
            image = read_image(files.image, photo=files.photo)
            content = content_of(image) if files.compared else None
            digest = file_digest(files.image)  # from the memory that the reader has just filled
    if files.label:
        with _kept(files.label, findings):
            ids = read_ids(files.label, files.kind)
            counts = np.bincount(files.kind.to_train_ids(ids).ravel(), minlength=256)
            if not counts[:IGNORE].any():
                values = np.unique(ids).tolist()
                sentence = f"{files.label} has no pixel of a class: nothing is learned from it"
                findings.append(Finding(Kind.BLANK, files.label, sentence))
            if image is not None and files.image:
                check_sizes(files.image, image, files.label, ids)
    size = None if image is None else image.shape[:2]
    return Reading(findings, size, digest, counts, values, content)


@contextlib.contextmanager
def _kept(path: Path, findings: list[Finding]) -> Iterator[None]:
    """Turn whatever reading a file raises into a finding: no file may end the check."""
    try:
        yield
    except UnknownLabels as error:
        findings.append(Finding(Kind.VALUES, path, str(error)))
    except UnequalSizes as error:
        findings.append(Finding(Kind.SIZES, path, str(error)))
    except UserError as error:
        kind = Kind.TRUNCATED if _is_cut(path) else Kind.UNREADABLE
        findings.append(Finding(kind, path, str(error)))
    except Exception as error:
        sentence = f"{path} cannot be read ({error!r}): replace it"
        findings.append(Finding(Kind.UNREADABLE, path, sentence))


def _is_cut(path: Path) -> bool:
    """Return whether a file begins as a PNG and lacks its end."""
    if not path.is_file():  # to open a pipe would wait for its other end
        return False
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(PNG_START) and PNG_END not in content
