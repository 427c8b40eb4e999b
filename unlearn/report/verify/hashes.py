"""The hash of a file that a report names: it may be anything, since anybody can write a report."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

PIECE = 2**20  # bytes


def check_regular(path: Path) -> None:
    """Raise OSError where it is no file that can be read: a device may never end, and a pipe never begin."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file")


def sha256_of(path: Path) -> str:
    """Raises OSError where there is none that can be read."""
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
