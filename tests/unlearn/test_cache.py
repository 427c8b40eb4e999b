"""Shards from object storage, through a cache of limited size and over a connection that breaks."""

from __future__ import annotations

import shutil
import uuid
from hashlib import sha256
from pathlib import Path

import pytest

from synth.basics.errors import UsageError
from synth.shards import bucket as objects
from synth.shards.bucket import Bucket
from synth.shards.index import read_index
from synth.shards.store import Folder
from tests.storage import FaultyProxy
from tests.unlearn.shards import images_of
from unlearn.samples.cache import CachedStore, open_shards


class Counted(Folder):
    """A folder that notes the names of the files that are fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fetched: list[str] = []

    def fetch(self, name: str, size: int, sha256: str) -> bytes:
        self.fetched.append(name)
        return super().fetch(name, size, sha256)


def test_a_second_reading_comes_from_the_disk(tiny_run: Path, tmp_path: Path) -> None:
    store = Counted(tiny_run)
    cached = CachedStore(store, tmp_path / "cache", limit=10**9)
    first, second = images_of(cached), images_of(cached)
    assert first.images.equal(second.images)
    assert len(store.fetched) == 4
    index = read_index(Folder(tiny_run))
    assert {f.name for f in (tmp_path / "cache").iterdir()} == {f"{e.sha256}.tar" for e in index.entries.values()}


def test_the_cache_stays_within_its_limit_and_removes_the_files_unused_for_longest(
    tiny_run: Path, tmp_path: Path
) -> None:
    store, index = Counted(tiny_run), read_index(Folder(tiny_run))
    sizes = [entry.size for entry in index.entries.values()]
    cached = CachedStore(store, tmp_path / "cache", limit=sum(sizes[:2]) + max(sizes) // 2)
    images_of(cached)
    kept = [f.stat().st_size for f in (tmp_path / "cache").iterdir()]
    assert 0 < sum(kept) <= cached.limit
    last = index.entries[3]
    cached.fetch(last.name, last.size, last.sha256)
    assert store.fetched.count(last.name) == 1
    CachedStore(store, tmp_path / "small", limit=10).fetch(last.name, last.size, last.sha256)
    assert not (tmp_path / "small").exists()


def test_other_files_in_the_folder_of_the_cache_stay(tiny_run: Path, tmp_path: Path) -> None:
    theirs = [tmp_path / "thesis.tex", tmp_path / "photos.tar", tmp_path / f".{'0' * 64}.tar.1.2.tmp"]
    for path in theirs:
        path.write_bytes(bytes(10**6))
    entries = read_index(Folder(tiny_run)).entries.values()
    cached = CachedStore(Folder(tiny_run), tmp_path, limit=max(entry.size for entry in entries))
    images_of(cached)
    assert all(path.exists() for path in theirs)
    assert len(list(tmp_path.iterdir())) == len(theirs) + 1  # only shards count towards the limit


def test_a_damaged_copy_is_fetched_again(tiny_run: Path, tmp_path: Path) -> None:
    store = Counted(tiny_run)
    entry = read_index(Folder(tiny_run)).entries[1]
    (tmp_path / f"{entry.sha256}.tar").write_bytes(b"half a shard")
    data = CachedStore(store, tmp_path, limit=10**9).fetch(entry.name, entry.size, entry.sha256)
    assert sha256(data).hexdigest() == entry.sha256
    assert (tmp_path / f"{entry.sha256}.tar").read_bytes() == data


def test_shards_are_read_even_if_the_cache_cannot_be_written(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(images_of(CachedStore(Folder(tiny_run), tmp_path / "file" / "cache", limit=10**9))) == 100


def test_object_storage_is_read_through_a_cache_and_a_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path))
    assert isinstance(open_shards("memory://a/run"), CachedStore)
    assert isinstance(open_shards(str(tmp_path)), Folder)
    for limit in ("lots", "inf", "nan"):
        monkeypatch.setenv("UNLEARN_CACHE_GIB", limit)
        with pytest.raises(UsageError, match=f"UNLEARN_CACHE_GIB is not a number of GiB .'{limit}'"):
            open_shards("memory://a/run")
    monkeypatch.setenv("UNLEARN_CACHE", "")
    assert isinstance(open_shards("memory://a/run"), Bucket)


def test_a_broken_read_continues_where_it_broke(
    s3_port: int, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://runs/{uuid.uuid4()}"
    direct = Bucket(uri)
    for path in tiny_run.iterdir():
        direct.write(path.name, path.read_bytes())
    monkeypatch.setattr(objects, "PIECE", 10_000)
    with FaultyProxy(s3_port, lambda call: "cut" if call % 3 == 0 else "") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        broken = Bucket(uri)
        broken.pause = lambda seconds: None
        found = images_of(CachedStore(broken, tmp_path / "cache", limit=10**9))
        calls = next(proxy.calls)
        assert proxy.spoiled.count("cut") > 5
    shards = [path.stat().st_size for path in tiny_run.glob("*.tar")]
    pieces = sum(-(-size // 10_000) for size in shards)
    assert len(found) == 100
    assert calls < 2 * pieces + 40  # only broken pieces are read again, not whole shards
    shutil.rmtree(tmp_path / "cache")
