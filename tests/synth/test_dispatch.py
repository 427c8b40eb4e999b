"""Dispatch with a model of a cluster, which has a clock of its own."""

from __future__ import annotations

import random
from collections.abc import Generator, Hashable, Iterable, Iterator
from pathlib import Path

import pytest
from simulated_cluster import Fates, IndexOnly, SimulatedCluster

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.executors.dispatch import FAILURES, LOSSES, Delivery, Dispatch, FailedJobError, LostWorkerError
from synth.executors.executor import Made
from synth.making.make import Recipe
from synth.run.publish import open_run, publish
from synth.shards.plan import Plan, ShardJob
from tests.runs import card_for, recipe_for


class ModelCluster:
    """Nodes with one worker each.

    `fate(job, node, nth attempt)` is the seconds that an attempt takes, or its exception.
    """

    def __init__(self, nodes: list[str], fate) -> None:  # type: ignore[no-untyped-def]
        self.idle, self.up, self.fate = list(nodes), set(nodes), fate
        self.time = 0.0
        self.queue: list[tuple[int, ShardJob, frozenset[str]]] = []
        self.busy: dict[int, tuple[float, float, str, ShardJob, Exception | None]] = {}
        self.ended: dict[int, tuple[str, float, ShardJob, Exception | None]] = {}
        self.count = 0
        self.tries: dict[int, int] = {}
        self.starts: list[tuple[int, str]] = []
        self.most = 0
        self.jobs_per_worker = 2

    def submit(self, job: ShardJob, avoid: frozenset[str]) -> Hashable:
        self.count += 1
        self.queue.append((self.count, job, avoid))
        self.most = max(self.most, len(self.queue) + len(self.busy))
        self.start()
        return self.count

    def start(self) -> None:
        waiting, self.queue = self.queue, []
        for handle, job, avoid in waiting:
            node = next((n for n in self.idle if n not in avoid), None)
            if node is None:
                self.queue.append((handle, job, avoid))
                continue
            self.idle.remove(node)
            self.tries[job.number] = self.tries.get(job.number, 0) + 1
            self.starts.append((job.number, node))
            fate = self.fate(job, node, self.tries[job.number])
            error = fate if isinstance(fate, Exception) else None
            self.busy[handle] = (self.time + (1.0 if error else fate), self.time, node, job, error)

    def wait(self, handles: list[Hashable], seconds: float) -> list[Hashable]:
        due = min((b[0] for b in self.busy.values()), default=float("inf"))
        self.time = min(due, self.time + seconds)
        done = [h for h, b in self.busy.items() if b[0] <= self.time]
        for handle in done:
            _, begun, node, job, error = self.busy.pop(handle)
            self.ended[handle] = (node, self.time - begun, job, error)
            self.idle.append(node)
        self.start()
        return [h for h in done if h in handles]

    def result(self, handle: Hashable) -> Delivery:
        node, seconds, job, error = self.ended.pop(handle)  # type: ignore[call-overload]
        if error:
            raise error
        return Delivery(str(job.number).encode(), node, seconds)

    def running(self, handles: list[Hashable]) -> dict[Hashable, tuple[str, float]]:
        return {h: (b[2], self.time - b[1]) for h, b in self.busy.items() if h in handles}

    def cancel(self, handle: Hashable) -> None:
        self.queue = [q for q in self.queue if q[0] != handle]
        if handle in self.busy and self.busy[handle][0] < float("inf"):  # a vanished node does not hear it
            self.idle.append(self.busy.pop(handle)[2])  # type: ignore[call-overload]
            self.start()

    def nodes(self) -> set[str]:
        return self.up

    def room(self) -> int:
        return self.jobs_per_worker * len(self.up)

    def workers(self) -> int:
        return len(self.up)

    def now(self) -> float:
        return self.time


def jobs(count: int) -> Iterator[ShardJob]:
    return Plan(classes=(0,), per_class=count, shard_size=1).jobs()


