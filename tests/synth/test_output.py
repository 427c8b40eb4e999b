"""Standard output that cannot be written is one line on stderr, also where Python flushes it at its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from synth.commands.console import Console


def closed_pipe() -> int:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("command", ["synth", "unlearn"])
@pytest.mark.parametrize(("kind", "words"), [("full", "the device is full: free some space"), ("closed", "its reader")])
def test_output_that_cannot_be_written_is_one_line(command: str, kind: str, words: str) -> None:
    if kind == "full" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    output = os.open("/dev/full", os.O_WRONLY) if kind == "full" else closed_pipe()
    try:
        called = [sys.executable, "-m", command, "--help"]
        done = subprocess.run(called, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(output)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: standard output: {words}")


@pytest.mark.usefixtures("default_signals")
def test_output_to_a_file_is_flushed_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @click.group(cls=Console)
    def group() -> None:
        pass

    @group.command()
    def work() -> None:
        print("the first line")
        seen.append((tmp_path / "log").read_text())

    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        with pytest.raises(SystemExit) as ended:
            group.main(["work"], prog_name="it")
        assert sys.stdout is log
    assert (ended.value.code, seen) == (0, ["the first line\n"])
