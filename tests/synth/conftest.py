"""What tests of a command line need."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def default_signals() -> Iterator[None]:
    """The command lines take SIGTERM for Ctrl-C; the tests' own process gets its handler back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], default_signals: None) -> Run:
    """`synth ...` in this process: its exit code, stdout and stderr."""
    from synth.commands.main import main

    def synth(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main([str(argument) for argument in arguments], prog_name="synth")
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return synth
