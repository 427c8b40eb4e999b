"""Opening files, for every reader of this project.

Anyone may have put the file there that a path leads to. A device may never end, a pipe may never begin, and a sparse
file of a terabyte fits on any disk. So only regular files are opened, and never larger ones than their kind can be.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

PIECE = 2**20  # bytes
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path, largest: int) -> BinaryIO:
    """Open a regular file of at most `largest` bytes for reading.

    Raises OSError for everything else: FileNotFoundError and IsADirectoryError, and others whose `strerror` names the
    cause.
    """
    try:
        refuse_irregular(os.stat(path).st_mode, path)  # first, because even opening a device can have an effect
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError:  # a zero byte, or half of a UTF-16 pair
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    file = os.fdopen(descriptor, "rb")
    try:
        found = os.fstat(descriptor)
        refuse_irregular(found.st_mode, path)  # again, because another file may have got the name meanwhile
        if found.st_size > largest:
            raise OSError(errno.EFBIG, f"it is larger than {in_words(largest)}", str(path))
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, largest: int) -> bytes:
    """The content that a regular file had when it was opened. Raises OSError as `open_regular` does."""
    with open_regular(path, largest) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def hash_and_start(path: Path, largest: int, length: int = 0) -> tuple[str, bytes]:
    """A file's SHA-256 and its first `length` bytes, from one reading. Raises OSError as `open_regular` does."""
    with open_regular(path, largest) as file:
        left = os.fstat(file.fileno()).st_size
        start = file.read(min(length, left))
        digest, left = hashlib.sha256(start), left - len(start)
        while piece := file.read(min(PIECE, left)):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest(), start


def refuse_irregular(mode: int, path: Path) -> None:
    """Raise OSError unless the mode of `path` is that of a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file", str(path))


def in_words(size: int) -> str:
    """A power of two in bytes, such as 64 MiB."""
    for unit, bytes_of in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= bytes_of:
            return f"{size // bytes_of} {unit}"
    return f"{size} bytes"
