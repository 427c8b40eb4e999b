"""Files on a disk. A file appears under its name complete or not at all. An error is one line with cause and cure."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth.basics.errors import UserError

# How file systems without hard links answer: exFAT, SMB, and many that are mounted through FUSE.
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


def sha256_of(data: bytes) -> str:
    """The SHA-256 of the bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def create_folder(path: Path) -> None:
    """Make the folder and those above it. Raises UserError if that is not possible."""
    with one_line_os_errors(path, writing=True):
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, data: bytes, again: str = "try again") -> None:
    """Write the file, or replace it. Its folder must exist.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then get the name. `again` says
    what to do once a full disk has space. Raises UserError if the file cannot be written; the file is then as it was
    before.
    """
    with written_elsewhere(path, data, again) as temporary:
        temporary.replace(path)


def write_new_file(path: Path, data: bytes, again: str = "try again") -> bool:
    """Write the file unless there is one, and return whether it was written: of several writers one succeeds.

    On a file system without hard links others may see the file empty for a moment, but never with a part of its
    content.
    """
    with written_elsewhere(path, data, again) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            try:
                path.open("xb").close()
            except FileExistsError:
                return False
            temporary.replace(path)
    return True


def append_to_file(path: Path, data: bytes, again: str = "try again") -> None:
    """Write the bytes at the end of the file. Raises UserError if that is not possible."""
    with one_line_os_errors(path, writing=True, again=again), path.open("ab") as file:
        file.write(data)


@contextmanager
def written_elsewhere(path: Path, data: bytes, again: str) -> Iterator[Path]:
    """A temporary file beside `path` with the bytes, flushed to the disk. It is removed after the `with` block."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with one_line_os_errors(path, writing=True, again=again):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in the folder."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


@contextmanager
def one_line_os_errors(path: Path, writing: bool = False, again: str = "try again") -> Iterator[None]:
    """Raise an error of the operating system as a UserError that names the cause and the cure.

    A FileNotFoundError stays as it is while reading.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not writing:
            raise
        elsewhere, gone = "choose another folder", "its folder can't be made, or was removed meanwhile"
        cures = {
            errno.ENOENT: f"{gone}: {elsewhere}, or bring it back and {again}",
            errno.ENOSPC: f"the disk is full: free some space and {again}",
            errno.EDQUOT: f"the disk quota is used up: free some space and {again}",
            errno.EROFS: f"the file system is read-only: {elsewhere}, or make it writable and {again}",
            errno.EACCES: f"permission denied: {elsewhere}, or change its owner or mode and {again}",
            errno.EPERM: f"permission denied: {elsewhere}, or change its owner or mode and {again}",
            errno.ENOTDIR: f"a part of the path is a file, not a folder: {elsewhere}",
            errno.EISDIR: "it is a folder: name a file",
            errno.EEXIST: f"it is a file, not a folder: {elsewhere}",
        }
        other = f"{error.strerror or error}: check the disk and {again}"
        raise UserError(f"{path}: {cures.get(error.errno or 0, other)}") from error
