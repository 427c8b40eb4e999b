"""A cluster of three hosts: `ray up`, a run with both workers, one of them switched off, `ray down`."""

from __future__ import annotations

import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from synth.shards.index import find_index
from synth.shards.store import Folder
from tests.faults import assert_whole, wait_until
from tests.lab import Host, lab

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
GENERATE = "synth generate --per-class 40 --shard-size 10 --views 0 --steps 60 --batch-size 50 --log-level info"
# Beside the checkpoint, in the folder that `ray up` copies to every host. It may not run anywhere.
HOSTILE = "from pathlib import Path\nPath.home().joinpath('numpy-ran').touch()\n"
DEADLINE = 150.0  # the most seconds between two shards while a host disappears


def cluster_file(hosts: dict[str, Host]) -> dict[str, Any]:
    """scripts/cluster-local.yaml with its three marked places edited, less memory, and one worker per host."""
    cluster = yaml.safe_load((ROOT / "scripts" / "cluster-local.yaml").read_text())
    workers = [hosts[name].address for name in ("one", "two")]
    cluster["provider"] |= {"head_ip": hosts["head"].address, "worker_ips": workers}
    cluster["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/key"}
    for kind, options in (("head", ""), ("worker", " --num-cpus=1")):
        commands = cluster[f"{kind}_start_ray_commands"]
        commands[-1] += f"{options} --object-store-memory=200000000"
    return cluster


def prepare_laptop(laptop: Host, cluster: dict[str, Any], teacher: Path) -> None:
    """Put the project's folder with a teacher onto the laptop."""
    project = laptop.folder / "root" / "project"
    project.mkdir()
    for name in ("synth", "unlearn"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, project)
    shutil.copy(teacher, project / "teacher.safetensors")
    (project / "numpy.py").write_text(HOSTILE)
    (project / "cluster.yaml").write_text(yaml.safe_dump(cluster))


def ok(host: Host, command: str, timeout: float = 300.0) -> str:
    done = host.run(command, timeout)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def published(head: Host) -> int:
    """The number of published shards, read from outside in the folder that is the head's home."""
    index = find_index(Folder(head.folder / "root" / "project" / "shards"))
    return len(index.entries) if index else 0


def made(log: Path) -> list[dict[str, Any]]:
    """The log line of each shard made, which has its node and time. The progress line is in the same file."""
    found = re.findall(r'\{"time": .*"event": "made".*\}', log.read_text(errors="replace"))
    return [json.loads(line) for line in found]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_host_is_switched_off_and_every_sample_is_published_once(tiny_teacher_path: Path, tmp_path: Path) -> None:
    with lab(["laptop", "head", "one", "two"], tmp_path) as hosts:
        laptop, head = hosts["laptop"], hosts["head"]
        prepare_laptop(laptop, cluster_file(hosts), tiny_teacher_path)
        ok(laptop, "cd project && ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
        ok(laptop, "cd project && mkdir -p -m 700 secrets && cp ~/.ray/auth_token secrets/")
        started = time.monotonic()
        ok(laptop, "cd project && ray up --yes --no-config-cache cluster.yaml", 400)
        print(f"ray up: {time.monotonic() - started:.0f} s")

        log = tmp_path / "generate.log"
        started = time.monotonic()
        run = laptop.start(f"cd project && ray exec cluster.yaml 'cd project && {GENERATE}'", log)
        wait_until(lambda: published(head) >= 16 or run.poll() is not None, "16 shards")
        assert run.poll() is None, log.read_text()[-4000:]
        before = {facts["node"] for facts in made(log)}
        hosts["two"].switch_off()
        off = time.monotonic()
        assert run.wait(400) == 0, log.read_text()[-4000:]
        nodes = [facts["node"] for facts in made(log)]
        print(
            f"generate: {time.monotonic() - started:.0f} s, {time.monotonic() - off:.0f} s of it after a host went off"
        )
        print({node[:8]: nodes.count(node) for node in set(nodes)})
        assert len(before) == 2
        assert len(nodes) == 40
        slowest = max(b["time"] - a["time"] for a, b in pairwise(made(log)))
        print(f"longest wait between two shards: {slowest:.0f} s")
        assert slowest < DEADLINE

        ok(laptop, "cd project && ray rsync-down cluster.yaml '~/project/shards/' shards/")
        assert_whole(laptop.folder / "root" / "project" / "shards", 400)
        assert token_of(laptop) not in log.read_text()
        assert [name for name, host in hosts.items() if (host.folder / "root" / "numpy-ran").exists()] == []
        ok(laptop, "cd project && ray down --yes cluster.yaml")
        for host in (head, hosts["one"]):  # the Ray of a worker ends within a minute after the head's
            wait_until(lambda h=host: h.run("pgrep -x raylet").returncode == 1, f"the end of Ray on {host.name}")


def token_of(host: Host) -> str:
    return (host.folder / "root" / ".ray" / "auth_token").read_text().strip()
