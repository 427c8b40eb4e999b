"""The files a person runs or edits."""

import ast
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", ["demo", "test", "pictures", "install.sh"])
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "scripts" / script], check=True)


def test_ci_runs_the_tests() -> None:
    assert "exec scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_the_cluster_file_is_one_that_ray_accepts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert any("--dashboard-host=127.0.0.1" in command for command in starts)


@pytest.mark.parametrize("script", ["reproduce", "bench-cluster"])
def test_python_scripts_parse(script: str) -> None:
    ast.parse((ROOT / "scripts" / script).read_text())


@pytest.mark.long
def test_the_demo_runs_from_end_to_end() -> None:
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, check=True)
    rows = {
        line.split()[0]: line.split()[1:]
        for line in done.stdout.splitlines()
        if line.startswith(("original", "re", "un"))
    }
    assert float(rows["original"][0]) > 95
    assert rows["unlearned"][1] == "0.00"
    assert (ROOT / "runs" / "demo" / "grid.png").exists()
