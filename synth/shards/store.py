"""Where a run's files live. A file appears under its name complete or not at all."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from synth.basics.errors import UsageError, UserError

REMOTE = ("s3", "gs", "gcs", "memory")  # what fsspec opens for us; memory is for tests

# How file systems without hard links answer: exFAT, SMB, and many that are mounted through FUSE.
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


class Store(Protocol):
    """The calls that a run is written and read by. `size`, `read` and `fetch` raise FileNotFoundError."""

    def create(self) -> None: ...
    def names(self) -> set[str]: ...
    def size(self, name: str) -> int: ...
    def modified(self) -> dict[str, float]:
        """Every name with the time of its last write, in seconds since the epoch, by one listing."""

    def read(self, name: str) -> bytes: ...
    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        """What is there under a name that is never written twice, such as a shard's; the caller checks its hash."""

    def write(self, name: str, data: bytes) -> None: ...
    def write_new(self, name: str, data: bytes) -> bool: ...
    def remove(self, name: str) -> None: ...
    def remove_temporaries(self) -> None: ...


class Folder:
    """A folder of files on a local or mounted disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        with one_line_os_errors(self.path, writing=True):
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

    def modified(self) -> dict[str, float]:
        """Every name with the time of its last write, in seconds since the epoch; empty where the folder doesn't exist."""
        times: dict[str, float] = {}
        for name in self.names():
            with suppress(FileNotFoundError):  # it was removed meanwhile
                times[name] = (self.path / name).stat().st_mtime
        return times

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is no such file."""
        with one_line_os_errors(self.path / name):
            return (self.path / name).read_bytes()

    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        """Raises FileNotFoundError where there is no such file. One of another size is not read."""
        return self.read(name) if self.size(name) == size else b""

    def write(self, name: str, data: bytes) -> None:
        """Write elsewhere, flush to the disk, rename."""
        with self.written_elsewhere(name, data) as temporary:
            temporary.replace(self.path / name)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write the file unless there is one, and return whether it was written: of several writers one succeeds.

        On a file system without hard links others may see the file empty for a moment, but never with a part of its content.
        """
        path = self.path / name
        with self.written_elsewhere(name, data) as temporary:
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

    @contextmanager
    def written_elsewhere(self, name: str, data: bytes) -> Iterator[Path]:
        temporary = self.path / f".{name}.{os.getpid()}.{threading.get_ident()}.tmp"
        with one_line_os_errors(self.path / name, writing=True):
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        with one_line_os_errors(self.path / name):
            (self.path / name).unlink(missing_ok=True)

    def remove_temporaries(self) -> None:
        """What a killed writer left behind."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def open_store(uri: str) -> Store:
    """The store that a URI names: a path, file:// with an absolute path, or object storage such as s3://bucket/run."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Folder(Path(uri))
    if scheme == "file":
        if not rest.startswith("/"):
            raise UsageError(f"'{uri}' is not a folder: give a path or file:///absolute/path")
        return Folder(Path(rest))
    if scheme in REMOTE:
        from synth.shards.bucket import Bucket

        return Bucket(uri)
    raise UsageError(f"'{uri}' is no place for a run: give a folder, s3://BUCKET/RUN or gs://BUCKET/RUN")


@contextmanager
def one_line_os_errors(path: Path, writing: bool = False) -> Iterator[None]:
    """Turn what the operating system refuses into a line that names the cause and the cure."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not writing:
            raise
        cures = {
            errno.ENOENT: "its folder can't be made, or was removed meanwhile: choose another folder",
            errno.ENOSPC: "the disk is full: free some space and go on with --resume",
            errno.EDQUOT: "the disk quota is used up: free some space and go on with --resume",
            errno.EROFS: "the file system is read-only: choose another folder",
            errno.EACCES: "permission denied: choose another folder, or change its owner or mode",
            errno.EPERM: "permission denied: choose another folder, or change its owner or mode",
            errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
            errno.EEXIST: "it is a file, not a folder: choose another folder",
        }
        raise UserError(f"{path}: {cures.get(error.errno or 0, error.strerror or str(error))}") from error
