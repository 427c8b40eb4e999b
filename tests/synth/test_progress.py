import io

import pytest

from synth.basics import progress
from synth.basics.progress import Progress, format_seconds
from synth.commands.printing import say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds; a test moves it on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_soon_then_every_half_minute_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress(total=2000, unit="images", stream=stream)
    for _ in range(50):
        clock[0] += 1
        bar.advance(40)
    bar.close()
    assert stream.getvalue().splitlines() == [
        "200 of 2,000 images (10%), 40.0/s, 45 s left",
        "1,400 of 2,000 images (70%), 40.0/s, 15 s left",
        "2,000 of 2,000 images (100%), 40.0/s, 0 s left",
    ]


def test_pieces_in_work_count_towards_the_share_and_the_time_left(clock: list[float]) -> None:
    bar = Progress(total=1000, unit="images", stream=io.StringIO())
    clock[0] += 100
    bar.advance(0, in_work=0.5)
    assert bar.line(clock[0]) == "0 of 1,000 images (0.1%), time left not known yet"
    clock[0] += 100
    bar.advance(0, in_work=3)  # the first step, which was slow, does not count
    assert bar.line(clock[0]) == "3 of 1,000 images (0.3%), 1.5/min, 11 h 04 min left"
    clock[0] += 100
    bar.advance(500.5, in_work=0)
    assert bar.line(clock[0]) == "500 of 1,000 images (50%), 2.5/s, 3 min 20 s left"


def test_a_time_left_comes_soon_after_a_line_without_one(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress(total=100, unit="", stream=stream)
    for done in (1, 2, 3, 4, 5):
        clock[0] += 6
        bar.advance(0, in_work=done)
    assert stream.getvalue().splitlines() == ["1.0%, time left not known yet", "2.0%, 9 min 48 s left"]


def test_the_first_of_pieces_that_come_in_turn_does_not_tell_when_the_others_will(clock: list[float]) -> None:
    bar = Progress(total=750, unit="steps", in_turn=True, stream=io.StringIO())
    clock[0] += 50
    bar.advance(1)  # reads the shards, too
    assert bar.line(clock[0]) == "1 of 750 steps (0.1%), time left not known yet"
    clock[0] += 1
    bar.advance(1)
    assert bar.line(clock[0]) == "2 of 750 steps (0.3%), 1.0/s, 12 min 28 s left"
    alone = Progress(total=1, unit="steps", in_turn=True, stream=io.StringIO())
    clock[0] += 50
    alone.advance(1)
    assert alone.line(clock[0]) == "1 of 1 steps (100%), 0 s left"


def test_nothing_done_yet_gives_no_time_left(clock: list[float]) -> None:
    clock[0] += 60
    assert Progress(total=10, stream=io.StringIO()).line(clock[0]) == ("0 of 10 samples (0%), time left not known yet")


def test_a_part_of_a_longer_job_shows_nothing_if_it_is_short_and_leaves_nothing_on_a_terminal(
    clock: list[float],
) -> None:
    stream = Terminal()
    short = Progress(total=2, unit="", words="a part", passing=True, stream=stream)
    short.advance(2)
    short.close()
    assert stream.getvalue() == ""
    long = Progress(total=2, unit="", words="a part", passing=True, stream=stream)
    clock[0] += 10
    long.advance(1)
    long.close()
    assert stream.getvalue() == "\r\x1b[Ka part: 50%, 10 s left\r\x1b[K"


def test_other_lines_on_a_terminal_take_the_place_of_the_progress(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Terminal()
    bar = Progress(total=4, stream=stream)
    bar.advance(1)
    say("epoch 1")
    assert stream.getvalue().endswith("\r\x1b[K")
    assert capsys.readouterr().out == "epoch 1\n"
    bar.advance(1)
    assert "2 of 4 samples" in stream.getvalue()
    bar.close()
    say("the end")
    assert stream.getvalue().endswith("\n")


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
        (270_000, "3 days 03 h"),
    ],
)
def test_seconds_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
