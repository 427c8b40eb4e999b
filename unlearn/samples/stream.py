"""Shards to training samples, once each, also from a run that is still being written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from synth.basics.errors import UserError
from synth.shards.index import find_index
from synth.shards.store import Store
from unlearn.samples.filters import Filter
from unlearn.samples.pool import ShardPool

POLL_SECONDS = 1.0


def load_complete(store: Store, filters: Mapping[str, Filter]) -> ShardPool:
    """The whole of a finished run. Raises UserError where it is not finished."""
    pool = ShardPool(store, filters)
    if not pool.index.complete:
        published, planned = len(pool.index.entries), pool.index.card.plan.shards
        raise UserError(
            f"{store} has {published} of {planned} shards: train while they are made with --follow, "
            "or complete it with 'synth generate --resume'"
        )
    for _ in pool.arrivals():
        pass
    pool.refuse_if_empty()
    return pool


def follow(
    store: Store, filters: Mapping[str, Filter], timeout: float, wait: Callable[[float], None] = time.sleep
) -> Iterator[ShardPool]:
    """Yield the pool after each shard, until the run is complete; the next ones are decoded meanwhile.

    Raises UserError where nothing new is published for `timeout` seconds.
    """
    pool = wait_for_run(store, filters, timeout, wait)
    last_news = time.monotonic()
    while True:
        for _ in pool.arrivals():
            yield pool
            last_news = time.monotonic()
        if pool.index.complete:
            pool.refuse_if_empty()
            return
        if time.monotonic() - last_news > timeout:
            raise UserError(
                f"nothing new in {store} for {timeout:g} s, {len(pool.loaded)} of {pool.index.card.plan.shards} shards are "
                "there: see 'synth status', go on with 'synth generate --resume', or wait longer with --follow-timeout"
            )
        wait(POLL_SECONDS)


def wait_for_run(
    store: Store, filters: Mapping[str, Filter], timeout: float, wait: Callable[[float], None] = time.sleep
) -> ShardPool:
    """The pool of a run whose index may not be there yet."""
    started = time.monotonic()
    while find_index(store) is None and time.monotonic() - started < timeout:
        wait(POLL_SECONDS)
    return ShardPool(store, filters)
