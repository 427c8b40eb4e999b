"""An audit that is interrupted goes on from its kept results, and only from results of the same inputs."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synth.basics.errors import InterruptedRunError, UsageError, UserError
from synth.basics.way_on import WayOn
from synth.run.lock import LOCK, locked
from synth.shards.store import Folder
from tests.runs import digests
from unlearn.auditing.audit import Request, audit, audit_each
from unlearn.auditing.audit_folder import AUDIT, INPUTS, PICTURES, RESULTS, TIMING, AuditFolder, is_plain
from unlearn.auditing.measures import membership, probe, relearn, resurrection
from unlearn.auditing.record.schema import read_record
from unlearn.commands.main import main
from unlearn.run.folder import CHECKPOINT

from .subjects import SMALL, request_for

FEW = dataclasses.replace(SMALL, repeats=2, draws=2, relearn_labels="5", relearn_steps=3, probe_labels="1")
QUICK = dataclasses.replace(FEW, inversion_steps=1, inversion_images=2)
EXPERIMENTS = {"relearn": relearn, "probe": probe, "told_apart": membership, "invert_model": resurrection}
WAY_ON = WayOn(command="unlearn audit")


def quiet(line: str) -> None:
    """Takes a line for a person and drops it."""


def counted(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None] = lambda inversions: None) -> dict[str, int]:
    """How often each kind of experiment ran. `fault` hears of the number of inversions before each of them."""
    counts = dict.fromkeys(EXPERIMENTS, 0)

    def count(name: str, experiment: Any) -> Any:
        def run(*given: Any) -> Any:
            if name == "invert_model":
                fault(counts[name])
            counts[name] += 1
            return experiment(*given)

        return run

    for name, module in EXPERIMENTS.items():
        monkeypatch.setattr(module, name, count(name, getattr(module, name)))
    return counts


def test_an_interrupted_audit_goes_on_with_what_it_kept_and_has_the_record_of_one_without_interruption(
    models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(out: str, **changes: Any) -> Request:
        return request_for(models, models["first"], tmp_path / out, references=(), settings=QUICK, workers=1, **changes)

    def interrupt(inversions: int) -> None:
        if inversions == 3:
            raise KeyboardInterrupt

    flush = os.fsync

    def fill(descriptor: int) -> None:
        if parts[0]["probe"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        every = counted(patch)
        whole = audit(ask("whole"), quiet)
    parts: list[dict[str, int]] = []
    with monkeypatch.context() as patch:
        parts.append(counted(patch))
        patch.setattr(os, "fsync", fill)
        with pytest.raises(UserError, match="is full: free some space and go on with the same command and --resume"):
            audit(ask("broken"), quiet)
    with monkeypatch.context() as patch:
        parts.append(counted(patch, interrupt))
        with pytest.raises(InterruptedRunError, match=r"kept in .*broken; go on with the same command and --resume"):
            audit(ask("broken", resume=True), quiet)
    kept = {path.name for path in (tmp_path / "broken").iterdir()}
    assert kept == {INPUTS, CHECKPOINT}
    with pytest.raises(UsageError, match=r"already holds files .*: go on with --resume, replace them with --overwrite"):
        audit(ask("broken"), quiet)
    with monkeypatch.context() as patch:
        parts.append(counted(patch))
        resumed = audit(ask("broken", resume=True), quiet)
    elsewhere = {"request": None, "origin": None}
    assert {**resumed, **elsewhere} == {**whole, **elsewhere}
    # The first result of the probe could not be kept on the full disk, so it was measured twice. Nothing else was.
    assert parts[0] == {**dict.fromkeys(every, 0), "probe": 1}
    assert parts[1] == {**every, "invert_model": 3}
    assert parts[2] == {**dict.fromkeys(every, 0), "invert_model": every["invert_model"] - 3}
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {AUDIT, TIMING, PICTURES, INPUTS, RESULTS}


def test_a_complete_audit_is_left_as_it_is(models: Mapping[str, Path], audited: Path, tmp_path: Path) -> None:
    copied, said = tmp_path / "audit", []
    shutil.copytree(audited, copied)
    before = digests(copied / PICTURES)
    request = request_for(models, models["first"], copied, resume=True)
    assert audit(request, said.append) == read_record(audited / AUDIT)
    assert said[-1] == f"{copied} is complete already"
    assert digests(copied / PICTURES) == before
    with pytest.raises(UsageError, match=r"was begun with seed 0, not 1: resume it with its own options, start again"):
        audit(dataclasses.replace(request, seed=1), said.append)
    with pytest.raises(UsageError, match="--resume and --overwrite exclude each other"):
        audit(dataclasses.replace(request, overwrite=True), said.append)


def test_one_more_student_beside_a_complete_audit_costs_only_its_own_experiments(
    models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(name: str, out: Path, **changes: Any) -> Request:
        return request_for(
            models, models[name], out, references=(models["third"],), settings=QUICK, workers=1, **changes
        )

    audit(ask("first", tmp_path / "audits" / "first"), quiet)
    before = digests_of_files(tmp_path / "audits" / "first")
    with monkeypatch.context() as patch:
        alone = counted(patch)
        single = audit(ask("second", tmp_path / "single"), quiet)
    with monkeypatch.context() as patch:
        beside = counted(patch)
        both = [ask(name, tmp_path / "audits" / name, resume=True) for name in ("first", "second")]
        _, added = audit_each(both, quiet)
    assert added == single
    assert digests(tmp_path / "audits" / "second" / PICTURES) == digests(tmp_path / "single" / PICTURES)
    assert digests_of_files(tmp_path / "audits" / "first") == before
    subjects = 5  # original, masked logit, the student, one retrained and one random
    assert {name: count * subjects for name, count in beside.items() if name != "relearn"} == {
        name: count for name, count in alone.items() if name != "relearn"
    }
    assert 0 < beside["relearn"] < alone["relearn"] / 3  # a masked logit shares the original's curves from its class


@pytest.mark.parametrize("name", ["teacher", "reference 2", "real images", "version of torch", "code of relearn"])
def test_results_of_other_inputs_are_never_taken_over(tmp_path: Path, name: str) -> None:
    inputs = {"seed": 0, name: "a"}
    first, second = (AuditFolder(tmp_path, WAY_ON) for _ in range(2))
    with locked(first.store, WAY_ON, quiet) as lock:
        first.begin(lock, inputs)
        first.keep("probe-1", {("original", 0, 0): 50.0}, finished=True)
        before = digests(tmp_path)
        with pytest.raises(UsageError, match=f"was begun with {name} a, not b: resume it with its own options"):
            second.begin(lock, {**inputs, name: "b"}, resume=True)
        assert digests(tmp_path) == before
        second.begin(lock, inputs, resume=True)
    assert second.results == {"probe-1": {("original", 0, 0): 50.0}}


@pytest.mark.parametrize("file", [INPUTS, CHECKPOINT, RESULTS])
@pytest.mark.parametrize("content", [b"", b"[1]", b"PK\x03\x04nonsense", b"null"])
def test_a_damaged_file_of_an_audit_is_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    folder = AuditFolder(tmp_path, WAY_ON)
    with locked(folder.store, WAY_ON, quiet) as lock:
        folder.begin(lock, {"seed": 0})
        if file == RESULTS:
            folder.write({}, {}, {})
        (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match=f"{file} is damaged: start the run again with --overwrite"):
            AuditFolder(tmp_path, WAY_ON).begin(lock, {"seed": 0}, resume=True)


def test_results_that_only_running_code_could_read_back_are_not_kept(tmp_path: Path) -> None:
    folder = AuditFolder(tmp_path, WAY_ON)
    with locked(folder.store, WAY_ON, quiet) as lock:
        folder.begin(lock, {})
        folder.keep("added", {("original", 0, 0): Path("x")}, finished=True)
        folder.keep("probe", {("original", 0, 0): ((1.0, 2), "text")}, finished=True)
        again = AuditFolder(tmp_path, WAY_ON)
        again.begin(lock, {}, resume=True)
    assert again.results == {"probe": {("original", 0, 0): ((1.0, 2), "text")}}
    assert not is_plain([{}])


def test_a_second_audit_of_a_folder_is_refused_before_any_work(
    models: Mapping[str, Path], audited: Path, tmp_path: Path
) -> None:
    shutil.copytree(audited, tmp_path / "audit")
    with locked(Folder(tmp_path / "audit"), WAY_ON, quiet):
        before = digests_of_files(tmp_path / "audit")
        for changes in ({}, {"resume": True}, {"overwrite": True}):
            request = request_for(models, tmp_path / "no student is read", tmp_path / "audit", **changes)
            words = rf"'unlearn audit' \(process {os.getpid()} on .*\) is working on .*: wait for it, end it, or choose"
            with pytest.raises(UserError, match=words):
                audit(request, quiet)
        assert digests_of_files(tmp_path / "audit") == before
    assert not (tmp_path / "audit" / LOCK).exists()


def digests_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_report_on_a_full_disk_does_not_advise_to_resume_it(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    done = CliRunner().invoke(main, ["report", str(audited), "-o", str(tmp_path / "page.html")])
    assert done.exit_code == 1
    assert done.stderr.endswith("page.html: the disk is full: free some space and start the same command again\n")
    assert list(tmp_path.iterdir()) == []
