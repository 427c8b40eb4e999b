"""The executor on Ray, and the only module that imports Ray.

Shards are plain tasks, not actor calls: a shard whose worker or node is lost is made again elsewhere, while calls to a
lost actor would wait for that actor. Each worker process keeps its loaded teacher between tasks. Ray's own retries are
off: `synth.executors.dispatch` counts every loss and keeps new attempts away from nodes that do not deliver.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import requires
from typing import Any

import ray
from packaging.requirements import Requirement
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.job_config import JobConfig
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synth.basics.errors import UserError
from synth.executors.dispatch import SAY_WAITING_SECONDS, Delivery, Dispatch, FailedJobError, LostWorkerError
from synth.executors.executor import Executor, Heard, Made, nobody
from synth.executors.handover import Handover, Staged, StagingArea, is_there, make_and_hand_over
from synth.executors.head import (
    host_and_port,
    is_loopback,
    knock_on_port,
    lets_anybody_in,
    listens,
    noted_address,
    refusal,
    refuse_wrong_head,
)
from synth.making.make import JobResult, Recipe, make_shard
from synth.making.pulse import Beat
from synth.shards.plan import ShardJob

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Without this, Ray prints tracebacks of tasks whose results nobody needs any more.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
# The driver notices a host whose link is cut within half a minute instead of seven. The cluster files do the same.
os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "10000")
os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "10000")

BOARD_SECONDS = 5.0
BEAT_SECONDS = 5.0  # between two beats of a worker; of a thousand workers, 200 small messages per second
ASK_SECONDS = 2.0  # between two questions of the driver to the board
RECOUNT_SECONDS = 5.0
BOUNDS = [0.1, 1, 3, 10, 30, 100, 300, 1000, 3000]  # seconds, of the histograms
LOST = (WorkerCrashedError, ObjectLostError, OutOfMemoryError)  # besides the errors that name a node
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers a run uses, and the CPUs and GPUs of each. `count` None means as many as fit."""

    count: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


@contextmanager
def connected(
    address: str, workers: Workers, insecure: bool = False, say: Callable[[str], None] = lambda line: None
) -> Iterator[str]:
    """Connect to the Ray at `address`, and yield words for a person that name it. `say` gets further lines.

    `local` starts a Ray on this machine. `auto` joins the Ray at RAY_ADDRESS, or the one that `ray start` started on
    this machine; without them it starts one. A Ray that another run started for itself is never joined.

    Raises:
        UserError: another version of Ray is installed, no Ray answers at the address, or the cluster requires no token
            and `insecure` is False.
    """
    refuse_other_versions()
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    before = {name: os.environ.get(name) for name in AUTHENTICATION}
    try:
        with sigterm_kept():
            where = connect(address, workers, say)
        if not insecure:
            refuse_open_cluster(address)
        yield where
    finally:
        ray.shutdown()
        restore_authentication(before)


def restore_authentication(before: Mapping[str, str | None]) -> None:
    """Set the environment's mode and token back, and let Ray read them again if they changed."""
    if all(os.environ.get(name) == value for name, value in before.items()):
        return
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    reread_authentication()


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM.

    Ray's own ends the process with code 15, and the user would not learn how to go on.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers in the main thread only
            signal.signal(signal.SIGTERM, before)


def connect(address: str, workers: Workers, say: Callable[[str], None]) -> str:
    """Connect to the Ray at `address`, or start one. Raises UserError if it does not answer or does not start."""
    try:
        if address == "local":
            return start_local(workers)
        if address == "auto":
            return find_or_start(workers, say)
        host, port = host_and_port(address)
        knock_on_port(host, port)
        if address.startswith("ray://"):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            refuse_wrong_head(address)
            join(address)
        return f"Ray at {address}"
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"no Ray answers at {address} ({str(error)[:200]}): check the address, or use --address local"
        ) from error
    except Exception as error:  # Ray raises errors of many kinds: for other versions, or if its processes do not start
        raise UserError(
            f"Ray could not be used ({last_line(error)[:200]}): try again, or use --address none to work without Ray"
        ) from error


