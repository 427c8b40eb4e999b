"""Who can reach a Ray that we start, and which clusters are refused."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, timeout=240
    )


LOCAL = """
import os
from pathlib import Path
from synth.executors import head, ray as cluster
from tests.faults import children
def listening():
    "The addresses that this process and its children listen on, as the kernel writes them."
    sockets = set()
    for pid in [os.getpid(), *children(os.getpid())]:
        try:
            sockets |= {os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                yield fields[1].rpartition(":")[0]
before = dict(os.environ)
with cluster.connected("local", cluster.Workers(count=1)):
    import ray
    token, gcs = os.environ["RAY_AUTH_TOKEN"], ray.get_runtime_context().gcs_address
    print("listening", *sorted(set(listening())))
    print("open", head.lets_anybody_in(gcs))
print("clean", all(before.get(n) == os.environ.get(n) for n in cluster.AUTHENTICATION))
"""


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_only_and_requires_a_token() -> None:
    done = run_python(LOCAL)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(said["listening"].split()) <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}, (
        said
    )
    assert said["open"] == "False"
    assert said["clean"] == "True"


@contextmanager
def head(folder: Path, **environment: str) -> Iterator[str]:
    """A cluster's head that listens on all addresses of this machine. Yields its address."""
    code = (
        "import sys, os\n"
        "from ray.cluster_utils import Cluster\n"
        "c = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "print(c.address, flush=True)\n"
        "sys.stdin.read()\n"
        "c.shutdown()\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**kept, "RAY_USAGE_STATS_ENABLED": "0", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = next(line.strip() for line in process.stdout if re.fullmatch(r"[0-9.]+:\d+\s*", line))
        if address.startswith("127."):
            pytest.skip("this machine has no address but loopback")
        yield address
    finally:
        process.stdin.close()
        process.wait(60)


CONNECT = """
import sys
from synth.executors import ray as cluster
from synth.basics.errors import UserError
try:
    with cluster.connected(sys.argv[1], cluster.Workers(), insecure="--insecure" in sys.argv):
        print("in")
except UserError as error:
    print(error)
"""


def connect(address: str, *options: str, **environment: str) -> str:
    code = f"import sys; sys.argv[1:] = {[address, *options]!r}\n{CONNECT}"
    return run_python(code, **environment).stdout


@pytest.mark.long
def test_an_open_cluster_is_refused_without_insecure(tmp_path: Path) -> None:
    with head(tmp_path, RAY_AUTH_MODE="disabled") as address:
        assert "does not require an authentication token" in connect(address, RAY_AUTH_MODE="disabled")
        assert connect(address, "--insecure", RAY_AUTH_MODE="disabled") == "in\n"


@pytest.mark.long
def test_a_client_without_the_token_is_refused(tmp_path: Path) -> None:
    token = secrets.token_hex(32)
    nobody = {"HOME": str(tmp_path)}
    with head(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) as address:
        assert connect(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == "in\n"
        for wrong in ({"RAY_AUTH_MODE": "disabled", **nobody}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}):
            assert "requires another token: set RAY_AUTH_MODE=token" in connect(address, **wrong)
