"""The S3 server of the tests, and a proxy in front of it that misbehaves on demand."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FORWARDED = ("content-length", "content-type", "etag", "last-modified", "x-amz-request-id")


CANNED = {
    "unavailable": (503, b"<Error><Code>ServiceUnavailable</Code></Error>"),
    "no bucket": (404, b"<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>"),
    "denied": (403, b"<Error><Code>AccessDenied</Code><Message>denied</Message></Error>"),
}


class FaultyProxy(ThreadingHTTPServer):
    """Forwards calls to the server at `port`.

    `fault` gets the number of each call and returns how to spoil it; "" for not. `received` counts the bytes that came
    with the calls, without headers.
    """

    daemon_threads = True

    def __init__(self, port: int, fault: Callable[[int], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = port
        self.fault = fault
        self.calls = itertools.count(1)
        self.spoiled: list[str] = []
        self.received = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self) -> str:
        wrong = self.fault(next(self.calls))
        if wrong:
            self.spoiled.append(wrong)
        return wrong

    def handle_error(self, *_: object) -> None:
        """Report nothing: a client may hang up."""

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Spoils a call as the proxy's fault demands, or forwards it."""

    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.received += len(body)
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
        """Log nothing."""