def find_or_start(workers: Workers, say: Callable[[str], None]) -> str:
    """Join the Ray that `ray start` started on this machine (for example a cluster's head); otherwise start one.

    Ray itself would look through the processes of this machine, and try to join the private Ray of another run.
    """
    address = noted_address(private_parts().note)
    if address is None:
        return start_local(workers)
    if found := refusal(address):
        reason, cure = found
        say(f"the Ray of this machine, at {address}, {reason}: a new one is started (to use that one, {cure})")
        return start_local(workers)
    join(address)
    return f"the Ray that runs on this machine ({address})"


def join(address: str) -> None:
    """Connect to the head at HOST:PORT, which has answered."""
    host, port = host_and_port(address)
    only_on_loopback = is_loopback(host) and not listens(ray.util.get_node_ip_address(), port)
    with loopback_kept() if only_on_loopback else nullcontext():
        ray.init(address=address, job_config=OwnPath(), log_to_driver=False, logging_level=logging.ERROR)


class OwnPath(JobConfig):
    """A job whose workers search only the path of their own Python for modules.

    Otherwise Ray puts the driver's working folder, and the folder of its program, first on the path of every worker, on
    every machine. A working folder may hold files from elsewhere, such as a downloaded checkpoint with a numpy.py.
    """

    @property
    def _py_driver_sys_path(self) -> list[str]:
        return []

    @_py_driver_sys_path.setter
    def _py_driver_sys_path(self, folders: list[str]) -> None:
        pass


