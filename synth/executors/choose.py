"""Which executor makes a run's shards: Ray at an address, or this process."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from synth.basics.device import local_device
from synth.basics.errors import UsageError, UserError
from synth.executors.executor import Executor, in_process

NO_RAY = "none"  # the address that asks for this process


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines that a run was asked to use; the fields are options of `synth generate`."""

    address: str
    workers: int | None
    threads: int  # CPU threads of each worker
    gpus_per_worker: float | None  # None means 1; used on cuda only
    device: str
    shard_timeout: float | None = None  # seconds
    insecure: bool = False
    publish: str = "auto"  # who publishes shards: one of PUBLISHERS


@dataclass(frozen=True)
class Place:
    """An executor, the device that its workers use, and words for a person that say where they run."""

    execute: Executor
    device: str
    words: str


def refuse_options_without_ray(machines: Machines) -> None:
    """Raise UsageError if an option for Ray's workers was given and Ray is not used."""
    given = {
        "--workers": machines.workers is not None,
        "--gpus-per-worker": machines.gpus_per_worker is not None,
        "--shard-timeout": machines.shard_timeout is not None,
        "--insecure": machines.insecure,
        "--publish": machines.publish != "auto",
    }
    for name in given:
        if given[name] and machines.address == NO_RAY:
            raise UsageError(f"{name} has no effect with --address none, which works without Ray: leave it out")


@contextmanager
def opened(machines: Machines, say: Callable[[str], None]) -> Iterator[Place]:
    """Connect to the machines, and yield the executor that uses them. `say` gets lines for a person.

    Raises:
        UserError: Ray is not installed or does not answer, no worker fits, or the device is not there.
    """
    if machines.address == NO_RAY:
        yield Place(in_process, local_device(machines.device), "this process")
        return
    # Ray reads this on import. With `uv run` it would copy the working folder to the workers and search it first.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        from synth.executors import ray as cluster
    except ImportError:
        raise UserError(
            "Ray is not installed: install it with pip install '.[cluster]', or use --address none to work without Ray"
        ) from None
    cpu_workers = cluster.Workers(count=machines.workers, cpus=machines.threads)
    with cluster.connected(machines.address, cpu_workers, machines.insecure, say) as where:
        device = machines.device
        if device == "auto":
            cluster.wait_for_a_node(cpu_workers, say)  # the head may have no GPU although the workers have
            device = "cuda" if cluster.cluster_has_gpu() else "cpu"
        gpus = (machines.gpus_per_worker or 1.0) if device == "cuda" else 0.0
        workers = dataclasses.replace(cpu_workers, gpus=gpus)
        yield Place(cluster.on_ray(workers, machines.shard_timeout, say), device, where)
