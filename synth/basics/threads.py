"""Threads that a program can do without: where the system gives none, the caller does the work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from synth.basics.out_of_memory import is_out_of_memory

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A pool of threads whose `submit` runs the task itself where no thread can be started.

    A thread takes a stack of 8 MiB. Under `ulimit -v` that may be missing, though the task needs little memory.
    """

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The task's future. Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        first = Lock()

        def run() -> None:
            # A task that found no thread stays in the pool's queue, and a thread of another task may come by.
            if not first.acquire(blocking=False) or not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        try:
            super().submit(run)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            run()
        return future