def made_once(results: list[Made], count: int) -> bool:
    return sorted(m.job.number for m in results) == list(range(count)) and all(m.data is not None for m in results)


def test_every_shard_is_made_once_and_the_jobs_in_flight_are_bounded() -> None:
    cluster = ModelCluster(["a", "b"], lambda job, node, nth: 1.0 + job.number % 3)
    assert made_once(list(Dispatch(cluster).run(jobs(50))), 50)
    assert (cluster.count, cluster.most) == (50, 4)


def test_a_vanished_node_costs_one_timeout_and_gets_no_further_shard() -> None:
    silent = float("inf")
    cluster = ModelCluster(["a", "b", "c"], lambda job, node, nth: silent if node == "b" else 10.0)
    said: list[str] = []
    assert made_once(list(Dispatch(cluster, timeout=30.0, say=said.append).run(jobs(40))), 40)
    assert [node for _, node in cluster.starts].count("b") == 1
    assert "another worker makes it as well" in said[0]
    assert cluster.time < 40 * 10.0 / 2 + 30.0 + 20.0


def test_without_a_timeout_a_shard_is_overdue_after_four_medians() -> None:
    cluster = ModelCluster(["a", "b"], lambda job, node, nth: 5000.0 if (job.number, nth) == (9, 1) else 20.0)
    assert made_once(list(Dispatch(cluster).run(jobs(10))), 10)
    assert cluster.time < 5 * 20.0 + 80.0 + 25.0


def test_a_slow_node_does_not_hold_up_the_end_of_a_run() -> None:
    cluster = ModelCluster(["a", "b", "c"], lambda job, node, nth: 55.0 if (job.number, nth) == (29, 1) else 10.0)
    assert made_once(list(Dispatch(cluster).run(jobs(30))), 30)
    assert cluster.time < 10 * 10.0 + 15.0 + 10.0


def test_at_the_end_an_idle_worker_copies_a_shard_of_a_node_that_is_known_to_be_slow() -> None:
    cluster = ModelCluster(["a", "b", "c"], lambda job, node, nth: 40.0 if node == "c" else 20.0)
    assert made_once(list(Dispatch(cluster).run(jobs(22))), 22)
    assert cluster.count == 22 + 1
    assert cluster.time == 180.0  # without the copy the last shard of c ends after 200 s


def test_a_large_cluster_with_faults_makes_each_shard_once_within_a_tenth_of_the_least_time(
    tiny_teacher: Classifier, tmp_path: Path
) -> None:
    plan = Plan(classes=tuple(range(10)), per_class=200, shard_size=2)  # 1,000 shards
    cluster, store = SimulatedCluster(Fates(workers=20, per_node=2), b"data"), IndexOnly(tmp_path)
    recipe = recipe_for(tiny_teacher)

    def execute(jobs: Iterable[ShardJob], recipe: Recipe, begun: bool = False) -> Generator[Made, None, None]:
        return Dispatch(cluster).run(jobs)

    index = open_run(store, card_for(recipe, plan), resume=False, overwrite=False)
    whole = publish(store, index, recipe, execute, lambda samples: None, now=cluster.now)
    assert (whole.complete, len(store.seen), store.twice) == (True, 1000, 0)
    assert sum(cluster.tally.events.values()) > 0
    assert cluster.now() < 1.1 * cluster.bound


def test_a_node_that_was_slow_is_tried_again_later() -> None:
    cluster = ModelCluster(["a", "b"], lambda job, node, nth: 100.0 if node == "b" and cluster.time < 200.0 else 10.0)
    assert made_once(list(Dispatch(cluster, timeout=30.0).run(jobs(80))), 80)
    assert "b" not in [node for _, node in cluster.starts[5:20]]
    assert "b" in [node for _, node in cluster.starts[-20:]]


def test_when_every_node_is_benched_all_are_tried_again() -> None:
    cluster = ModelCluster(["a"], lambda job, node, nth: 45.0)
    assert made_once(list(Dispatch(cluster, timeout=30.0).run(jobs(3))), 3)


