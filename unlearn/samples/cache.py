"""Shards from object storage, kept in a local folder up to a size limit, so that a second run or epoch reads the disk.

A file has its shard's sha256 for a name, so that runs never mix. Its content is checked against this name before each
use. If the folder is full, the files that were not used for the longest time are removed first. If the folder cannot be
written, such as on a full disk, nothing is kept.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from hashlib import sha256 as sha256_of
from pathlib import Path

from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import read_regular
from synth.basics.way_on import START_AGAIN
from synth.shards.store import Folder, Store, open_store

FOLDER = "~/.cache/data-free-unlearning"
GIB = 10.0  # size limit
KEPT = re.compile(r"[0-9a-f]{64}\.tar")


def open_shards(uri: str, again: str = START_AGAIN) -> Store:
    """The store that a URI names. Object storage gets a cache. `again` is as in `open_store`.

    The environment variables UNLEARN_CACHE (a folder, or empty for no cache) and UNLEARN_CACHE_GIB (its size limit)
    change the defaults. Raises UsageError if the limit is not a number.
    """
    store = open_store(uri, again)
    folder = os.environ.get("UNLEARN_CACHE", FOLDER)
    if isinstance(store, Folder) or not folder:
        return store
    try:
        limit = round(float(os.environ.get("UNLEARN_CACHE_GIB", GIB)) * 2**30)
    except (ValueError, OverflowError):  # NaN and infinity too
        given = os.environ["UNLEARN_CACHE_GIB"]
        raise UsageError(
            f"UNLEARN_CACHE_GIB is not a number of GiB ({given!r}): set it to a number, such as 10"
        ) from None
    return CachedStore(store, Path(folder).expanduser(), limit)


class CachedStore:
    """Another store with a cache for its shards in `folder`, of at most `limit` bytes."""

    def __init__(self, store: Store, folder: Path, limit: int) -> None:
        self.store, self.folder, self.limit = store, folder, limit
        self.create, self.write, self.write_new, self.remove = store.create, store.write, store.write_new, store.remove
        self.names, self.size, self.modified, self.read = store.names, store.size, store.modified, store.read
        self.remove_temporaries, self.move, self.uri = store.remove_temporaries, store.move, store.uri

    def __str__(self) -> str:
        return str(self.store)

    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        """A shard's bytes, from the folder if it has them, else from the store."""
        kept = self.folder / f"{sha256}.tar"
        with suppress(OSError):
            data = read_regular(kept, size)
            if sha256_of(data).hexdigest() == sha256:
                os.utime(kept)
                return data
        data = self.store.fetch(name, size, sha256)
        if sha256_of(data).hexdigest() == sha256:
            with suppress(OSError, UserError):
                self.keep(kept, data)
        return data

    def keep(self, path: Path, data: bytes) -> None:
        """Remove old files until the new one fits, then write it.

        Several processes may share the folder. Files that are no shards stay.
        """
        if len(data) > self.limit:
            return
        local = Folder(self.folder)
        local.create()
        ours = [entry for entry in os.scandir(self.folder) if KEPT.fullmatch(entry.name)]
        files = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in ours]
        total = sum(size for _, size, _ in files) + len(data)
        for _, size, old in sorted(files):
            if total <= self.limit:
                break
            Path(old).unlink(missing_ok=True)
            total -= size
        local.write(path.name, data)
