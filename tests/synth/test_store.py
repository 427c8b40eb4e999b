import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from synth.basics.errors import UsageError, UserError
from synth.shards.store import Folder, open_store


def test_what_is_written_is_read_back_and_replaced_and_removed(tmp_path: Path) -> None:
    store = Folder(tmp_path / "a" / "b")
    assert store.names() == set()
    store.create()
    store.write("x", b"one")
    store.write("x", b"three")
    assert (store.read("x", 2**20), store.size("x"), store.names()) == (b"three", 5, {"x"})
    assert store.modified()["x"] > 0
    store.remove("x")
    store.remove("x")
    with pytest.raises(FileNotFoundError):
        store.read("x", 2**20)
    with pytest.raises(FileNotFoundError):
        store.size("x")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Folder(tmp_path)
    store.write("x", b"old")
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(UserError, match="the disk is full: free some space and start the same command again"):
        store.write("x", b"new and longer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


def disk_full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_writer_killed_midway_leaves_the_old_file_and_a_temporary_one_that_can_be_removed(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    store.write("x", b"old")
    script = (
        "import os, signal, sys; from pathlib import Path; from synth.shards.store import Folder\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Folder(Path(sys.argv[1])).write('x', b'new')"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -signal.SIGKILL
    assert store.read("x", 2**20) == b"old"
    assert store.names() == {"x"}
    assert len(list(tmp_path.iterdir())) == 2
    store.remove_temporaries()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_path_below_a_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store in (Folder(tmp_path / "file"), Folder(tmp_path / "file" / "run")):
        for action in (store.create, store.names, lambda s=store: s.size("x"), lambda s=store: s.write("x", b"")):
            with pytest.raises(UserError, match="is a file, not a folder: choose another folder"):
                action()


def test_a_removed_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was removed meanwhile: choose another folder"):
        Folder(tmp_path / "gone").write("x", b"")
    with pytest.raises(UserError, match="can't be made"):
        Folder(Path("/proc/nothing")).create()


def test_of_two_writers_of_a_new_file_one_succeeds(tmp_path: Path) -> None:
    assert Folder(tmp_path).write_new("lock", b"first")
    assert not Folder(tmp_path).write_new("lock", b"second")
    assert Folder(tmp_path).read("lock", 2**20) == b"first"


@pytest.mark.parametrize("answer", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS])
def test_without_hard_links_a_new_file_is_written_once_and_never_seen_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    seen: list[bytes] = []

    def no_links(*_: object) -> None:
        raise OSError(answer, os.strerror(answer))

    def look(frame: FrameType, event: str, argument: object) -> None:
        """What another process would read, before each call into the system."""
        if event == "c_call" and (tmp_path / "lock").exists():
            sys.setprofile(None)
            seen.append((tmp_path / "lock").read_bytes())
            sys.setprofile(look)

    monkeypatch.setattr(os, "link", no_links)
    sys.setprofile(look)
    try:
        assert Folder(tmp_path).write_new("lock", b"first")
    finally:
        sys.setprofile(None)
    assert set(seen) <= {b"", b"first"}
    assert not Folder(tmp_path).write_new("lock", b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"lock": b"first"}


def test_a_new_file_on_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(UserError, match="the disk is full"):
        Folder(tmp_path).write_new("lock", b"first")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_system_refuses_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        Folder(tmp_path / ("a" * 300)).size("x")
    folder = Folder(tmp_path / "a\0b")
    for call in (folder.names, folder.create, lambda: folder.read("x", 1), lambda: folder.write("x", b"")):
        with pytest.raises(UserError, match="no file can have this name"):
            call()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_error_of_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        Folder(tmp_path).write("x", b"")


def test_a_store_is_a_path_or_a_file_uri(tmp_path: Path) -> None:
    assert open_store("runs/a").path == Path("runs/a")
    assert open_store(f"file://{tmp_path}").path == tmp_path
    with pytest.raises(UsageError, match="is not a folder: give a path or file:///absolute/path"):
        open_store("file://relative")
    for uri in ("pipe:cat x://y", "http://host/x"):
        with pytest.raises(
            UsageError, match="is not a place for a run: give a folder, s3://BUCKET/RUN or gs://BUCKET/RUN"
        ):
            open_store(uri)
