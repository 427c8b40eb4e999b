"""The pool that does without threads where the system gives none."""

from __future__ import annotations

import threading

import pytest

from synth.basics.threads import Threads


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_task_runs_in_a_thread() -> None:
    with Threads(1) as threads:
        assert threads.submit(threading.get_ident).result() != threading.get_ident()


def test_a_task_without_a_thread_runs_once_and_in_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, int]] = []
    with Threads(1) as threads:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            first = threads.submit(lambda: ran.append((1, threading.get_ident())))
            assert first.done()
        threads.submit(lambda: ran.append((2, threading.get_ident()))).result()  # its thread finds the first task, too
    assert [number for number, _ in ran] == [1, 2]
    assert ran[0][1] == threading.get_ident() != ran[1][1]


@pytest.mark.parametrize("gives_threads", [True, False])
def test_a_tasks_error_is_the_futures(gives_threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not gives_threads:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    with Threads(1) as threads:
        future = threads.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            future.result()


def test_other_errors_of_a_start_are_not_hidden() -> None:
    threads = Threads(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(int)
