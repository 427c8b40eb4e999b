"""From the shards of a run to training samples: all at once, or shard by shard while the run is still being written."""

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
    """All samples of a complete run that pass the filters.

    Raises:
        UserError: there is no run, a shard is missing or damaged, or the run is not complete. The last is known from
            the index, before any shard is decoded.
        HopelessError: every sample was dropped.
    """
    pool = ShardPool(store, filters)
    if not pool.index.complete:
        published, planned = len(pool.index.entries), pool.index.card.plan.shards
        raise UserError(
            f"{store} has {published} of {planned} shards: train while they are being made with --follow, "
            "or complete the run with 'synth generate --resume'"
        )
    for _ in pool.arrivals():
        pass
    pool.refuse_if_empty()
    return pool


def follow(
    store: Store, filters: Mapping[str, Filter], timeout: float, wait: Callable[[float], None] = time.sleep
) -> Iterator[ShardPool]:
    """Yield the same pool after each shard, until the run is complete. The next shards are decoded meanwhile.

    Args:
        timeout: seconds without a new shard, or without a run, after which to give up.
        wait: sleeps for a number of seconds.

    Raises:
        UserError: nothing new was published in time, or a shard is damaged.
        HopelessError: every sample of the complete run was dropped.
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
                f"{store} has {len(pool.loaded)} of {pool.index.card.plan.shards} shards and got none for {timeout:g} "
                "s: look at 'synth status', continue the run with 'synth generate --resume', "
                "or wait longer with --follow-timeout"
            )
        wait(POLL_SECONDS)


def wait_for_run(
    store: Store, filters: Mapping[str, Filter], timeout: float, wait: Callable[[float], None] = time.sleep
) -> ShardPool:
    """An empty pool, as soon as the run has an index. Raises UserError if it has none after `timeout` seconds."""
    started = time.monotonic()
    while find_index(store) is None and time.monotonic() - started < timeout:
        wait(POLL_SECONDS)
    return ShardPool(store, filters)
