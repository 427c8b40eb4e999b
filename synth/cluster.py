"""The executor on Ray, and the only module that imports it.

Plain tasks rather than actors: a task that was running on a lost worker or node is simply run again elsewhere, while calls
that were bound for a lost actor wait for it. Each worker process keeps its loaded teacher between tasks.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_IGNORE_UNHANDLED_ERRORS", "1"
)  # or it prints tracebacks of tasks that nobody waits for any more

import ray
from ray.exceptions import RayError, RayTaskError

from synth.errors import UsageError, UserError
from synth.plan import ShardJob
from synth.produce import Recipe, make_shard
from synth.run import Executor, Made

SYSTEM_RETRIES = 3  # of a task whose worker or node died; Ray's own
TASK_RETRIES = 2  # of a task that raised; ours
CONNECT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers, and what one takes. `count` None means as many as fit."""

    count: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@contextmanager
def connected(address: str, workers: Workers) -> Iterator[str]:
    """A connection to Ray, as words that say which: `local` starts one here, `auto` finds one or starts one."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        if address == "local":
            yield start_local(workers)
        elif address == "auto":
            yield find_or_start(workers)
        else:
            check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            yield f"Ray at {address}"
    except (ConnectionError, TimeoutError, socket.gaierror) as error:
        raise UserError(
            f"Ray at {address} does not answer ({error}): check the address, or use --address local"
        ) from error
    finally:
        ray.shutdown()


def find_or_start(workers: Workers) -> str:
    """A Ray already running on this machine (a cluster's head, say), or one of our own."""
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        return start_local(workers)
    return f"the Ray running here ({ray.get_runtime_context().gcs_address})"


def start_local(workers: Workers) -> str:
    cpus = os.cpu_count() or 1
    count = workers.count or max(1, int(cpus // workers.cpus))
    ray.init(
        address="local",
        num_cpus=max(1, int(count * workers.cpus)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",  # nobody else may connect
    )
    return f"a Ray of its own on this machine, {count} worker{'s' if count > 1 else ''}"


def check_reachable(address: str) -> None:
    """Ray itself waits for minutes, or ends the process, where nobody listens."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(f"'{address}' is no Ray address: give auto, local, none, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()


def workers_available(workers: Workers) -> int:
    """How many workers the cluster's present resources hold. Raises UserError where not one fits."""
    total = ray.cluster_resources()
    fits = [total.get("CPU", 0.0) / workers.cpus if workers.cpus else float("inf")]
    if workers.gpus:
        fits.append(total.get("GPU", 0.0) / workers.gpus)
    count = int(min(fits))
    if count < 1:
        raise UserError(
            f"no worker fits: one takes {workers.cpus:g} CPUs and {workers.gpus:g} GPUs, the cluster has "
            f"{total.get('CPU', 0):g} and {total.get('GPU', 0):g}: lower --threads or --gpus-per-worker, or add nodes"
        )
    return count


def cluster_has_gpu() -> bool:
    return ray.cluster_resources().get("GPU", 0.0) > 0


def on_ray(workers: Workers) -> Executor:
    """The executor that keeps the cluster's workers busy, with a bounded number of jobs in flight, and yields shards as they come."""
    in_flight = workers.count or 2 * workers_available(workers)

    def execute(jobs: Iterable[ShardJob], recipe: Recipe) -> Iterator[Made]:
        recipe_ref = ray.put(recipe)
        task = ray.remote(
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            max_retries=SYSTEM_RETRIES,
            max_calls=0,  # also with GPUs, where Ray would otherwise end the process, and lose its loaded teacher
            scheduling_strategy="SPREAD",
        )(make_shard)
        queue = iter(jobs)
        attempts: dict[Any, tuple[ShardJob, int]] = {
            task.remote(job, recipe_ref): (job, 0) for job in islice(queue, in_flight)
        }
        try:
            while attempts:
                [done], _ = ray.wait(list(attempts), num_returns=1)
                job, failures = attempts.pop(done)
                try:
                    made = Made(job, ray.get(done))
                except UserError as error:  # Ray's stand-in for it carries a traceback in its text
                    raise getattr(error, "cause", error) from None
                except (RayTaskError, RayError) as error:
                    if failures < TASK_RETRIES:
                        attempts[task.remote(job, recipe_ref)] = (job, failures + 1)
                        continue
                    made = Made(job, None, f"after {TASK_RETRIES} retries, {last_line(error)}")
                for following in islice(queue, 1):
                    attempts[task.remote(following, recipe_ref)] = (following, 0)
                yield made
        finally:
            for ref in attempts:
                ray.cancel(ref, force=True)

    return execute


def last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
