"""Where a run's files live. A file appears under its name complete or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth.errors import UsageError, UserError


class Folder:
    """A folder of files on a local or mounted disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        with one_line_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        """The names of the files, without those still being written; empty where the folder doesn't exist."""
        try:
            with one_line_os_errors(self.path):
                return {entry.name for entry in os.scandir(self.path) if not entry.name.endswith(".tmp")}
        except FileNotFoundError:
            return set()

    def size(self, name: str) -> int:
        """Raises FileNotFoundError where there is no such file."""
        with one_line_os_errors(self.path / name):
            return (self.path / name).stat().st_size

    def modified(self, name: str) -> float:
        """Seconds since the epoch."""
        with one_line_os_errors(self.path / name):
            return (self.path / name).stat().st_mtime

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is no such file."""
        with one_line_os_errors(self.path / name):
            return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write elsewhere, flush to the disk, rename."""
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        with one_line_os_errors(self.path / name):
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path / name)
            finally:
                temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        with one_line_os_errors(self.path / name):
            (self.path / name).unlink(missing_ok=True)

    def remove_temporaries(self) -> None:
        """What a killed writer left behind."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def open_store(uri: str) -> Folder:
    """The store that a URI names: a path, or file:// with an absolute path."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Folder(Path(uri))
    if scheme == "file" and rest.startswith("/"):
        return Folder(Path(rest))
    raise UsageError(f"'{uri}' is not a folder: give a path or file:///absolute/path ({scheme}:// is not supported)")


@contextmanager
def one_line_os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a line that names the cause and the cure."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        cures = {
            errno.ENOSPC: "the disk is full: free some space and go on with --resume",
            errno.EDQUOT: "the disk quota is used up: free some space and go on with --resume",
            errno.EROFS: "the file system is read-only: choose another folder",
            errno.EACCES: "permission denied: choose another folder, or change its owner or mode",
            errno.EPERM: "permission denied: choose another folder, or change its owner or mode",
            errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
            errno.EEXIST: "it is a file, not a folder: choose another folder",
        }
        raise UserError(f"{path}: {cures.get(error.errno or 0, error.strerror or str(error))}") from error
