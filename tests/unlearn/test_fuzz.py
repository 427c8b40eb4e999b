"""Every reader of files from elsewhere reads a mutated file, or refuses it in one line. `scripts/fuzz` runs it long."""

import ctypes
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from synth.basics.errors import UserError
from tests.fuzzing import watch
from tests.fuzzing.campaign import Campaign
from tests.fuzzing.readers import Reader, readers

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
SHARE = 700  # inputs in the suite, of the 100,000 that scripts/fuzz reads


@pytest.fixture(scope="module")
def found(tiny_teacher_path: Path, tiny_run: Path, audited: Path, page_path: Path) -> list[Reader]:
    return readers(tiny_teacher_path, tiny_run, audited, page_path)


def test_no_mutated_file_does_more_than_end_in_one_line(found: list[Reader], tmp_path: Path) -> None:
    campaign = Campaign(found, 0, tmp_path / "scratch", tmp_path / "kept")
    campaign.run(range(SHARE))
    assert campaign.faults == []
    tallies = campaign.tallies.values()
    assert sum(tally.inputs for tally in tallies) == SHARE
    assert all(0 < tally.refused < tally.inputs for tally in tallies if tally.inputs > 20), "it reads all, or nothing"


def test_the_same_number_is_the_same_input(found: list[Reader], tmp_path: Path) -> None:
    first, second = (Campaign(found, 3, tmp_path / name) for name in ("first", "second"))
    for number in range(30):
        (reader, name, data), other = first.input(number), second.input(number)
        assert (reader.name, name, data) == (other[0].name, *other[1:])


def write_outside(place: Path) -> None:
    (place.parents[1] / "owned").write_text("")


def remove_outside(place: Path) -> None:
    (place.parents[1] / "victim").unlink(missing_ok=True)


def use_again(place: Path) -> None:
    """Take memory that the allocator keeps for the next time, as it does with freed memory between two used blocks."""
    library = ctypes.CDLL(None)
    for threshold in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        getattr(library, "mallopt", lambda name, value: 0)(threshold, 2**30)
    len(b"1" * 2**27)


def take_time(place: Path) -> None:
    """As much of the processor's time on a quick machine as on a slow one."""
    begun = time.process_time()
    while time.process_time() - begun < 0.5:
        pass


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a traceback": (lambda place: {}["name"], "KeyError in"),
    "code that runs": (lambda place: os.system("true"), "touched something outside its folder"),
    "a program": (lambda place: subprocess.run(["true"]), "touched something outside its folder"),
    "a file elsewhere": (write_outside, "touched something outside its folder"),
    "a file removed elsewhere": (remove_outside, "touched something outside its folder"),
    "memory": (lambda place: len(b"1" * 2**27), "more than 1 GB"),
    "memory that is not used": (lambda place: len(bytearray(2**27)), "more than 1 GB"),
    "memory that is used again": (use_again, "more than 1 GB"),
    "time": (take_time, "more than a second"),
    "a process that dies": (lambda place: os.kill(os.getpid(), signal.SIGKILL), "the process died"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fuzz_test_notices(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MEMORY", 2**26)  # smaller bounds, so that the test is quick
    monkeypatch.setattr(watch, "SECONDS", 0.1)
    (tmp_path / "victim").write_text("")
    read, words = FAULTS[fault]

    def faulty(place: Path) -> None:
        if (place / "a").read_bytes() != b"valid":
            read(place)

    reader = Reader("faulty", [("a", b"valid")], [lambda data, rng: b"changed"], faulty)
    campaign = Campaign([reader], 0, tmp_path / "scratch", tmp_path / "kept")
    campaign.run(range(2))
    assert len(campaign.faults) == 1
    assert words in campaign.faults[0]
    assert "(2 inputs, such as 0, 1)" in campaign.faults[0]
    assert (tmp_path / "kept" / "0-faulty" / "a").read_bytes() == b"changed"


def test_what_is_refused_is_no_fault(tmp_path: Path) -> None:
    def refuse(place: Path) -> None:
        if (place / "a").read_bytes() != b"valid":
            raise UserError("it is damaged: make it again")

    reader = Reader("careful", [("a", b"valid")], [lambda data, rng: rng.randbytes(3)], refuse)
    campaign = Campaign([reader], random.Random(0).randrange(9), tmp_path / "scratch")
    campaign.run(range(5))
    assert campaign.faults == []
    assert campaign.tallies["careful"].refused == 5
