"""Heads of Ray that are dead, stopped, or not ours: what `--address auto` and a named address make of them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from synth.basics.errors import UserError

grpc = pytest.importorskip("grpc", reason="Ray is not installed: pip install '.[cluster]'")

from synth.executors import head  # noqa: E402
from synth.executors import ray as cluster  # noqa: E402

TOKEN = "cd" * 32


class Guarded(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call as Ray's head does: OK to who shows the token, UNAUTHENTICATED to others."""

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "another token")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def guarded() -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Guarded()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()


@contextmanager
def stopped() -> Iterator[str]:
    """A port whose process accepts nothing, as after SIGSTOP. Only here is the wait short: the others answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, mock.patch.object(head, "ANSWER_SECONDS", 0.3):
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def dead() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"127.0.0.1:{port}"


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which `ray start` notes the address of its head."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done instead of starting or joining a Ray, which takes seconds."""
    done: list[str] = []
    monkeypatch.setattr(cluster, "start_local", lambda workers: done.append("started") or "a new local Ray")
    monkeypatch.setattr(cluster, "join", lambda address: done.append(f"joined {address}"))
    return done


@pytest.mark.parametrize(
    ("other", "reason"),
    [(dead, "cannot be reached"), (stopped, "does not answer"), (guarded, "requires another token")],
)
def test_beside_a_ray_that_cannot_be_joined_a_new_one_starts_and_one_line_names_the_other(
    note: Path, done: list[str], other: Any, reason: str
) -> None:
    said: list[str] = []
    with other() as address:
        note.write_text(address)
        assert cluster.find_or_start(cluster.Workers(), said.append) == "a new local Ray"
    assert done == ["started"]
    (line,) = said
    assert line.startswith(f"the Ray of this machine, at {address}, {reason}")
    assert ": a new one is started (to use that one, " in line


def test_the_ray_that_was_started_for_this_machine_is_joined_with_its_token(
    note: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with guarded() as address:
        note.write_text(address + "\n")
        where = cluster.find_or_start(cluster.Workers(), print)
    assert (where, done) == (f"the Ray that runs on this machine ({address})", [f"joined {address}"])


@pytest.mark.parametrize("content", [None, "", "no address", "\x1b[31m:1", "\x1bc:1", "\udcff"])
def test_without_a_noted_address_a_new_ray_starts_and_nothing_is_said(
    note: Path, done: list[str], content: str | None
) -> None:
    if content is not None:
        note.write_bytes(content.encode(errors="surrogateescape"))
    cluster.find_or_start(cluster.Workers(), pytest.fail)
    assert done == ["started"]


def test_the_ray_of_another_user_is_left_alone(note: Path, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    note.write_text("127.0.0.1:6379")
    os.chown(note, 4321, 4321) if os.getuid() == 0 else monkeypatch.setattr(os, "getuid", lambda: 4321)
    cluster.find_or_start(cluster.Workers(), pytest.fail)
    assert done == ["started"]


def test_a_note_that_is_no_file_is_passed_over(note: Path, done: list[str]) -> None:
    os.mkfifo(note)
    cluster.find_or_start(cluster.Workers(), pytest.fail)
    assert done == ["started"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (dead, "no Ray answers at {}"),
        (stopped, "the Ray at {} does not answer within 0.3 s"),
        (guarded, "the Ray at {} requires another token: set RAY_AUTH_MODE=token"),
    ],
)
def test_a_named_address_that_cannot_be_joined_ends_the_run_with_one_line(note: Path, other: Any, words: str) -> None:
    started = time.monotonic()
    with other() as address, pytest.raises(UserError) as caught, cluster.connected(address, cluster.Workers()):
        pass
    assert str(caught.value).startswith(words.format(address))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10