def start_local(workers: Workers) -> str:
    """Start a Ray that listens on loopback only and requires a token that only this process and its children know."""
    cpus = os.cpu_count() or 1
    count = workers.count or max(1, int(cpus // workers.cpus))
    with private_ray():
        ray.init(
            address="local",
            job_config=OwnPath(),
            num_cpus=max(1, int(count * workers.cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    return f"a new local Ray with {count} worker{'s' if count > 1 else ''}"


@contextmanager
def private_ray() -> Iterator[None]:
    """Let a Ray that starts inside keep to loopback and require a token that is written nowhere."""
    private_parts()  # or raises, before anything is changed
    if os.environ.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        reread_authentication()
    with loopback_kept():
        yield


def refuse_other_versions() -> None:
    """Raise UserError if the installed Ray is outside the range of setup.cfg, with both ends of which the tests pass.

    Parts of Ray that have no public name keep a local Ray private and the working folder off the workers' path.
    """
    tested = next(r for r in map(Requirement, requires("data-free-unlearning") or ()) if r.name == "ray")
    if not tested.specifier.contains(ray.__version__):
        raise other_version(f"it is tested with ray{tested.specifier}")


def other_version(why: str) -> UserError:
    return UserError(
        f"Ray {ray.__version__} cannot be used here ({why}): pip install '.[cluster]', or use --address none to work "
        "without Ray"
    )


@dataclass(frozen=True)
class PrivateParts:
    """The parts of Ray that have no public name and that a private local Ray needs."""

    reread_authentication: Callable[[], None]
    constants: Any  # the module that holds ENABLE_RAY_CLUSTER
    note: str  # the file in which `ray start` notes the head's address


def private_parts() -> PrivateParts:
    """The one place that reaches into Ray. Raises UserError if the installed Ray does not have these parts."""
    try:
        from ray._private import ray_constants
        from ray._private.utils import get_ray_address_file
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        loader, initialize = AuthenticationTokenLoader.instance(), Config.initialize
        forget_token, _ = loader.reset_cache, ray_constants.ENABLE_RAY_CLUSTER
        _ = JobConfig()._py_driver_sys_path  # which OwnPath keeps empty
    except (ImportError, AttributeError) as error:
        raise other_version(str(error)) from error

    def reread() -> None:
        initialize("")
        forget_token()

    return PrivateParts(reread, ray_constants, get_ray_address_file(None))


def reread_authentication() -> None:
    """Let Ray read mode and token again.

    It reads them once, on import, but a process may use several clusters in turn.
    """
    private_parts().reread_authentication()


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Keep Ray on loopback. Otherwise Ray replaces 127.0.0.1 by the machine's own address and listens on all addresses.

    The switch is Ray's own: it is off on macOS and Windows.
    """
    constants = private_parts().constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def refuse_open_cluster(address: str) -> None:
    """Raise UserError if other machines can reach the cluster and it requires no token: they could run code on it."""
    gcs = ray.get_runtime_context().gcs_address
    host = gcs.rpartition(":")[0].strip("[]")
    if is_loopback(host):
        return
    # Through a Ray client the head's own address may be out of reach, so only our side's mode is known.
    through_client = address.startswith("ray://")
    if (os.environ.get("RAY_AUTH_MODE") != "token") if through_client else lets_anybody_in(gcs):
        raise UserError(
            f"the Ray cluster at {host} does not require an authentication token, so anyone who can reach it can run "
            "code on it: start it with RAY_AUTH_MODE=token (see cluster.yaml), or pass --insecure on a private network"
        )


def places(workers: Workers, resources: Mapping[str, float]) -> int:
    """How many workers fit on a node with these resources."""
    fits = [resources.get("CPU", 0.0) / workers.cpus if workers.cpus else float("inf")]
    if workers.gpus:
        fits.append(resources.get("GPU", 0.0) / workers.gpus)
    return int(min(fits))


def workers_that_fit(workers: Workers) -> int:
    """How many workers fit on the nodes that are up. The CPUs and GPUs of one worker have to be on one node."""
    return sum(places(workers, node["Resources"]) for node in ray.nodes() if node["Alive"])


def refuse_workers_that_fit_nowhere(workers: Workers) -> None:
    """Raise UserError if no node that is up can hold one worker."""
    if workers_that_fit(workers) >= 1:
        return
    total = ray.cluster_resources()
    raise UserError(
        f"no worker fits: one worker needs {workers.cpus:g} CPUs and {workers.gpus:g} GPUs on one node, and all nodes "
        f"together have {total.get('CPU', 0):g} and {total.get('GPU', 0):g}: lower --threads or --gpus-per-worker, or "
        "add nodes (with --workers N the run waits for them)"
    )


def wait_for_a_node(workers: Workers, say: Callable[[str], None]) -> None:
    """Wait for a node that can host a worker.

    Waits only if `workers.count` is given, or if no node has a CPU yet: just after `ray up` the head has none, and the
    other machines are still being set up.
    """
    said = float("-inf")
    while workers_that_fit(workers) < 1 and (workers.count is not None or not has_cpu()):
        if time.monotonic() - said >= SAY_WAITING_SECONDS:
            said = time.monotonic()
            say(
                "waiting for the first node that can host a worker; starting nodes takes minutes. With an autoscaler, "
                "pass --workers N and --device so that nodes are requested (Ctrl-C ends the wait)"
            )
        time.sleep(1.0)


def has_cpu() -> bool:
    """Whether any node that is up has a CPU for tasks."""
    return any(node["Resources"].get("CPU") for node in ray.nodes() if node["Alive"])


def cluster_has_gpu() -> bool:
    return ray.cluster_resources().get("GPU", 0.0) > 0


def on_ray(workers: Workers, timeout: float | None = None, say: Callable[[str], None] = lambda line: None) -> Executor:
    """The executor that keeps the cluster's workers busy and yields shards as they are made.

    The number of jobs in flight is bounded. If `workers.count` is given, the run waits for nodes that are still to
    come; otherwise it waits only while no node has a CPU.

    Args:
        timeout: seconds after which a shard is made again elsewhere; None means 4 times the median shard.
        say: gets lines for a person.
    """
    if workers.count is None:
        wait_for_a_node(workers, say)
        refuse_workers_that_fit_nowhere(workers)

    def execute(
        jobs: Iterable[ShardJob],
        recipe: Recipe,
        begun: bool = False,
        heard: Heard = nobody,
        area: StagingArea | None = None,
    ) -> Generator[Made, None, None]:
        backend = RayBackend(workers, recipe, heard, area, say)
        with closing(Dispatch(backend, timeout, say, begun).run(jobs)) as results:
            for made in results:
                yield replace(made, uploaded=partial(backend.observe_phase, phase_of_driver(made)))

    return execute


def phase_of_driver(made: Made) -> str:
    """The name of what the driver does with a shard."""
    return "rename" if isinstance(made.data, Staged) else "upload"


class RayBackend:
    """Attempts as Ray tasks. A handle is the reference of a task's result.

    Args:
        area: where workers stage their shards, if they can.
        say: gets lines for a person.
    """

    def __init__(
        self,
        workers: Workers,
        recipe: Recipe,
        heard: Heard = nobody,
        area: StagingArea | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.asked, self.heard, self.area, self.say = workers, heard, area, say
        self.offered = area  # to new attempts
        self.staging: set[str] = set()  # the nodes on which a shard was staged that the driver sees
        self.said: set[bool] = set()  # about which of both ways of publishing a person was told
        self.question: tuple[float, Any] = (float("-inf"), None)  # to the board: when, and the answer to come
        self.make, self.recipe = ray.put(make_shard), ray.put(replace(recipe, workers=workers.count))
        self.task: Any = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=0, max_calls=0)(attempt)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board: Any = ray.remote(board_class())
        self.board = board.options(num_cpus=0, scheduling_strategy=here).remote()
        self.classes: tuple[tuple[int, ...], Any] = ((), None)  # those of the jobs, and the reference of them
        self.attempts: dict[Hashable, tuple[int, int]] = {}  # the key on the board and the images of each attempt
        self.submitted = 0
        self.counted: tuple[float, int] = (0.0, 0)  # when the workers were counted last, and how many fitted
        self.outcomes = metrics.Counter("synth_shards", "Attempts at shards by outcome.", ("outcome",))
        self.images = metrics.Counter("synth_images", "Images generated.")
        self.durations = metrics.Histogram("synth_shard_seconds", "Seconds per shard.", BOUNDS)
        self.phases = metrics.Histogram("synth_phase_seconds", "Seconds per shard by phase.", BOUNDS, ("phase",))

    def submit(self, job: ShardJob, avoid: frozenset[str]) -> Hashable:
        self.submitted += 1
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
        if avoid:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        if self.classes[0] != job.classes:  # with 1,000 classes they are most of a job
            self.classes = (job.classes, ray.put(job.classes))
        lean = replace(job, classes=())
        arguments = (
            self.make,
            lean,
            self.classes[1],
            self.recipe,
            self.board,
            self.submitted,
            os.getcwd(),
            self.offered,
        )
        handle = self.task.options(**options).remote(*arguments)
        self.attempts[handle] = (self.submitted, job.stop - job.start)
        return handle

    def wait(self, handles: list[Any], seconds: float) -> list[Hashable]:
        try:
            self.listen()
            done, _ = ray.wait(handles, num_returns=1, timeout=seconds)
        except RayError as error:
            raise UserError(
                f"the connection to the Ray cluster is lost ({last_line(error)}): connect to a cluster again with the "
                "same command and --resume"
            ) from error
        return done

    def listen(self) -> None:
        """Ask the board now and then how far the attempts are. Never waits for the answer."""
        asked, answer = self.question
        if answer is None:
            if self.now() - asked >= ASK_SECONDS:
                keys = [key for key, _ in self.attempts.values()]
                self.question = (self.now(), self.board.beats.remote(keys))
        elif ray.wait([answer], timeout=0)[0]:
            self.question = (asked, None)
            try:
                self.heard([Beat(*beat) for beat in ray.get(answer)])
            except RayError:
                return  # the board is gone, and the run goes on without it

    def result(self, handle: Any) -> Delivery:
        """The attempt's delivery.

        Counts its outcome: done; raised, if making the shard failed; lost, if its worker died.
        """
        _, images = self.attempts.pop(handle)
        outcome = "raised"
        try:
            handover, node, seconds, phases = ray.get(handle)
            outcome = "lost"  # unless the driver sees what the worker staged
            self.look_at_way(handover, node)
            outcome = "done"
        except UserError as error:  # Ray's copy of it has a traceback in its text
            raise getattr(error, "cause", error) from None
        except RayTaskError as error:
            raise FailedJobError(last_line(error)) from error
        except RayError as error:
            if not is_loss(error):
                raise FailedJobError(last_line(error)) from error
            outcome = "lost"
            raise LostWorkerError(last_line(error)) from error
        finally:
            self.outcomes.inc(tags={"outcome": outcome})
        if images:  # the job that prepares the run makes none
            self.images.inc(images)
        self.durations.observe(seconds)
        self.observe_phases(phases)
        return Delivery(handover.data, node, seconds, phases, handover.gate)

    def look_at_way(self, handover: Handover, node: str) -> None:
        """Say once how shards reach the store, and check for each node that the driver sees what was staged there.

        Raises LostWorkerError if it does not: the shard is lost, and the head publishes from now on. Raises UserError
        if the workers have to publish.
        """
        if handover.kept_from:
            self.say_once(False, f"the head publishes the shards of node {node[:12]}: {handover.kept_from}")
        elif isinstance(handover.data, Staged) and node not in self.staging:
            assert self.area is not None
            if not is_there(handover.data, self.area):
                why = f"the driver does not see in {self.area.uri} what node {node[:12]} wrote there"
                if self.area.required:
                    raise UserError(f"{why}: use a shared folder or object storage, or --publish head")
                self.offered = None
                self.say_once(False, f"the head publishes the shards: {why}")
                raise LostWorkerError(why)
            self.staging.add(node)
            self.say_once(True, f"the workers publish their shards in {self.area.uri} themselves")

    def say_once(self, by_workers: bool, line: str) -> None:
        if by_workers not in self.said:
            self.said.add(by_workers)
            self.say(line)

    def observe_phases(self, phases: Mapping[str, float]) -> None:
        for name, seconds in phases.items():
            self.observe_phase(name, seconds)

    def observe_phase(self, name: str, seconds: float) -> None:
        self.phases.observe(seconds, tags={"phase": name})

    def running(self, handles: list[Hashable]) -> dict[Hashable, tuple[str, float]]:
        keys = {self.attempts[handle][0]: handle for handle in handles if handle in self.attempts}
        try:
            begun = ray.get(self.board.begun.remote(list(keys)), timeout=BOARD_SECONDS)
        except RayError:
            return {}
        return {keys[key]: found for key, found in begun.items()}

    def cancel(self, handle: Any) -> None:
        """Cancel through the board, which is another process.

        If a driver cancels its own task at the moment that the task ends, Ray 2.60 ends the driver ("Tried to complete
        task that was not pending"), because two of its threads meet there.
        """
        self.attempts.pop(handle, None)
        self.board.cancel.remote([handle])

    def nodes(self) -> set[str]:
        return {n["NodeID"] for n in ray.nodes() if n["Alive"] and places(self.asked, n["Resources"]) >= 1}

    def room(self) -> int:
        """The workers that were asked for; otherwise two jobs per worker that fits."""
        return self.asked.count if self.asked.count is not None else 2 * self.workers()

    def workers(self) -> int:
        """The workers that were asked for; otherwise those that fit, counted again every few seconds."""
        if self.asked.count is not None:
            return self.asked.count
        at, count = self.counted
        if not at or self.now() - at >= RECOUNT_SECONDS:
            count = max(1, workers_that_fit(self.asked))
            self.counted = (self.now(), count)
        return count

    def now(self) -> float:
        return time.monotonic()


def is_loss(error: RayError) -> bool:
    """Whether the error means that the worker or its node is gone, whatever the task was doing."""
    return isinstance(error, LOST) or "node" in str(error).lower() or "died" in str(error).lower()


def attempt(
    make: Callable[[ShardJob, Recipe], JobResult],
    job: ShardJob,
    classes: tuple[int, ...],
    recipe: Recipe,
    board: Any,
    key: int,
    folder: str,
    area: StagingArea | None,
) -> tuple[Handover, str, float, dict[str, float]]:
    """Runs on a worker: note on the board that the attempt has begun, make the shard, and hand it over.

    `folder` is the driver's working folder, where the worker looks for an architecture of the user's own code.
    `classes` are those of the job, which comes without them.

    Returns:
        What the worker hands over, its node, and the seconds that this took, in total and by phase.
    """
    from synth.basics.free_memory import share_memory
    from synth.basics.phases import take_phases
    from synth.basics.ticks import listening
    from synth.checkpoint.own_code import own_code_in
    from synth.making.pulse import Pulse

    def send(beat: Beat) -> None:
        board.beat.remote(key, beat.number, beat.share, beat.picture)

    take_phases()  # drop those of an attempt that raised
    node = ray.get_runtime_context().get_node_id()
    share_memory(*places_here(recipe.workers))
    board.begin.remote(key, node)
    started = time.monotonic()
    whole = replace(job, classes=classes)
    with own_code_in(folder), listening(Pulse(whole, recipe, send, BEAT_SECONDS)):
        handover = make_and_hand_over(whole, lambda: make(whole, recipe), area)
    return handover, node, time.monotonic() - started, take_phases()


@cache
def places_here(most: int | None) -> tuple[int, float]:
    """How many workers this node can host, at most `most`, and this worker's share of a GPU."""
    context = ray.get_runtime_context()
    mine = context.get_assigned_resources()
    worker = Workers(cpus=mine.get("CPU", 1.0), gpus=mine.get("GPU", 0.0))
    node = next((node for node in ray.nodes() if node["NodeID"] == context.get_node_id()), None)
    here = places(worker, node["Resources"]) if node else 1
    return max(1, min(here, most or here)), min(1.0, worker.gpus or 1.0)


def board_class() -> type:
    """The class of the actor on which attempts note that they have begun and how far they are, and which cancels them.

    It is defined inside a function, so that the actor's process need not load this module and torch.
    """

    class Board:
        def __init__(self) -> None:
            self.notes: dict[int, tuple[str, float]] = {}
            self.latest: dict[int, tuple[int, float]] = {}
            self.pictures: dict[int, bytes] = {}

        def begin(self, key: int, node: str) -> None:
            self.notes[key] = (node, time.monotonic())
            if len(self.notes) > 100_000:
                del self.notes[next(iter(self.notes))]

        def begun(self, keys: list[int]) -> dict[int, tuple[str, float]]:
            now = time.monotonic()
            return {key: (self.notes[key][0], now - self.notes[key][1]) for key in keys if key in self.notes}

        def beat(self, key: int, number: int, share: float, picture: bytes | None) -> None:
            self.latest[key] = (number, share)
            if picture is not None:
                self.pictures[key] = picture

        def beats(self, keys: list[int]) -> list[tuple[int, float, bytes | None]]:
            """The fields of the latest `Beat` of each of these attempts. The others are forgotten."""
            self.latest = {key: self.latest[key] for key in keys if key in self.latest}
            pictures, self.pictures = self.pictures, {}
            return [(*beat, pictures.get(key)) for key, beat in self.latest.items()]

        def cancel(self, handles: list[Any]) -> None:
            for handle in handles:
                ray.cancel(handle, force=True)

    return Board


def last_line(error: Exception) -> str:
    """The last line of an error's text that is not empty; of a traceback, that is its message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
