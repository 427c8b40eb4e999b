"""Reading the files of a report. Anyone can write a report, so a path in it may lead to a device, a pipe, or
nowhere.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path
from typing import BinaryIO

PIECE = 2**20  # bytes


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for anything else: a device may never end, and a pipe may never
    begin.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder raises an error that says so
        raise OSError(errno.EINVAL, "it is not a regular file")
    return path.open("rb")


def read_regular(path: Path, largest: int) -> bytes:
    """The content of a regular file. Raises OSError where it can't be read or is larger than `largest` bytes."""
    with open_regular(path) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest // 2**20} MiB")
    return data


def hash_and_start(path: Path, length: int = 0) -> tuple[str, bytes]:
    """A file's SHA-256 and its first `length` bytes, from one reading of it. Raises OSError where it can't be read."""
    with open_regular(path) as file:
        start = file.read(length)
        digest = hashlib.sha256(start)
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest(), start
