"""What is opened and replaced: regular files only, through links, and of a stated size at most."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth.basics.disk import append_to_file, flush_folder, write_file, write_new_file
from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import hash_and_start, open_regular, read_regular
from synth.basics.way_on import WayOn
from synth.checkpoint.file import load_checkpoint, refuse_existing
from synth.checkpoint.importing.weights_file import read_weights
from synth.commands.config import read_settings
from synth.methods.networks import LARGEST_GENERATOR
from synth.run.lock import LOCK, Lock, acquire
from synth.shards.index import INDEX, find_index
from synth.shards.store import Folder, open_store
from unlearn.run.folder import PROVENANCE, read_provenance

TERABYTE = 2**40
ODD = ["pipe", "device", "socket", "sparse", "loop"]


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A path to something that is no file to read: reading it would hang, never end, or take all memory."""
    path = tmp_path / request.param
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "sparse":
        with path.open("wb") as file:
            file.truncate(TERABYTE)
    elif request.param == "loop":
        path.symlink_to(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # a socket's name must be short
            yield path
        return
    yield path


def index_in(path: Path) -> None:
    place = path.with_name("run")
    place.mkdir()
    (place / INDEX).symlink_to(path)
    find_index(Folder(place))


def provenance_in(path: Path) -> None:
    place = path.with_name("run")
    place.mkdir()
    (place / PROVENANCE).symlink_to(path)
    read_provenance(place)


def lock_in(path: Path) -> None:
    place = path.with_name("run")
    place.mkdir()
    (place / LOCK).symlink_to(path)
    acquire(Lock(Folder(place), WayOn(command="synth generate")), LOCK, lambda line: None, 0.1)


@pytest.mark.parametrize(
    "read",
    [load_checkpoint, read_weights, index_in, lock_in, read_settings, provenance_in],
    ids=["checkpoint", "pt", "index", "lock", "config", "provenance"],
)
def test_every_reader_refuses_what_is_no_file_in_one_line(odd: Path, read) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a pipe|a device|a socket|larger than|symbolic links") as refused:
        read(odd)
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdef")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link", 6) == b"abcdef"
    assert hash_and_start(tmp_path / "x", 6, 2) == (hashlib.sha256(b"abcdef").hexdigest(), b"ab")
    for call in (open_regular, read_regular, hash_and_start):
        with pytest.raises(OSError, match="it is larger than 5 bytes"):
            call(tmp_path / "x", 5)
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "none", 5)
        with pytest.raises(IsADirectoryError):
            call(tmp_path, 5)
        with pytest.raises(OSError, match="no file can have this name"):
            call(tmp_path / "a\0b", 5)


def test_a_file_that_grows_while_it_is_read_gives_what_it_had_when_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with open_regular(tmp_path / "x", 3) as file:
        (tmp_path / "x").write_bytes(b"abcdef")
        assert file.read(3) == b"abc"


@pytest.mark.parametrize("odd", [kind for kind in ODD if kind != "sparse"], indirect=True)
@pytest.mark.parametrize("write", [write_file, write_new_file, append_to_file])
def test_no_writer_replaces_what_is_no_file(odd: Path, write) -> None:
    before = odd.lstat()
    with pytest.raises(UserError, match=r"is a pipe, not|is a device, not|is a socket, not|symbolic links"):
        write(odd, b"data")
    assert (odd.lstat().st_ino, odd.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert [path.name for path in odd.parent.iterdir()] == [odd.name]


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/x")
    (tmp_path / "dangling").symlink_to("there/y")
    write_file(tmp_path / "link", b"new")
    assert write_new_file(tmp_path / "dangling", b"first")
    assert not write_new_file(tmp_path / "dangling", b"second")
    append_to_file(tmp_path / "dangling", b"+more")
    assert os.readlink(tmp_path / "link") == "there/x"
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == {
        "x": b"new",
        "y": b"first+more",
    }


def test_a_temporary_file_never_follows_a_link_that_somebody_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_bytes(b"safe")
    monkeypatch.setattr("secrets.token_hex", lambda length: "known")
    (tmp_path / ".x.known.tmp").symlink_to("victim")
    with pytest.raises(UserError):
        write_file(tmp_path / "x", b"data")
    assert (tmp_path / "victim").read_bytes() == b"safe"


def test_a_name_is_flushed_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        "os.fsync", lambda number: (flushed.append(os.readlink(f"/proc/self/fd/{number}")), fsync(number))
    )
    write_file(tmp_path / "x", b"data")
    assert [Path(path).parent == tmp_path for path in flushed] == [True, False]
    assert flushed[1] == str(tmp_path)
    monkeypatch.setattr("os.open", lambda *given: (_ for _ in ()).throw(OSError(22, "invalid")))
    flush_folder(tmp_path)  # a file system that cannot flush folders


def test_a_checkpoint_over_a_device_is_refused_before_the_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError, match="not a file: name a file to write"):
            refuse_existing(path, overwrite=True)
    with pytest.raises(UsageError, match="is a folder"):
        refuse_existing(tmp_path, overwrite=True)


def test_a_checkpoint_larger_than_its_network_is_not_read(tiny_teacher_path: Path, tmp_path: Path) -> None:
    data = tiny_teacher_path.read_bytes()
    with (tmp_path / "t.safetensors").open("wb") as file:
        file.write(data)
        file.truncate(2**33)
    with pytest.raises(UserError, match=r"has 8,589,934,592 bytes, but the weights of lenet5 have [0-9,]+ at most"):
        load_checkpoint(tmp_path / "t.safetensors")


def test_an_object_larger_than_its_limit_is_not_read() -> None:
    bucket = open_store("memory://run")
    bucket.write("generator.safetensors", bytes(100))
    assert bucket.read("generator.safetensors", LARGEST_GENERATOR) == bytes(100)
    with pytest.raises(UserError, match=r"memory://run/generator.safetensors has 100 bytes, more than the 99"):
        bucket.read("generator.safetensors", 99)
    bucket.remove("generator.safetensors")
