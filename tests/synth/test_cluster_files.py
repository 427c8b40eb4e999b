"""Both cluster files pass Ray's own checks, and start clusters that require a token."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "cluster.yaml", ROOT / "scripts" / "cluster-local.yaml"]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


def test_ray_accepts_the_file(cluster: dict[str, Any]) -> None:
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    validate_config(prepare_config(cluster))


def test_both_kinds_of_node_require_the_token(cluster: dict[str, Any]) -> None:
    starts = [c for c in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    for start in starts:
        assert "RAY_AUTH_MODE=token" in start
        assert "RAY_grpc_client_keepalive_time_ms=10000" in start
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any("chmod 600 ~/.ray/auth_token" in c or "install -m 600" in c for c in cluster["setup_commands"])


def test_all_aws_machines_have_the_same_image() -> None:
    """Ray would start a machine without one with Ubuntu 18.04, whose Python is too old."""
    types = yaml.safe_load(FILES[0].read_text())["available_node_types"].values()
    assert len({kind["node_config"]["ImageId"] for kind in types}) == 1


def test_a_run_on_aws_asks_for_as_many_workers_as_machines_may_be_rented() -> None:
    aws = yaml.safe_load(FILES[0].read_text())
    assert any(f"SYNTH_WORKERS={aws['max_workers']}'" in command for command in aws["setup_commands"])
    assert "max_workers" not in aws["available_node_types"]["gpu"]  # the cluster's own limit holds


def test_a_later_edit_reaches_a_machine_that_is_already_set_up(cluster: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / ".profile").write_text("export OTHER=kept\n")
    ours = [command for command in cluster["setup_commands"] if "profile" in command]
    for edit in ("first", "second"):
        for command in ours:
            edited = command.replace("teacher.safetensors", edit)
            subprocess.run(
                ["bash", "-c", f"({edited})"], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True
            )
    shown = subprocess.run(
        ["bash", "-c", ". ~/.profile && echo $SYNTH_TEACHER $OTHER"], env={"HOME": str(tmp_path)}, capture_output=True
    )
    assert shown.stdout.decode().split() == [f"{tmp_path}/project/second", "kept"]


def test_each_file_has_three_places_to_edit_and_its_head_takes_no_worker() -> None:
    for path in FILES:
        assert [f"EDIT {n}" in path.read_text() for n in (1, 2, 3, 4)] == [True, True, True, False]
    aws, local = (yaml.safe_load(path.read_text()) for path in FILES)
    assert aws["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in local["head_start_ray_commands"])


def test_the_kubernetes_job_requires_the_token_and_asks_for_as_many_workers_as_may_run() -> None:
    path = ROOT / "scripts" / "kuberay.yaml"
    job = yaml.safe_load(path.read_text())["spec"]
    cluster, (gpus,) = job["rayClusterSpec"], job["rayClusterSpec"]["workerGroupSpecs"]
    head, worker = (group["template"]["spec"]["containers"][0] for group in (cluster["headGroupSpec"], gpus))
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert {"name": "SYNTH_WORKERS", "value": str(gpus["maxReplicas"])} in head["env"]
    assert (worker["image"], worker["env"]) == (head["image"], head["env"])
    assert worker["envFrom"] == head["envFrom"]  # the keys of the object storage, to which both write
    assert [f"EDIT {n}" in path.read_text() for n in (1, 2, 3, 4)] == [True, True, True, False]


def test_the_slurm_job_requires_a_token_and_leaves_other_rays_running() -> None:
    lines = (ROOT / "scripts" / "slurm.sbatch").read_text().splitlines()
    code = [line for line in lines if not line.startswith("#")]
    first_ray = next(n for n, line in enumerate(code) if line.startswith("ray start"))
    assert any("RAY_AUTH_MODE=token" in line for line in code[:first_ray])
    assert not any("ray stop" in line for line in code)
    assert sum("ray start" in line and "--block" in line for line in code) == 2


DEFINITION: dict[str, Any] = {
    "spec": {
        "group": "ray.io",
        "names": {"kind": "RayJob"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "backoffLimit": {"type": "integer"},
                                    "cpu": {"x-kubernetes-int-or-string": True},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                },
                            },
                        },
                    }
                },
            }
        ],
    }
}


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"backoffLimit": 3, "cpu": "500m", "labels": {"any": "thing"}}, []),
        ({"cpu": 2}, []),
        ({"backofLimit": 3}, ["spec: Additional properties are not allowed ('backofLimit' was unexpected)"]),
        ({"backoffLimit": "many"}, ["spec.backoffLimit: 'many' is not of type 'integer'"]),
    ],
)
def test_a_manifest_is_checked_against_the_definition_of_its_kind(spec: dict[str, Any], found: list[str]) -> None:
    from check_manifest import problems

    manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "x"}, "spec": spec}
    assert problems(manifest, DEFINITION) == found
    assert problems({**manifest, "kind": "RayCluster"}, DEFINITION) == [
        "the definition is not that of RayCluster in ray.io"
    ]
