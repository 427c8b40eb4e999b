import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.basics.errors import UserError
from synth.shards.index import (
    FORMAT_VERSION,
    INDEX,
    LARGEST_INDEX,
    PART,
    GateCounts,
    Index,
    ShardEntry,
    find_index,
    read_index,
    read_shard,
)
from synth.shards.plan import Plan
from synth.shards.read import DamagedShardError, decode_shard
from synth.shards.store import Folder
from synth.shards.view_recipes import PARTNER
from tests.synth.test_shards import tar_of

Raw = dict[str, Any]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Folder:
    """A run of the test's own."""
    shutil.copytree(tiny_run, tmp_path / "run")
    return Folder(tmp_path / "run")


def changed(run: Folder, change: Callable[[Raw], object]) -> bytes:
    raw = json.loads(run.read(INDEX, 2**20))
    change(raw)
    return json.dumps(raw).encode()


def refused(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        Index.parse(data, "the index")
    message = str(caught.value)
    assert message.startswith("the index")
    assert len(message) < 400
    return message


def test_an_index_survives_the_round_trip_byte_for_byte(run: Folder) -> None:
    index = read_index(run)
    assert index.to_bytes() == run.read(INDEX, 2**20)
    assert Index.parse(index.to_bytes(), "i") == index
    assert (index.samples, index.complete, sorted(index.entries)) == (100, True, [0, 1, 2, 3])


def test_the_index_records_what_determines_the_run_and_no_time(run: Folder) -> None:
    raw = json.loads(run.read(INDEX, 2**20))
    assert {"wids_version", "shardlist", "format_version", "run", "complete", "name"} < set(raw)
    assert {"teacher_sha256", "method", "settings", "plan", "mean", "std", "class_names", "versions"} < set(raw["run"])
    listed = {"url", "nsamples", "filesize", "sha256", "class_counts", "judged", "recognised"}
    assert listed == set(raw["shardlist"][0])
    assert not [key for key in json.dumps(raw).split('"') if "time" in key or "date" in key or "host" in key]


def test_an_index_of_a_newer_format_says_to_update(run: Folder) -> None:
    data = changed(run, lambda raw: raw.update(format_version=FORMAT_VERSION + 1, run="unknown"))
    assert f"version {FORMAT_VERSION + 1}, newer than {FORMAT_VERSION}: update this package" in refused(data)


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere/shard-000000.tar",
        "pipe:touch owned",
        "pipe:cat shard-000000.tar",
        "../shard-000000.tar",
        "/tmp/shard-000000.tar",
        "file:///tmp/shard-000000.tar",
        "shard-000000.tar\n",
        "shard-0.tar",
        "shard-000000.tar.gz",
        "",
        None,
        7,
    ],
)
def test_a_shard_url_that_leaves_the_run_is_refused(run: Folder, url: object) -> None:
    data = changed(run, lambda raw: raw["shardlist"][0].update(url=url))
    assert "is damaged" in refused(data)


def set_plan(**values: object) -> Callable[[Raw], object]:
    return lambda raw: raw["run"]["plan"].update(values)


def set_run(**values: object) -> Callable[[Raw], object]:
    return lambda raw: raw["run"].update(values)


def set_shard(**values: object) -> Callable[[Raw], object]:
    return lambda raw: raw["shardlist"][1].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_shard(nsamples=26), "is listed with 26 samples"),
        (set_shard(nsamples=-1), "is listed with -1 samples"),
        (set_shard(filesize=0), "with 0 bytes, but 25 samples take at most"),
        (set_shard(filesize=2**62), "samples take at most"),
        (set_shard(filesize=2**22), "with 4194304 bytes, but 25 samples take at most 240563"),
        (set_shard(filesize=float("inf")), "it has the number Infinity"),
        (set_shard(url="shard-000000.tar"), "listed twice"),
        (set_shard(url="shard-000004.tar"), "only 4 shards are planned"),
        (set_shard(class_counts=[1]), "is damaged"),
        (set_shard(class_counts={"x": 1}), "is damaged"),
        (set_shard(class_counts={"9" * 4300: 1}), "is not a class number"),
        (set_shard(class_counts={"0": "9" * 4300}), "a class count is not a count"),
        (set_shard(again="9" * 4300, missed=0), "'again' is not a count"),
        (set_shard(again=0, missed=-1), "'missed' is not a count"),
        (set_shard(again=0, missed=True), "'missed' is not a count"),
        (set_shard(judged=2, recognised=3), "more copies are recognised than judged"),
        (set_shard(judged=-1), "'judged' is not a count"),
        (set_run(settings=json.loads('{"a":' * 900 + "1" + "}" * 900)), "nested deeper"),
        (lambda raw: raw["shardlist"].pop(), "4 shards are planned, 3 listed"),
        (lambda raw: raw["shardlist"][0].pop("sha256"), "is damaged"),
        (lambda raw: raw.pop("complete"), "is damaged"),
        (lambda raw: raw.update(shardlist=None), "is damaged"),
        (lambda raw: raw.update(shardlist=[None]), "is damaged"),
        (lambda raw: raw.update(run=None), "is damaged"),
        (set_plan(per_class=0), "is damaged"),
        (set_plan(per_class=10**12), "a run holds at most"),
        (set_plan(per_class=10**400), "more than 20 digits"),
        (set_plan(shard_size=1), "100 shards are planned"),
        (set_plan(classes=[]), "is damaged"),
        (set_plan(classes=[0, 0]), "distinct"),
        (set_plan(classes=[-1]), "is damaged"),
        (set_plan(classes=list(range(11))), "class 10 has no name"),
        (set_plan(seed=-1), "is damaged"),
        (set_run(image_shape=[1, 10**6, 10**6]), "input shape"),
        (set_run(image_shape=[1, 28]), "input shape"),
        (set_run(image_shape=[2, 28, 28]), "image shape"),
        (set_run(image_shape=[28, 28]), "is damaged"),
        (set_run(image_shape=[]), "image shape [] is not"),
        (set_run(settings={"note": "n" * 2**16}), "its settings and versions take"),
        (set_shard(again=int("9" * 4300), missed=1), "is not an index"),
        (set_run(class_names=["a"] * 200_000), "2 to 100,000 classes"),
        (set_run(class_names=["a" * 5000] * 10), "class names"),
        (set_run(class_names=["\x1b[2J"] * 10), "class names"),
        (set_run(class_names=[1] * 10), "class names"),
        (set_run(mean="x"), "is damaged"),
        (set_run(mean=[0.5] * 3), "mean and std need 1 values"),
        (set_run(mean=[float("nan")]), "it has the number NaN"),
        (set_run(std=[0.0]), "std above 0"),
        (set_run(width=99), "width 99.0 is not within"),
        (set_run(settings=5), "is damaged"),
        (set_run(width=10**400), "more than 20 digits"),
        (set_run(method="\x1b[2J"), "not printable text of at most 200 characters"),
        (set_run(architecture="a" * 1000), "architecture must be printable text"),
        (set_run(teacher_sha256="\x1b[2J"), "its teacher's sha256 is not 64 hexadecimal digits"),
        (set_shard(sha256="\x1b[2J"), "a shard's sha256 is not 64 hexadecimal digits"),
        (
            lambda raw: raw.update(generator={"sha256": "\x1b[2J"}),
            "its generator's sha256 is not 64 hexadecimal digits",
        ),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(run: Folder, change: Callable[[Raw], object], words: str) -> None:
    assert words in refused(changed(run, change))


