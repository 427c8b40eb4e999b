"""The executor on Ray, and the only module that imports it.

Plain tasks rather than actors: a shard whose worker or node is lost is simply made again elsewhere, while calls that were
bound for a lost actor wait for it. Each worker process keeps its loaded teacher between tasks. Ray's own retries are off:
`synth.dispatch` counts every loss, and keeps new attempts away from nodes that don't deliver.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synth.basics.errors import UsageError, UserError
from synth.executors.dispatch import SAY_WAITING_SECONDS, Delivery, Dispatch, FailedJobError, LostWorkerError
from synth.executors.executor import Executor, Made
from synth.making.make import JobResult, Recipe, make_shard
from synth.shards.index import GateCounts
from synth.shards.plan import ShardJob

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_IGNORE_UNHANDLED_ERRORS", "1"
)  # or it prints tracebacks of tasks that nobody waits for any more
# A host whose link is cut is noticed within half a minute instead of seven; the cluster files set the same on every node.
os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "10000")
os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "10000")

CONNECT_SECONDS = 5.0
RECOUNT_SECONDS = 5.0
BOUNDS = [0.1, 1, 3, 10, 30, 100, 300, 1000, 3000]  # seconds, of the histograms
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")  # gRPC's names
LOST = (WorkerCrashedError, ObjectLostError, OutOfMemoryError)  # besides the errors that name a node


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers, and what one takes. `count` None means as many as fit."""

    count: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@contextmanager