def test_lost_workers_and_failures_are_counted_separately() -> None:
    def fate(job: ShardJob, node: str, nth: int) -> float | Exception:
        if job.number == 3:
            return FailedJobError("ValueError: no")
        if job.number == 5:
            return LostWorkerError("gone")
        return LostWorkerError("gone") if nth <= LOSSES else 1.0

    results = {m.job.number: m for m in Dispatch(ModelCluster(["a", "b"], fate)).run(jobs(8))}
    assert sorted(results) == list(range(8))
    assert [n for n, m in results.items() if m.data is None] in ([3, 5], [5, 3])
    assert results[3].error == f"after {FAILURES} retries, ValueError: no"
    assert results[5].error == f"its worker died {LOSSES + 1} times"


def test_a_user_error_is_tried_again_after_the_first_shard() -> None:
    def fate(job: ShardJob, node: str, nth: int) -> float | Exception:
        return UserError("no memory: use another device") if job.number in (0, 7) else 2.0

    cluster = ModelCluster(["a", "b"], fate)
    results = {m.job.number: m for m in Dispatch(cluster).run(jobs(8))}
    assert [n for n, m in results.items() if m.data is None] == [0, 7]
    assert (cluster.tries[0], cluster.tries[7]) == (1, 1 + FAILURES)
    assert str(results[7].cause) == results[7].error == "no memory: use another device"


def test_a_user_error_is_tried_again_from_the_start_of_a_resumed_run() -> None:
    def briefly_full(job: ShardJob, node: str, nth: int) -> float | Exception:
        return UserError("no memory: use another device") if nth <= FAILURES else 2.0

    assert made_once(list(Dispatch(ModelCluster(["a", "b"], briefly_full), begun=True).run(jobs(8))), 8)


@pytest.mark.parametrize("seed", range(20))
def test_every_shard_is_delivered_once_under_random_faults(seed: int) -> None:
    draw = random.Random(seed)

    def fate(job: ShardJob, node: str, nth: int) -> float | Exception:
        kind = draw.random()
        if nth <= 2 and kind < 0.1:
            return LostWorkerError("gone")
        if nth <= 2 and kind < 0.15:
            return FailedJobError("no")
        if nth == 1 and kind < 0.25:
            return 100.0 * draw.random()
        return 1.0 + draw.random()

    nodes = [str(n) for n in range(draw.randint(1, 8))]
    cluster = ModelCluster(nodes, fate)
    assert made_once(list(Dispatch(cluster, timeout=draw.choice([None, 10.0])).run(jobs(60))), 60)


@pytest.mark.parametrize("jobs_per_worker", [1, 2])  # with a number of workers, and without
def test_a_slow_last_shard_is_copied_while_others_are_idle(jobs_per_worker: int) -> None:
    slow = lambda job, node, nth: 2000.0 if job.number == 19 and nth == 1 else 100.0  # noqa: E731
    cluster = ModelCluster(["a", "b"], slow)
    cluster.jobs_per_worker = jobs_per_worker
    assert made_once(list(Dispatch(cluster).run(jobs(20))), 20)
    assert cluster.time == 900 + 150 + 100  # begun at 900 s, copied after 1.5 times the usual, and made


def test_a_run_that_is_closed_leaves_no_attempt_running() -> None:
    cluster = ModelCluster(["a", "b"], lambda job, node, nth: 1.0)
    results = Dispatch(cluster).run(jobs(50))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert (cluster.queue, cluster.busy) == ([], {})


def test_the_run_says_that_it_waits_for_nodes() -> None:
    cluster = ModelCluster([], lambda job, node, nth: 1.0)
    cluster.room = lambda: 4  # type: ignore[method-assign]
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            cluster.idle.append("a")
            cluster.up.add("a")

    assert made_once(list(Dispatch(cluster, timeout=5.0, say=say).run(jobs(4))), 4)
    assert "waiting for workers: 4 shards are queued" in said[0]
