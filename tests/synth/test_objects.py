"""Runs in object storage: a real S3 server, alone and behind a proxy that spoils some of the calls."""

import hashlib
import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from synth.basics.errors import UsageError, UserError
from synth.basics.way_on import RESUME, START_AGAIN
from synth.checkpoint.classifier import Classifier
from synth.run.publish import open_run, publish, verify
from synth.shards.bucket import ATTEMPTS, Bucket
from synth.shards.index import INDEX, read_index, read_shard, shard_name
from synth.shards.plan import Plan
from synth.shards.store import Folder, Store, open_store
from tests.runs import EXECUTORS, card_for, digests, in_worker, recipe_for
from tests.storage import FaultyProxy
from tests.unlearn.shards import images_of

PLAN = Plan(classes=(1, 2), per_class=8, shard_size=4)


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Folder(tmp_path / "run")
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4()}/run")
    request.getfixturevalue("s3_port")
    return open_store(f"s3://runs/{uuid.uuid4()}")


def through(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, again: str = START_AGAIN) -> Bucket:
    """A bucket whose calls pass the proxy, and whose pauses take no time. `again` is the way on of who opened it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    bucket = Bucket(f"s3://runs/{uuid.uuid4()}", again)
    bucket.pause = lambda seconds: None
    return bucket


def run_in(store: Store, teacher: Classifier, plan: Plan = PLAN, by: str = "head") -> None:
    recipe = recipe_for(teacher)
    index = open_run(store, card_for(recipe, plan), resume=False, overwrite=False)
    publish(store, index, recipe, EXECUTORS[by], lambda samples: None, by=by)


def test_every_store_keeps_the_same_contract(store: Store) -> None:
    assert store.names() == set()
    store.create()
    store.write("a", b"one")
    store.write("a", b"second")
    assert store.names() == {"a"}
    assert (store.size("a"), store.read("a", 2**20)) == (6, b"second")
    assert store.modified().keys() == {"a"}
    assert store.modified()["a"] == pytest.approx(time.time(), abs=600)
    assert store.write_new("b", b"first") is True
    assert store.write_new("b", b"later") is False
    assert store.read("b", 2**20) == b"first"
    store.move("a", "c", 6)
    assert (store.names(), store.read("c", 2**20)) == ({"b", "c"}, b"second")
    with pytest.raises(FileNotFoundError):
        store.move("a", "c", 6)
    store.write(".b.one.tmp", b"")
    store.write(".b.two.tmp", b"")
    assert store.names() == store.modified().keys() == {"b", "c"}
    store.remove_temporaries("one")
    assert store.read(".b.two.tmp", 2**20) == b""
    store.remove_temporaries()
    for name in (".b.one.tmp", ".b.two.tmp"):
        with pytest.raises(FileNotFoundError):
            store.size(name)
    assert open_store(store.uri).names() == store.names()
    store.remove("c")
    store.remove("c")
    assert store.names() == {"b"}
    with pytest.raises(FileNotFoundError):
        store.size("a")
    with pytest.raises(FileNotFoundError):
        store.read("a", 2**20)
    with pytest.raises(UserError, match=r"larger than|more than the 4"):
        store.read("b", 4)


@pytest.mark.parametrize("by", ["head", "workers"])
def test_a_run_has_the_same_bytes_in_every_store(
    store: Store, tiny_teacher: Classifier, tmp_path: Path, by: str
) -> None:
    run_in(store, tiny_teacher, by=by)
    run_in(Folder(tmp_path / "here"), tiny_teacher)
    local = digests(tmp_path / "here")
    assert {name: hashlib.sha256(store.read(name, 2**20)).hexdigest() for name in store.names()} == local
    assert verify(store)[1] == []
    assert len(images_of(store)) == PLAN.images


def every_third(fault: str) -> Callable[[int], str]:
    return lambda call: fault if call % 3 == 0 else ""


@pytest.mark.parametrize("by", ["head", "workers"])
@pytest.mark.parametrize("fault", ["unavailable", "hang up", "cut"])
def test_every_third_call_failing_loses_nothing(
    fault: str, s3_port: int, monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier, by: str
) -> None:
    monkeypatch.setattr("synth.shards.bucket.FIRST_PAUSE", 0.005)  # its chance parts workers that fail in step
    with FaultyProxy(s3_port, every_third(fault)) as proxy:
        bucket = through(proxy, monkeypatch)
        bucket.pause = time.sleep
        run_in(bucket, tiny_teacher, by=by)
        assert verify(bucket)[1] == []
        assert bucket.all_names() == bucket.names() == {INDEX, *map(shard_name, range(PLAN.shards))}
        assert len(images_of(bucket)) == PLAN.images
        assert len(proxy.spoiled) > 5


def test_slow_storage_is_waited_for(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyProxy(s3_port, lambda call: "slow") as proxy:
        bucket = through(proxy, monkeypatch)
        bucket.write("a", b"content")
        assert bucket.read("a", 2**20) == b"content"


def test_storage_that_stays_down_is_an_error_of_one_line(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyProxy(s3_port, lambda call: "unavailable") as proxy:
        bucket = through(proxy, monkeypatch)
        with pytest.raises(UserError, match=rf"failed {ATTEMPTS} times .* start the same command again"):
            bucket.write("a", b"content")


@pytest.mark.parametrize(("by", "calls"), [("head", 24), ("auto", 50)])
def test_a_run_that_storage_ended_can_be_resumed(
    s3_port: int, monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier, by: str, calls: int
) -> None:
    monkeypatch.setattr("synth.shards.bucket.FIRST_PAUSE", 0.0)  # of the worker's own bucket
    recipe = recipe_for(tiny_teacher)
    plan = replace(PLAN, shard_size=1)  # 16 shards
    card = card_for(recipe, plan)
    away = itertools.count()
    with FaultyProxy(s3_port, lambda call: "unavailable" if next(away) > calls else "") as proxy:
        bucket = through(proxy, monkeypatch, RESUME)
        with pytest.raises(UserError, match="--resume"):
            publish(bucket, open_run(bucket, card, False, False), recipe, in_worker, lambda samples: None, by=by)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    again = open_store(str(bucket))
    index = open_run(again, card, resume=True, overwrite=False)
    assert 0 < len(index.entries) < plan.shards
    publish(again, index, recipe, in_worker, lambda samples: None, by=by)
    assert verify(again)[1] == []
    assert isinstance(again, Bucket)
    assert len(again.all_names()) == plan.shards + 1


def test_an_upload_that_arrives_damaged_is_sent_again(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = open_store(f"s3://runs/{uuid.uuid4()}")
    assert isinstance(bucket, Bucket)
    bucket.pause = lambda seconds: None
    put, sent = bucket.files.pipe_file, []

    def damaging(path: str, data: bytes) -> None:
        sent.append(path)
        put(path, data if len(sent) > 2 else data[:-1] + b"?")

    monkeypatch.setattr(bucket.files, "pipe_file", damaging)
    bucket.write("a", b"content")
    assert (len(sent), bucket.read("a", 2**20)) == (3, b"content")


def test_a_byte_flipped_on_the_way_is_never_trained_on(
    s3_port: int, monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier
) -> None:
    store = open_store(f"s3://runs/{uuid.uuid4()}")
    run_in(store, tiny_teacher)
    index = read_index(store)
    with FaultyProxy(s3_port, lambda call: "flip") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(UserError, match="sha256"):
            read_shard(Bucket(str(store)), index, index.entries[0])


@pytest.mark.parametrize(
    ("fault", "message"),
    [("no bucket", "no such bucket: create it first"), ("denied", "access is denied .* bucket's policy")],
)
def test_a_failure_that_waiting_does_not_cure_is_an_error_at_once(
    fault: str, message: str, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(s3_port, lambda call: fault) as proxy:
        bucket = through(proxy, monkeypatch)
        with pytest.raises(UserError, match=message):
            bucket.write("a", b"content")


def test_missing_credentials_are_named(s3_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no credentials for s3://: set AWS_ACCESS_KEY_ID"):
        Bucket("s3://runs/a").write("a", b"")


@pytest.mark.parametrize("uri", ["s3://", "http://host/run", "s3://a::memory://b", "pipe:cat", "reference://x"])
def test_a_malformed_place_is_refused(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if uri == "pipe:cat":
        assert isinstance(open_store(uri), Folder)  # a folder of that name, nothing is run
        return
    with pytest.raises(UserError):
        open_store(uri)


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError, match=r"pip install '.\[s3\]'"):
        open_store("s3://runs/a")


def test_a_chain_of_places_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="chains"):
        Bucket("memory://a::b")
