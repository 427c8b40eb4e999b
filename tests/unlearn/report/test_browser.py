"""The page in headless Chromium: it renders, writes nothing on the console, sends no request, and prints."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")


def chromium(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    switches = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path}/profile",
    ]
    command = [BROWSER, *switches, "--enable-logging=stderr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture
def report(page_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(page_path, tmp_path / "report.html"))


@pytest.fixture
def proxy() -> Iterator[tuple[int, list[str]]]:
    """A proxy for every request of the browser. It answers with 404 and remembers the request."""
    asked: list[str] = []

    class Remember(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_POST = do_CONNECT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Remember)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_the_page_renders_without_a_line_on_the_console_or_a_request(
    report: Path, tmp_path: Path, proxy: tuple[int, list[str]]
) -> None:
    port, asked = proxy
    done = chromium(tmp_path, f"--proxy-server=127.0.0.1:{port}", "--dump-dom", report.as_uri())
    assert "What is left of class 0?" in done.stdout
    assert len(re.findall("<svg", done.stdout)) >= 5
    assert console(done) == []
    own = [path for path in asked if not re.search(r"google|gstatic|chromium|gvt1", path)]  # the browser's own requests
    assert own == []


def test_a_line_on_the_console_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text("<script>console.error('heard')</script>")
    assert len(console(chromium(tmp_path, "--dump-dom", (tmp_path / "loud.html").as_uri()))) == 1


def test_the_page_fits_a_narrow_screen(report: Path, tmp_path: Path) -> None:
    """The page inside a frame of a phone's size reports its own width."""
    probe = (
        f'<iframe id="f" src="{report.as_uri()}" style="width:380px;height:700px;border:0"></iframe>'
        "<script>f.onload=()=>{const d=f.contentDocument.documentElement;"
        "document.title=d.scrollWidth+' '+d.clientWidth}</script>"
    )
    (tmp_path / "phone.html").write_text(probe)
    done = chromium(
        tmp_path,
        "--allow-file-access-from-files",
        "--dump-dom",
        "--virtual-time-budget=4000",
        (tmp_path / "phone.html").as_uri(),
    )
    widths = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert widths is not None
    assert int(widths[1]) <= int(widths[2])


def test_the_page_prints(report: Path, tmp_path: Path) -> None:
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}", report.as_uri())
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 2
