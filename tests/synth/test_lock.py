"""The lock of a run: whose it is, who may take it over, and how its holder learns of that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synth.basics.errors import UserError
from synth.basics.way_on import WayOn
from synth.run.holder import process_facts
from synth.run.lock import (
    LARGEST_LOCK,
    LOCK,
    Lock,
    LostLockError,
    claim_name,
    is_lock,
    locked,
    locked_file,
    refuse_held,
)
from synth.shards.store import Folder
from tests.faults import wait_until

WAY_ON = WayOn(command="synth generate")


def quiet(line: str) -> None:
    """Takes a line for a person and drops it."""


def lock_of_a_dead_process(store: Folder, **changes: object) -> bytes:
    """Write a lock whose process is gone, and return its content."""
    dead = Lock(store, WAY_ON)
    dead.facts.update(changes or {"pid": 2**22 + 1})
    store.write(LOCK, dead.to_bytes())
    return dead.to_bytes()


def test_a_lock_of_another_machine_holds_while_it_is_renewed(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    other = Lock(store, WAY_ON)
    other.facts.update(machine="elsewhere", host="far")
    store.write_new(LOCK, other.to_bytes())
    said: list[str] = []

    def beat(line: str) -> None:
        said.append(line)
        other.beats += 1
        store.write(LOCK, other.to_bytes())

    with (
        pytest.raises(UserError, match=r"'synth generate' \(process \d+ on far\) is working on"),
        locked(store, WAY_ON, beat, patience=5.0),
    ):
        pass
    with locked(store, WAY_ON, said.append, patience=0.2):  # it is not renewed any more
        assert "elsewhere" not in store.read(LOCK, 2**20).decode()
    assert store.names() == set()
    assert "waiting" in said[0]


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"begun": "1"}], ids=["no such process", "reused number"])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path, changes: dict[str, object]) -> None:
    store = Folder(tmp_path)
    lock_of_a_dead_process(store, **changes)
    with locked(store, WAY_ON, quiet) as lock:
        lock.check()
        assert store.names() == {LOCK}
    assert store.names() == set()
    assert process_facts(os.getpid())["begun"] is not None


class Rivalled(Folder):
    """A store through which one driver works; a rival comes and takes the lock right after its nth look at the lock."""

    def __init__(self, path: Path, nth: int) -> None:
        super().__init__(path)
        self.looks_left, self.rival_won = nth, False
        self.rival = Lock(Folder(path), WAY_ON)

    def read(self, name: str, largest: int) -> bytes:
        found = super().read(name, largest)
        if name == LOCK:
            self.looks_left -= 1
            if self.looks_left == 0:
                self.let_the_rival_try()
        return found

    def let_the_rival_try(self) -> None:
        from synth.run.lock import acquire

        try:
            acquire(self.rival, LOCK, quiet, patience=0.2)
        except UserError:
            return
        self.rival_won = True


@pytest.mark.parametrize("nth", [1, 2])
def test_of_two_drivers_that_find_a_dead_lock_one_takes_the_run_over(tmp_path: Path, nth: int) -> None:
    lock_of_a_dead_process(Folder(tmp_path))
    store = Rivalled(tmp_path, nth)
    won = True
    try:
        with locked(store, WAY_ON, quiet, patience=0.2) as lock:
            assert store.read(LOCK, 2**20) == lock.to_bytes()
    except UserError:
        won = False
    assert store.looks_left <= 0
    assert [won, store.rival_won].count(True) == 1


def test_a_driver_that_died_during_a_takeover_blocks_nobody(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    dead = lock_of_a_dead_process(store)
    claim = Lock(store, WAY_ON)
    claim.facts["pid"] = 2**22 + 2
    store.write(claim_name(LOCK, dead), claim.to_bytes())
    with locked(store, WAY_ON, quiet) as lock:
        lock.check()
    assert store.names() == set()


def test_an_empty_lock_is_taken_over_if_it_stays_empty(tmp_path: Path) -> None:
    store, said = Folder(tmp_path), []
    store.write(LOCK, b"")
    with locked(store, WAY_ON, said.append, patience=0.2) as lock:
        lock.check()
    assert said[0] == f"an unknown process has locked {tmp_path}: waiting 0.2 s to see whether it still works"


def test_an_empty_lock_belongs_to_the_driver_that_is_writing_it(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    store.write(LOCK, b"")
    other = Lock(store, WAY_ON)
    with (
        pytest.raises(UserError, match=r"'synth generate' \(process"),
        locked(store, WAY_ON, lambda line: store.write(LOCK, other.to_bytes()), patience=5.0),
    ):
        pass
    assert store.read(LOCK, 2**20) == other.to_bytes()


def test_a_driver_whose_run_was_taken_over_stops(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    other = Lock(store, WAY_ON)

    def other_writes() -> bool:  # again and again, because the first driver may be about to write as well
        store.write(LOCK, other.to_bytes())
        return lock.lost

    with locked(store, WAY_ON, quiet, beat=0.01) as lock:
        wait_until(other_writes, "the loss to be seen")
        with pytest.raises(LostLockError, match="has taken over"):
            lock.check()
    assert store.names() == {LOCK}


def test_a_driver_whose_lock_is_not_renewed_any_more_stops(tmp_path: Path) -> None:
    class Broken(Folder):
        def write(self, name: str, data: bytes) -> None:
            raise ValueError("a fault of the store's own")

    with locked(Broken(tmp_path), WAY_ON, quiet, beat=0.01) as lock:
        assert lock.keeper is not None
        wait_until(lock.keeper.done, "the end of the renewals")
        with pytest.raises(LostLockError, match=r"could not be renewed \(ValueError: a fault .* --resume"):
            lock.check()
    assert Folder(tmp_path).names() == set()


def test_a_store_that_is_out_of_reach_for_a_while_costs_no_lock(tmp_path: Path) -> None:
    class Away(Folder):
        failures = 3

        def write(self, name: str, data: bytes) -> None:
            if self.failures:
                self.failures -= 1
                raise UserError("the storage is down")
            super().write(name, data)

    store = Away(tmp_path)
    with locked(store, WAY_ON, quiet, beat=0.01) as lock:
        wait_until(lambda: b'"beats": 5' in store.read(LOCK, 2**20), "beats after the failures")
        lock.check()


def test_a_driver_whose_lock_was_removed_says_so(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    with locked(store, WAY_ON, quiet, beat=0.01) as lock:
        store.remove(LOCK)
        wait_until(lambda: lock.lost is not None, "the loss to be seen")
        words = f"{tmp_path} or its lock was removed meanwhile: go on with the same command and --resume"
        with pytest.raises(LostLockError, match=words):
            lock.check()


def test_words_of_a_foreign_lock_are_fit_for_a_terminal(tmp_path: Path) -> None:
    store, said = Folder(tmp_path), []
    other = Lock(store, WAY_ON)
    other.facts.update(machine="elsewhere", pid="\x1b[2J", host="\x1b]0;owned\x07", command="a\nb\x9b" + 300 * "x")
    store.write(LOCK, other.to_bytes())
    with locked(store, WAY_ON, said.append, patience=0.1):
        pass
    assert said[0].isprintable()
    assert len(said[0]) < 500


def test_a_file_and_its_folder_have_locks_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "new" / "teacher.safetensors"
    with locked_file(path, WAY_ON, quiet), locked(Folder(path.parent), WAY_ON, quiet):
        assert {entry.name for entry in path.parent.iterdir()} == {LOCK, ".teacher.safetensors.lock"}
        with pytest.raises(UserError, match=f"is working on {path}: wait"), locked_file(path, WAY_ON, quiet):
            pass
    assert list(path.parent.iterdir()) == []


def test_a_live_lock_is_refused_without_a_write_and_a_dead_one_is_not(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    refuse_held(store)
    lock_of_a_dead_process(store)
    refuse_held(store)
    with locked(store, WAY_ON, quiet):
        before = store.read(LOCK, LARGEST_LOCK)
        with pytest.raises(UserError, match=rf"process {os.getpid()} on .*\) is working on {tmp_path}"):
            refuse_held(store)
        assert store.read(LOCK, LARGEST_LOCK) == before
    assert is_lock(claim_name(LOCK, before))
