"""A run in object storage: s3://, gs:// and others that fsspec supports. Has the same calls as a folder.

An object appears complete or not at all, so publishing a file is one put. A call whose failure may pass is repeated
after a growing pause. A put counts only once the store shows the same bytes.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import fsspec

from synth.basics.errors import UsageError, UserError
from synth.basics.way_on import START_AGAIN

T = TypeVar("T")

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; all pauses together take about a minute
TEMPORARY = ".tmp"  # the end of names that are not the run's own
PIECE = 8 * 2**20  # bytes of a shard that one call reads
OPTIONS: dict[str, dict[str, Any]] = {
    # botocore's own retries are off, so that only ours decide how long a store may be down.
    "s3": {
        "config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 0}},
        "use_listings_cache": False,
        "skip_instance_cache": True,
    },
}
EXTRAS = {"s3": "pip install '.[s3]'", "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}
TIME_KEYS = ("LastModified", "mtime", "updated", "created")  # in listings of s3fs, of gcsfs, and of fsspec's memory
CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ProfileNotFound")


class BrokenTransferError(Exception):
    """A read or write was incomplete: the store shows other bytes."""


class Bucket:
    """The objects under one prefix."""

    def __init__(self, uri: str, again: str = START_AGAIN) -> None:
        self.again = again  # what a person does once the storage is there again
        self.uri = uri if uri.endswith("://") else uri.rstrip("/")
        self.scheme = uri.partition("://")[0]
        self.pause: Callable[[float], None] = time.sleep
        if not self.uri.partition("://")[2]:
            raise UsageError(f"'{uri}' names no bucket: write it like {self.scheme}://BUCKET/RUN")
        if "::" in uri:
            raise UsageError(f"'{uri}' chains two places: give one")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.uri, **OPTIONS.get(self.scheme, {}))
        except ImportError as error:
            cure = EXTRAS.get(self.scheme, "install the fsspec package for it")
            raise UserError(f"{self.scheme}:// needs a package that is not installed ({error}): {cure}") from error
        except ValueError as error:
            raise UserError(
                f"'{uri}' is not a place for a run ({error}): give a folder, s3://BUCKET/RUN or gs://BUCKET/RUN"
            ) from error

    def __str__(self) -> str:
        return self.uri

    def create(self) -> None:
        """Does nothing: a prefix exists once it has an object."""

    def names(self) -> set[str]:
        """The names of the objects without temporary ones; empty if there are none."""
        return {name for name in self.all_names() if not name.endswith(TEMPORARY)}

    def all_names(self) -> set[str]:
        try:
            listed = self.patiently("", lambda: self.files.ls(self.root, detail=False, **self.fresh()))
        except FileNotFoundError:
            return set()
        return {path.rstrip("/").rsplit("/", 1)[-1] for path in listed} - {""}

    def size(self, name: str) -> int:
        return int(self.info(name)["size"])

    def modified(self) -> dict[str, float]:
        """Every name with the time of its last write, in seconds since the epoch; empty where there are no objects."""
        try:
            listed = self.patiently("", lambda: self.files.ls(self.root, detail=True, **self.fresh()))
        except FileNotFoundError:
            return {}
        objects = [info for info in listed if info["type"] == "file" and not info["name"].endswith(TEMPORARY)]
        return {info["name"].rsplit("/", 1)[-1]: seconds_of(info) for info in objects}

    def read(self, name: str, largest: int) -> bytes:
        """The content of at most `largest` bytes. Raises FileNotFoundError if there is no such object."""
        size = self.size(name)
        if size > largest:
            raise UserError(
                f"{self.uri}/{name} has {size:,} bytes, more than the {largest:,} of such a file: remove it"
            )
        return self.patiently(name, lambda: self.files.cat_file(self.path(name)))

    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        """The object, read in pieces with retries for each, so that a broken read continues where it broke.

        Returns empty bytes if the object has another size. Raises FileNotFoundError if there is no such object.
        """
        if self.size(name) != size:
            return b""
        pieces = [(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]
        return b"".join(self.patiently(name, partial(self.read_piece, name, *piece)) for piece in pieces)

    def read_piece(self, name: str, start: int, stop: int) -> bytes:
        piece = self.files.cat_file(self.path(name), start=start, end=stop)
        if len(piece) != stop - start:
            raise BrokenTransferError(f"{len(piece):,} bytes came instead of {stop - start:,}")
        return piece

    def write(self, name: str, data: bytes) -> None:
        """Put the object, then compare what arrived. Raises UserError if that fails after all attempts."""

        def put() -> None:
            self.files.pipe_file(self.path(name), data)
            if not self.holds(name, data):
                raise BrokenTransferError("what arrived differs from what was sent")

        try:
            self.patiently(name, put)
        except FileNotFoundError as error:
            raise UserError(f"{self.uri}: there is no such bucket: create it first, or choose another --out") from error

    def write_new(self, name: str, data: bytes) -> bool:
        """Write the object unless there is one: of several who try at once, one succeeds and hears True."""

        def put() -> bool:
            try:
                self.files.pipe_file(self.path(name), data, mode="create")
            except OSError as error:
                if not says_it_exists(error):
                    raise
                return (
                    self.files.cat_file(self.path(name)) == data
                )  # it is ours if the answer to an earlier attempt was lost
            return True

        try:
            return self.patiently(name, put)
        except FileNotFoundError as error:
            raise UserError(f"{self.uri}: there is no such bucket: create it first, or choose another --out") from error

    def move(self, old: str, new: str, size: int) -> None:
        """Let the store copy the object to the new name, and remove it under the old one.

        The bytes stay inside the store. The copy counts once the store shows it with this size. Raises
        FileNotFoundError if there is no object `old`.
        """

        def copy() -> None:
            self.files.cp_file(self.path(old), self.path(new))
            if self.size(new) != size:
                raise BrokenTransferError("the copy has another size")

        self.patiently(new, copy)
        self.remove(old)

    def remove(self, name: str) -> None:
        def delete() -> None:
            try:
                self.files.rm_file(self.path(name))
            except FileNotFoundError:
                return

        self.patiently(name, delete)

    def remove_temporaries(self, mark: str = "") -> None:
        """Remove the objects with temporary names, or only those whose names contain `mark`."""
        for name in self.all_names():
            if name.endswith(TEMPORARY) and mark in name:
                self.remove(name)

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the object has these bytes. Compares size and MD5 if the store gives them, else reads the object."""
        info = self.info(name)
        if info["size"] != len(data):
            return False
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return str(info.get("ETag", "")).strip('"') == md5 or self.read(name, len(data)) == data

    def info(self, name: str) -> dict[str, Any]:
        return self.patiently(name, lambda: self.files.info(self.path(name), **self.fresh()))

    def fresh(self) -> dict[str, bool]:
        """Drop fsspec's cached listings, as another process may be writing. Returns options for a fresh listing."""
        self.files.invalidate_cache()
        return {"refresh": True} if self.scheme == "s3" else {}

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def patiently(self, name: str, call: Callable[[], T]) -> T:
        """The result of `call`, repeated while its failure may pass. Raises FileNotFoundError, or UserError after all
        attempts.
        """
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except (FileNotFoundError, UserError):
                raise
            except Exception as error:
                where = f"{self.uri}/{name}" if name else self.uri
                refuse_lasting(error, where, self.scheme)
                if attempt == ATTEMPTS:
                    raise UserError(
                        f"{where}: the storage failed {ATTEMPTS} times ({type(error).__name__}: {str(error)[:160]}): "
                        f"check that it is up, and {self.again}"
                    ) from error
            self.pause(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("the last attempt returns or raises")


def seconds_of(info: dict[str, Any]) -> float:
    """The time of an object's last write, in seconds since the epoch, from what a listing says about it."""
    time_of = next(info[key] for key in TIME_KEYS if info.get(key) is not None)
    if isinstance(time_of, str):
        time_of = datetime.fromisoformat(time_of.replace("Z", "+00:00"))
    return time_of.timestamp() if isinstance(time_of, datetime) else float(time_of)


def says_it_exists(error: OSError) -> bool:
    answer = getattr(error.__cause__, "response", {})  # botocore's
    return isinstance(error, FileExistsError) or answer.get("Error", {}).get("Code") == "PreconditionFailed"


def refuse_lasting(error: Exception, where: str, scheme: str) -> None:
    """Raise UserError for a failure that waiting does not cure. Errors from elsewhere are raised unchanged."""
    if type(error).__name__ in CREDENTIALS:
        cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" if scheme == "s3" else "log in first"
        raise UserError(f"{where}: there are no credentials for {scheme}://: {cure}") from error
    if isinstance(error, PermissionError):
        raise UserError(
            f"{where}: access is denied ({str(error)[:160]}): check the credentials and the bucket's policy"
        ) from error
    storage = type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google")
    if not (storage or isinstance(error, OSError | TimeoutError | BrokenTransferError)):
        raise error
