"""Both cluster files pass Ray's own checks, and keep what makes a cluster safe."""

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


def test_nobody_gets_in_without_the_token(cluster: dict[str, Any]) -> None:
    starts = [c for c in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    for start in starts:
        assert "RAY_AUTH_MODE=token" in start
        assert "RAY_grpc_client_keepalive_time_ms=10000" in start
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any("chmod 600 ~/.ray/auth_token" in c or "install -m 600" in c for c in cluster["setup_commands"])


def test_every_machine_of_aws_has_the_image_that_was_chosen() -> None:
    """Ray's default is an Ubuntu 18.04 with Python 3.6."""
    types = yaml.safe_load(FILES[0].read_text())["available_node_types"].values()
    assert len({kind["node_config"]["ImageId"] for kind in types}) == 1


def test_as_many_workers_are_asked_for_as_machines_may_be_rented() -> None:
    aws = yaml.safe_load(FILES[0].read_text())
    assert any(f"SYNTH_WORKERS={aws['max_workers']}'" in command for command in aws["setup_commands"])
    assert "max_workers" not in aws["available_node_types"]["gpu"]  # the cluster's own


def test_later_edits_reach_a_machine_that_is_set_up_already(cluster: dict[str, Any], tmp_path: Path) -> None:
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


def test_three_places_to_edit_and_no_worker_on_the_head() -> None:
    for path in FILES:
        assert [f"EDIT {n}" in path.read_text() for n in (1, 2, 3, 4)] == [True, True, True, False]
    aws, local = (yaml.safe_load(path.read_text()) for path in FILES)
    assert aws["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in local["head_start_ray_commands"])
