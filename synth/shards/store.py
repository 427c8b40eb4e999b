"""The place of a run's files: a folder or object storage. A file appears under its name complete or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from synth.basics.disk import (
    create_folder,
    one_line_os_errors,
    remove_temporaries,
    rename_file,
    write_file,
    write_new_file,
)
from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import read_regular
from synth.basics.way_on import START_AGAIN

REMOTE = ("s3", "gs", "gcs", "memory")  # opened by fsspec; memory is for tests


class Store(Protocol):
    """The calls that write and read a run. `size`, `read`, `fetch` and `move` raise FileNotFoundError for an absent
    file. A name that ends in `.tmp` is temporary: `names` and `modified` leave it out.
    """

    @property
    def uri(self) -> str:
        """The place, as `open_store` takes it in another process or on another machine that has it."""

    def create(self) -> None: ...
    def names(self) -> set[str]: ...
    def size(self, name: str) -> int: ...
    def modified(self) -> dict[str, float]:
        """Every name with the time of its last write, in seconds since the epoch, by one listing."""

    def read(self, name: str, largest: int) -> bytes:
        """The content of at most `largest` bytes. Raises UserError for a larger one: it may be hostile, or sparse."""

    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        """The content of a name that is written only once, such as a shard's. The caller checks the hash.

        May return other bytes, also none, if the file has another size.
        """

    def write(self, name: str, data: bytes) -> None: ...
    def write_new(self, name: str, data: bytes) -> bool: ...
    def move(self, old: str, new: str, size: int) -> None:
        """Give the file `old` another name, and replace what has that name. Raises UserError if the file has another
        size in bytes.
        """

    def remove(self, name: str) -> None: ...
    def remove_temporaries(self, mark: str = "") -> None:
        """Remove the files with temporary names, or only those whose names contain `mark`."""


class Folder:
    """A folder of files on a local or mounted disk.

    `again` is what a person does once the cause of an error is gone, such as a full disk.
    """

    def __init__(self, path: Path, again: str = START_AGAIN) -> None:
        self.path, self.again = path, again

    def __str__(self) -> str:
        return str(self.path)

    @property
    def uri(self) -> str:
        return str(self.path.absolute())

    def create(self) -> None:
        create_folder(self.path)

    def names(self) -> set[str]:
        """The names of the files, without files that are being written; empty if the folder does not exist."""
        try:
            with one_line_os_errors(self.path):
                return {entry.name for entry in os.scandir(self.path) if not entry.name.endswith(".tmp")}
        except FileNotFoundError:
            return set()

    def size(self, name: str) -> int:
        """The file's bytes. Raises FileNotFoundError if there is no such file."""
        with one_line_os_errors(self.path / name):
            return (self.path / name).stat().st_size

    def modified(self) -> dict[str, float]:
        """Every name with the time of its last write, in seconds since the epoch; empty for an absent folder."""
        times: dict[str, float] = {}
        for name in self.names():
            with suppress(FileNotFoundError):  # it was removed meanwhile
                times[name] = (self.path / name).stat().st_mtime
        return times

    def read(self, name: str, largest: int) -> bytes:
        """The content of a regular file of at most `largest` bytes. Raises FileNotFoundError if there is no file."""
        with one_line_os_errors(self.path / name):
            return read_regular(self.path / name, largest)

    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        """The file; empty bytes if it has another size. Raises FileNotFoundError if there is no such file."""
        return self.read(name, size) if self.size(name) == size else b""

    def write(self, name: str, data: bytes) -> None:
        write_file(self.path / name, data, self.again)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write the file unless there is one, and return whether it was written: of several writers one succeeds."""
        return write_new_file(self.path / name, data, self.again)

    def move(self, old: str, new: str, size: int) -> None:
        if self.size(old) != size:
            raise UserError(f"{self}/{old} has another size than was written: check the disk and {self.again}")
        rename_file(self.path / old, self.path / new, self.again)

    def remove(self, name: str) -> None:
        with one_line_os_errors(self.path / name, writing=True, again=self.again):
            (self.path / name).unlink(missing_ok=True)

    def remove_temporaries(self, mark: str = "") -> None:
        """Remove what a killed writer left behind, or only the files whose names contain `mark`."""
        remove_temporaries(self.path, mark)


def open_store(uri: str, again: str = START_AGAIN) -> Store:
    """The store that a URI names: a path, file:// with an absolute path, or object storage such as s3://bucket/run.

    `again` is what a person does once the cause of an error is gone, such as storage that is down.
    """
    if not uri.isprintable():
        raise UsageError(f"{uri[:80]!r} is not a place for a run: it has characters that cannot be printed")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Folder(Path(uri), again)
    if scheme == "file":
        if not rest.startswith("/"):
            raise UsageError(f"'{uri}' is not a folder: give a path or file:///absolute/path")
        return Folder(Path(rest), again)
    if scheme in REMOTE:
        from synth.shards.bucket import Bucket

        return Bucket(uri, again)
    raise UsageError(f"{uri!r} is not a place for a run: give a folder, s3://BUCKET/RUN or gs://BUCKET/RUN")
