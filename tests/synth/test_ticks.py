"""How far a piece of work is, heard from inside it."""

import threading

import pytest

from synth.basics.ticks import listening, stage, stages, tick, unheard


def test_parts_of_the_work_share_the_range_of_the_whole() -> None:
    heard: list[float] = []
    with listening(lambda share, show: heard.append(share)):
        with stage(0, 0.5):
            for _ in stages(["first batch", "second batch"]):
                tick(1, 2)
                tick(2, 2)
        tick(1, 1)
    assert heard == [0.125, 0.25, 0.375, 0.5, 1.0]


def test_nobody_need_listen() -> None:
    with stage(0, 0.5):
        assert [number for number in stages(range(3)) if tick(1, 2) is None] == [0, 1, 2]


def test_longer_parts_take_more_of_the_range_and_a_rehearsal_none() -> None:
    heard: list[float] = []
    with listening(lambda share, show: heard.append(share)):
        for _ in stages("ab", [1, 3]):
            tick(1, 1)
            with unheard():
                tick(1, 2)
    assert heard == [0.25, 1.0]


@pytest.mark.parametrize("broken_off", [False, True])
def test_a_part_that_ends_early_leaves_the_range_as_it_was(broken_off: bool) -> None:
    heard: list[float] = []
    with listening(lambda share, show: heard.append(share)):
        try:
            for number in stages(range(4)):
                if number == 1 and broken_off:
                    raise ValueError
                if number == 1:
                    break
        except ValueError:
            pass
        tick(1, 2)
    assert heard == [0.5]


def test_another_thread_is_not_heard() -> None:
    heard: list[float] = []
    with listening(lambda share, show: heard.append(share)):
        thread = threading.Thread(target=tick, args=(1, 2))
        thread.start()
        thread.join()
    assert heard == []