def connected(address: str, workers: Workers, insecure: bool = False) -> Iterator[str]:
    """A connection to Ray, as words that say which: `local` starts one here, `auto` finds one or starts one.

    Raises UserError where nobody answers, or where the cluster lets anybody in and `insecure` doesn't allow that.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    before = {name: os.environ.get(name) for name in AUTHENTICATION}
    try:
        with sigterm_kept():
            where = connect(address, workers)
        if not insecure:
            refuse_open_cluster(address)
        yield where
    finally:
        ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        reread_authentication()


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Ray's own handler ends the process with exit code 15 and no word of what is kept and how to go on."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # neither Ray nor we can set one elsewhere
            signal.signal(signal.SIGTERM, before)


def connect(address: str, workers: Workers) -> str:
    """Connect to the Ray at `address`, or start one. Raises UserError where it doesn't answer or doesn't start."""
    try:
        if address == "local":
            return start_local(workers)
        if address == "auto":
            return find_or_start(workers)
        host, port = check_reachable(address)
        if not address.startswith("ray://"):
            check_head(address)
        with (
            loopback_kept()
            if is_loopback(host) and not listens(ray.util.get_node_ip_address(), port)
            else nullcontext()
        ):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return f"Ray at {address}"
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"Ray at {address} does not answer ({str(error)[:200]}): check the address, or use --address local"
        ) from error
    except Exception as error:  # Ray's own kind for versions that differ, or processes that don't come up in time
        raise UserError(
            f"Ray could not be used ({last_line(error)[:200]}): try again, or make the shards without it by --address none"
        ) from error


def find_or_start(workers: Workers) -> str:
    """A Ray already running on this machine (a cluster's head, say), or one of our own."""
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        return start_local(workers)
    return f"the Ray running here ({ray.get_runtime_context().gcs_address})"


def start_local(workers: Workers) -> str:
    """A Ray that listens on loopback alone, and wants a token that only this process and its children know."""
    cpus = os.cpu_count() or 1
    count = workers.count or max(1, int(cpus // workers.cpus))
    with private_ray():
        ray.init(
            address="local",
            num_cpus=max(1, int(count * workers.cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    return f"a Ray of its own on this machine, {count} worker{'s' if count > 1 else ''}"


@contextmanager
def private_ray() -> Iterator[None]:
    """What Ray 2.60 has no public setting for: a loopback that stays one, and a token that is written nowhere."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        reread_authentication()
    with loopback_kept():
        yield


def reread_authentication() -> None:
    """Ray reads mode and token once, when it is imported; a process may use one cluster after another."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Ray turns 127.0.0.1 into the machine's own address, and listens everywhere, unless this is off, as it is on macOS."""
    from ray._private import ray_constants

    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def check_reachable(address: str) -> tuple[str, int]:
    """The address's host and port. Raises OSError where nobody listens: Ray itself waits for minutes, or ends the process."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(f"'{address}' is no Ray address: give auto, local, none, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    return host, port


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def refuse_open_cluster(address: str) -> None:
    """Raise UserError where others can reach the cluster and need no token: whoever does can run code on it."""
    gcs = ray.get_runtime_context().gcs_address
    host = gcs.rpartition(":")[0].strip("[]")
    if is_loopback(host):
        return
    through_client = address.startswith("ray://")  # from where the head's own address may not be reachable
    if (os.environ.get("RAY_AUTH_MODE") != "token") if through_client else lets_anybody_in(gcs):
        raise UserError(
            f"the Ray cluster at {host} wants no token, so whoever reaches it can run code on it: start it with "
            "RAY_AUTH_MODE=token (see cluster.yaml), or say --insecure if its network is closed"
        )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_head(address: str) -> None:
    """Ray itself tries for half a minute, a warning a second, where its token is missing or no Ray answers."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    token = AuthenticationTokenLoader.instance()
    answer = knock(address, token.get_token_for_http_header() if token.has_token() else {})
    if answer in REFUSALS:
        raise UserError(
            f"the Ray at {address} wants another token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's"
        )
    if answer != "OK":
        raise UserError(
            f"what answers at {address} is no Ray head ({answer}): give the address that 'ray start' printed, or use "
            "--address local"
        )


def lets_anybody_in(gcs: str) -> bool:
    return knock(gcs, {}) not in REFUSALS


def knock(gcs: str, headers: dict[str, str]) -> str:
    """Ask the head for a sign of life, and return gRPC's name for its answer."""
    import grpc

    with grpc.insecure_channel(gcs) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=CONNECT_SECONDS, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def places(workers: Workers, resources: dict[str, float]) -> int:
    """How many workers a node's resources hold."""
    fits = [resources.get("CPU", 0.0) / workers.cpus if workers.cpus else float("inf")]
    if workers.gpus:
        fits.append(resources.get("GPU", 0.0) / workers.gpus)
    return int(min(fits))


def workers_available(workers: Workers) -> int:
    """How many workers the cluster's present resources hold. Raises UserError where not one fits."""
    count = workers_that_fit(workers)
    if count < 1:
        total = ray.cluster_resources()
        raise UserError(
            f"no worker fits: one takes {workers.cpus:g} CPUs and {workers.gpus:g} GPUs on one node, all nodes together have "
            f"{total.get('CPU', 0):g} and {total.get('GPU', 0):g}: lower --threads or --gpus-per-worker, or add nodes "
            "(with --workers N the run waits for N of them to come)"
        )
    return count


def workers_that_fit(workers: Workers) -> int:
    """Node by node, as one worker's CPUs and GPUs have to be on the same."""
    return sum(places(workers, node["Resources"]) for node in ray.nodes() if node["Alive"])


def wait_for_a_node(workers: Workers, say: Callable[[str], None]) -> None:
    """Wait until a worker fits on a node, where nodes are to be expected: so many workers were asked for, or no node that is there
    has a CPU, as a cluster just after `ray up`, whose head has none and whose other machines are still being set up.
    """
    said = float("-inf")
    while workers_that_fit(workers) < 1 and (workers.count is not None or not has_cpu()):
        if time.monotonic() - said >= SAY_WAITING_SECONDS:
            said = time.monotonic()
            say(
                "waiting for the first node that can work; nodes that are being started take minutes, and those that are "
                "rented for waiting work alone come for --workers N with --device (Ctrl-C ends the wait)"
            )
        time.sleep(1.0)


def has_cpu() -> bool:
    return any(node["Resources"].get("CPU") for node in ray.nodes() if node["Alive"])


def cluster_has_gpu() -> bool:
    return ray.cluster_resources().get("GPU", 0.0) > 0


def on_ray(workers: Workers, timeout: float | None = None, say: Callable[[str], None] = lambda line: None) -> Executor:
    """The executor that keeps the cluster's workers busy, with a bounded number of jobs in flight, and yields shards as they come.

    With `workers.count` given it waits for nodes that are still to come; without, for the first where none has a CPU.
    """
    if workers.count is None:
        wait_for_a_node(workers, say)
        workers_available(workers)

    def execute(jobs: Iterable[ShardJob], recipe: Recipe, begun: bool = False) -> Generator[Made, None, None]:
        backend = RayBackend(workers, recipe)
        with closing(Dispatch(backend, timeout, say, begun).run(jobs)) as results:
            for made in results:
                yield replace(made, uploaded=lambda seconds: backend.observe_phases({"upload": seconds}))

    return execute


class RayBackend:
    """Attempts as Ray tasks. A handle is the task's result reference."""

    def __init__(self, workers: Workers, recipe: Recipe) -> None:
        self.workers = workers
        self.make, self.recipe = ray.put(make_shard), ray.put(recipe)
        self.task: Any = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=0, max_calls=0)(attempt)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board: Any = ray.remote(board_class())
        self.board = board.options(num_cpus=0, scheduling_strategy=here).remote()
        self.attempts: dict[Hashable, tuple[int, int]] = {}  # each one's key on the board, and its images
        self.submitted = 0
        self.counted: tuple[float, int] = (0.0, 0)
        self.outcomes = metrics.Counter("synth_shards", "Attempts at shards by outcome.", ("outcome",))
        self.images = metrics.Counter("synth_images", "Images made.")
        self.durations = metrics.Histogram("synth_shard_seconds", "Seconds to make a shard.", BOUNDS)
        self.phases = metrics.Histogram("synth_phase_seconds", "Seconds of a shard by phase.", BOUNDS, ("phase",))

    def submit(self, job: ShardJob, avoid: frozenset[str]) -> Hashable:
        self.submitted += 1
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
        if avoid:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        handle = self.task.options(**options).remote(self.make, job, self.recipe, self.board, self.submitted)
        self.attempts[handle] = (self.submitted, job.stop - job.start)
        return handle

    def wait(self, handles: list[Any], seconds: float) -> list[Hashable]:
        try:
            done, _ = ray.wait(handles, num_returns=1, timeout=seconds)
        except RayError as error:
            raise UserError(f"the Ray cluster is lost ({last_line(error)}): go on with --resume on another") from error
        return done

    def result(self, handle: Any) -> Delivery:
        _, images = self.attempts.pop(handle)
        outcome = "lost"
        try:
            delivery = Delivery(*ray.get(handle))
            outcome = "done"
        except UserError as error:  # Ray's stand-in for it carries a traceback in its text
            raise getattr(error, "cause", error) from None
        except RayTaskError as error:
            outcome = "raised"
            raise FailedJobError(last_line(error)) from error
        except RayError as error:
            lost = isinstance(error, LOST) or "node" in str(error).lower() or "died" in str(error).lower()
            outcome = "lost" if lost else "raised"
            raise (LostWorkerError if lost else FailedJobError)(last_line(error)) from error
        finally:
            self.outcomes.inc(tags={"outcome": outcome})
        if images:  # a preparation makes none
            self.images.inc(images)
        self.durations.observe(delivery.seconds)
        self.observe_phases(delivery.phases)
        return delivery

    def observe_phases(self, phases: Mapping[str, float]) -> None:
        for name, seconds in phases.items():
            self.phases.observe(seconds, tags={"phase": name})

    def running(self, handles: list[Hashable]) -> dict[Hashable, tuple[str, float]]:
        keys = {self.attempts[handle][0]: handle for handle in handles if handle in self.attempts}
        try:
            begun = ray.get(self.board.begun.remote(list(keys)), timeout=CONNECT_SECONDS)
        except RayError:
            return {}
        return {keys[key]: found for key, found in begun.items()}

    def cancel(self, handle: Any) -> None:
        """Through the board: where a task ends while its own driver cancels it, Ray 2.60 ends the driver ("Tried to complete task
        that was not pending"), as two threads meet there. A request from another process waits its turn in the one thread.
        """
        self.attempts.pop(handle, None)
        self.board.cancel.remote([handle])

    def nodes(self) -> set[str]:
        return {n["NodeID"] for n in ray.nodes() if n["Alive"] and places(self.workers, n["Resources"]) >= 1}

    def room(self) -> int:
        """The workers asked for; else two jobs for each that fits, counted anew now and then, as nodes come and go."""
        if self.workers.count is not None:
            return self.workers.count
        at, count = self.counted
        if not at or self.now() - at >= RECOUNT_SECONDS:
            count = max(1, workers_that_fit(self.workers))
            self.counted = (self.now(), count)
        return 2 * count

    def now(self) -> float:
        return time.monotonic()


def attempt(
    make: Callable[[ShardJob, Recipe], JobResult], job: ShardJob, recipe: Recipe, board: Any, key: int
) -> tuple[bytes, str, float, dict[str, float], GateCounts | None]:
    """Runs on a worker: says that it has begun, and makes the shard."""
    from synth.basics.phases import take_phases

    take_phases()  # of an attempt that raised
    node = ray.get_runtime_context().get_node_id()
    board.begin.remote(key, node)
    started = time.monotonic()
    result = make(job, recipe)
    return result.data, node, time.monotonic() - started, take_phases(), result.gate


def board_class() -> type:
    """Where attempts say that they have begun, and from where they are cancelled. Local to a function, so that its process
    loads it without this module and torch.
    """

    class Board:
        def __init__(self) -> None:
            self.notes: dict[int, tuple[str, float]] = {}

        def begin(self, key: int, node: str) -> None:
            self.notes[key] = (node, time.monotonic())
            if len(self.notes) > 100_000:
                del self.notes[next(iter(self.notes))]

        def begun(self, keys: list[int]) -> dict[int, tuple[str, float]]:
            now = time.monotonic()
            return {key: (self.notes[key][0], now - self.notes[key][1]) for key in keys if key in self.notes}

        def cancel(self, handles: list[Any]) -> None:
            for handle in handles:
                ray.cancel(handle, force=True)

    return Board


def last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
