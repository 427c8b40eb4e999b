"""Several nodes of one Ray on this machine: one is lost, or only one has a GPU (in name; no real GPU is needed)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from synth.checkpoint.classifier import Classifier
from synth.making.make import JobResult, Recipe
from synth.shards.index import find_index
from synth.shards.plan import Plan, ShardJob
from synth.shards.store import Folder
from tests.faults import assert_whole, wait_until
from tests.runs import QUICK, digests, make_run, recipe_for

ray = pytest.importorskip("ray")

from synth.executors import ray as on_cluster  # noqa: E402
from synth.executors.ray import Workers, connected, on_ray, places, workers_that_fit  # noqa: E402

pytestmark = pytest.mark.ray

PLAN = Plan(classes=tuple(range(10)), per_class=16, shard_size=10, seed=3)  # 16 shards


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head that takes no work. Tests add other nodes."""
    from ray.cluster_utils import Cluster

    quick = {"metrics_report_interval_ms": 1000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_worker_fits_if_its_cpus_and_gpus_are_on_one_node() -> None:
    half = Workers(cpus=1.0, gpus=0.5)
    assert places(half, {"CPU": 4.0, "GPU": 1.0}) == 2
    assert places(half, {"CPU": 1.0, "GPU": 4.0}) == 1
    assert places(half, {"CPU": 64.0}) == 0
    assert places(Workers(cpus=2.0), {"CPU": 5.0}) == 2


@pytest.mark.long
def test_a_lost_node_loses_no_sample(nodes: Any, tiny_teacher: Classifier, tmp_path: Path) -> None:
    recipe = recipe_for(tiny_teacher, QUICK)
    make_run(tmp_path / "reference", recipe, PLAN)
    nodes.add_node(num_cpus=1)
    lost = nodes.add_node(num_cpus=1)

    def lose() -> None:
        wait_until(lambda: published(tmp_path / "run") >= 4, "4 shards")
        nodes.remove_node(lost, allow_graceful=False)

    with connected(nodes.address, Workers(), insecure=True):
        wait_until(lambda: workers_that_fit(Workers()) == 2, "both nodes")
        killer = threading.Thread(target=lose)
        killer.start()
        make_run(tmp_path / "run", recipe, PLAN, on_ray(Workers(count=2)))
        killer.join()
        wait_until(lambda: workers_that_fit(Workers()) == 1, "the node to be given up")
        for phase in ("synthesis", "label", "encode", "upload"):
            wait_until(lambda p=phase: f'phase="{p}"' in metrics(), f"the metric of {phase}")
        assert "ray_synth_shards_total{" in metrics()
        assert "ray_synth_images_total" in metrics()
    assert_whole(tmp_path / "run", 160)
    assert digests(tmp_path / "run") == digests(tmp_path / "reference")


def metrics() -> str:
    """The metrics of the nodes that are up, as Prometheus reads them."""
    places = [f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics" for n in ray.nodes() if n["Alive"]]
    return "".join(urlopen(place, timeout=10).read().decode() for place in places)


def published(out: Path) -> int:
    index = find_index(Folder(out))
    return len(index.entries) if index else 0


@pytest.mark.long
def test_two_workers_share_a_gpu_and_nodes_without_a_gpu_get_no_work(
    nodes: Any, tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def where(job: ShardJob, recipe: Recipe) -> JobResult:
        time.sleep(0.5)
        return JobResult(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}".encode())

    monkeypatch.setattr(on_cluster, "make_shard", where)
    nodes.add_node(num_cpus=2, num_gpus=1)
    nodes.add_node(num_cpus=2)
    half = Workers(cpus=1.0, gpus=0.5)
    with connected(nodes.address, half, insecure=True):
        wait_until(lambda: len(ray.nodes()) == 3, "both nodes")
        assert workers_that_fit(half) == 2
        made = [str((one.data or b"").decode()) for one in on_ray(half)(PLAN.jobs(), recipe_for(tiny_teacher))]
    assert len(made) == PLAN.shards
    assert {line.split()[1] for line in made} == {"0"}
    assert len({line.split()[0] for line in made}) >= 2