def test_a_shard_of_large_images_may_be_larger_than_an_index(run: Folder) -> None:
    size = 3 * 2**29 - 2**24  # nearly what 10,000 images of 3x224x224 with nine views take at most

    def enlarge(raw: Raw) -> None:
        raw["run"].update(image_shape=[3, 224, 224], mean=[0.5] * 3, std=[0.5] * 3)
        raw["run"]["plan"].update(per_class=1000, shard_size=10_000, views=9)
        raw["shardlist"] = [{**raw["shardlist"][0], "nsamples": 10_000, "filesize": size}]

    assert Index.parse(changed(run, enlarge), "the index").entries[0].size == size > LARGEST_INDEX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"format_version": null}',
        b'{"format_version": 1e999}',
        b'{"format_version": "x"}',
        b'{"format_version": 1}',
        b"[" * 100_000,
        b'{"format_version": 1, "run": ' + b'{"a":' * 100_000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_file_that_is_not_an_index_is_refused(data: bytes) -> None:
    assert "make the run again" in refused(data)


def test_an_absent_run_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    assert find_index(Folder(tmp_path)) is None
    with pytest.raises(UserError, match=r"there is no run in .* 'synth generate --teacher T --per-class 100 --out"):
        read_index(Folder(tmp_path / "nowhere"))


def test_a_run_that_becomes_complete_meanwhile_is_found(run: Folder) -> None:
    class Racing(Folder):
        """The index takes its final name just after the first look for it."""

        looked = False

        def size(self, name: str) -> int:
            if name == INDEX and not self.looked:
                self.looked = True
                raise FileNotFoundError(name)
            return super().size(name)

    assert not run.path.joinpath(PART).exists()
    assert read_index(Racing(run.path)).complete


def test_a_shard_that_differs_from_its_index_is_refused_by_name(run: Folder) -> None:
    index, name = read_index(run), "shard-000002.tar"
    good = run.read(name, 2**20)
    for damage, words in ((good[:-512], "bytes instead of"), (good[:600] + b"!" + good[601:], "its sha256")):
        run.write(name, damage)
        with pytest.raises(DamagedShardError, match=rf"{name}.*{words}.*--resume"):
            read_shard(run, index, index.entries[2])
    run.remove(name)
    with pytest.raises(DamagedShardError, match=f"{name} is missing.*--resume"):
        read_shard(run, index, index.entries[2])


def test_a_shard_with_a_true_hash_and_other_content_is_refused(run: Folder) -> None:
    index = read_index(run)
    good = decode_shard(run.read("shard-000000.tar", 2**20), "s", index.card.layout)
    moved = good.views.copy()
    moved[..., PARTNER] += 1
    for changed, words in (
        ({"labels": good.labels[::-1]}, "holds other classes than planned"),
        ({"keys": [f"{int(key) + 1:09d}" for key in good.keys], "views": moved}, "holds other keys than planned"),
    ):
        data = tar_of(dataclasses.replace(good, **changed))
        run.write("shard-000000.tar", data)
        entry = ShardEntry.of(index.card.plan.job(0), data)
        with pytest.raises(DamagedShardError, match=words):
            read_shard(run, index, entry)


def test_entries_of_equal_shards_share_their_class_counts_and_the_text_of_them() -> None:
    plan = Plan(classes=tuple(range(100)), per_class=8, shard_size=200)
    entries = [ShardEntry.of(job, b"%d" % job.number, GateCounts(again=3, missed=1)) for job in plan.jobs()]
    assert [entry.line for entry in entries] == [json.dumps(entry.to_json(), sort_keys=True) for entry in entries]
    first, *others = entries
    assert all(other.class_counts is first.class_counts for other in others)
    assert all(other.pieces[1] is first.pieces[1] for other in others)
    assert len({entry.line for entry in entries}) == 4
