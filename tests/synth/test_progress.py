import io

import pytest

from synth.basics import progress
from synth.basics.progress import Progress, format_seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds; a test moves it on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_every_ten_seconds_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress(total=1000, unit="images", stream=stream)
    for _ in range(25):
        clock[0] += 1
        bar.advance(40)
    bar.close()
    assert stream.getvalue().splitlines() == [
        "400 of 1,000 images (40%), 40.0/s, 15 s left",
        "800 of 1,000 images (80%), 40.0/s, 5 s left",
        "1,000 of 1,000 images (100%), 40.0/s, 0 s left",
    ]


def test_samples_from_before_the_start_do_not_count_towards_the_rate(clock: list[float]) -> None:
    bar = Progress(total=1000, done=900, stream=io.StringIO())
    clock[0] += 10
    bar.advance(50)
    assert bar.line(clock[0]) == "950 of 1,000 samples (95%), 5.0/s, 10 s left"


def test_a_terminal_gets_one_line_that_is_rewritten(clock: list[float]) -> None:
    stream = Terminal()
    bar = Progress(total=4, stream=stream)
    for _ in range(2):
        clock[0] += 1
        bar.advance(1)
    bar.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r\x1b[K") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7627, "2 h 07 min"),
    ],
)
def test_seconds_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
