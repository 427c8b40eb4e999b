"""A report from elsewhere asks for no more than a user would. What an audit or a report writes can be read again."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from synth.basics.errors import UserError
from synth.basics.way_on import WayOn
from synth.checkpoint.card import LARGEST_NOTES
from synth.checkpoint.file import SETTINGS, STUDENT, load_checkpoint
from synth.shards.store import open_store
from tests.runs import digits_card
from unlearn.auditing.audit import AUDIT, Request
from unlearn.auditing.record.origin import describe_origin
from unlearn.auditing.record.schema import read_record
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.report import write as writing
from unlearn.report.places import Places
from unlearn.report.replay import replay as replaying
from unlearn.report.replay.remake import run_request
from unlearn.report.replay.replay import replay
from unlearn.report.verify.checks import BROKEN
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report
from unlearn.run import carry_out
from unlearn.run.folder import METRICS, PROVENANCE, RunFolder
from unlearn.settings import LARGEST_SEED

Record = dict[str, Any]
LONG = "n" * (LARGEST_NOTES + 1)


def in_settings(**values: object) -> Callable[[Record], object]:
    return lambda record: record["settings"].update(values)


def changed(audited: Path, folder: Path, change: Callable[[Record], object]) -> Path:
    record = read_record(audited / AUDIT)
    change(record)
    (folder / AUDIT).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_settings(random_models=10**6), "random models must be at most 100, not 1000000"),
        (in_settings(repeats=10**9), "repeats must be at most 1,000, not"),
        (in_settings(draws=10**9), "draws must be at most 1,000, not"),
        (in_settings(relearn_steps=10**9), "relearn steps must be at most 100,000, not"),
        (in_settings(repeats="3"), "repeats must be a whole number, not '3'"),
        (in_settings(repeats=2.5), "repeats must be a whole number, not 2.5"),
        (in_settings(repeats=True), "repeats must be a whole number, not True"),
        (in_settings(relearn_lr=[0.1] * 100_000), "relearn lr must be a number, not "),
        (in_settings(relearn_labels=5), "relearn labels must be text"),
        (in_settings(relearn_labels=",".join(map(str, range(1, 200)))), "give at most 20"),
        (in_settings(relearn_labels="5,10000000"), "a label count above 1,000,000"),
        (in_settings(unknown=1), "unexpected keyword argument 'unknown'"),
        (lambda r: r.update(seed=2**63), "is not an audit record (at seed"),
        (lambda r: r.update(seed=2**70), "is not an audit record"),
        (lambda r: r["request"]["data"].update(image_size=10**9), "is not an audit record (at request/data/image_size"),
    ],
)
def test_a_replay_of_what_no_user_asks_for_is_refused_in_one_line(
    change: Callable[[Record], object], words: str, audited: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        replay(changed(audited, tmp_path, change), tmp_path / "again", Places(), None, None, 1, said.append)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert said == []
    assert not (tmp_path / "again").exists()


RUN = {"method": "distill", "forget": [0], "seed": 3, **dataclasses.asdict(DistillSettings())}


@pytest.mark.parametrize(
    "values",
    [
        *({"seed": seed} for seed in (2**70, LARGEST_SEED + 1, -1, "3", 1.5, None, True, [1])),
        *({"forget": forget} for forget in ([-1], ["0"], [0.5], [True], "0", 5, None, [[0]])),
        *({"steps": steps} for steps in (10**9, "5", 5.5, True)),
        *({"batch_size": 10**6}, {"lr": "fast"}, {"flip": "yes"}, {"shift": 10**9}, {"precision": 5}),
    ],
    ids=str,
)
def test_a_run_that_no_user_asks_for_is_not_made_again(values: Record, tmp_path: Path) -> None:
    model = {"architecture": "lenet5", "width": 0.5}
    assert run_request(RUN, model, tmp_path, "shards", None, tmp_path, "cpu").seed == 3
    with pytest.raises(UserError, match="the run's settings are not this version's"):
        run_request({**RUN, **values}, model, tmp_path, "shards", None, tmp_path, "cpu")


@pytest.mark.parametrize(
    "values",
    [{"student_arch": 5}, {"student_width": "2"}, {"student_width": 1e9}, {"window": 0}, {"window": "all"}],
    ids=str,
)
def test_a_student_that_no_user_asks_for_is_not_made_again(values: Record, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the run's settings are not this version's"):
        run_request({"method": "edit", "forget": [0], **values}, {}, tmp_path, "shards", None, tmp_path, "cpu")


def test_the_requests_of_python_are_held_to_the_same_bounds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"seed must be within 0 and 4,294,967,295, not 1180591620717411303424"):
        Request(student=tmp_path, teacher=tmp_path, forget=(0,), out=tmp_path, seed=2**70)
    with pytest.raises(ValueError, match="a class to forget must be 0 or more, not -1"):
        carry_out.Request(method="distill", settings=DistillSettings(), loop=LOOP, forget=(-1,), out=tmp_path)


def test_a_replay_says_first_what_it_will_do(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def no_audit(request: Request, say: Callable[[str], None]) -> Record:
        assert said, "the replay began before it said what it will do"
        return read_record(audited / AUDIT)

    monkeypatch.setattr(replaying, "audit", no_audit)
    replay(audited, tmp_path, Places(), None, None, 1, said.append)
    assert "2 retrained models and 1 random model, on cpu" in said[0]
    assert "2 relearning curves of 12 steps and a resurrection of 8 steps per model and repeat; 3 repeats" in said[1]
    assert "(not the defaults: draws 6, " in said[1]


def test_a_long_note_is_no_part_of_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="its facts about the training take 65,549 bytes, more than 65,536"):
        digits_card(training={"note": LONG})
    assert digits_card(training={"note": "n" * 1000})


def test_a_long_note_makes_no_page(audited: Path, tmp_path: Path) -> None:
    def note(record: Record) -> None:
        record["models"]["student"]["training"]["note"] = LONG

    with pytest.raises(UserError, match="it has a text of 65,537 characters, more than 65,536"):
        write_report(changed(audited, tmp_path, note), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_longest_note_makes_a_page_that_verify_reads(audited: Path, tmp_path: Path) -> None:
    def note(record: Record) -> None:
        record["not_run"] = [{"name": "a", "why": "<" * LARGEST_NOTES, "cure": "c"}]

    write_report(changed(audited, tmp_path, note), tmp_path / "page.html")
    broken = [check for check in verify(tmp_path / "page.html", Places()) if check.state == BROKEN]
    assert [check.what for check in broken if "page" in check.what] == []


def test_a_ledger_holds_nothing_but_row_numbers(audited: Path, tmp_path: Path) -> None:
    folder = changed(audited, tmp_path, lambda record: record["ledger"][0].update(rows="n" * 10**6))
    with pytest.raises(UserError, match="its ledger has rows that are no row numbers"):
        verify(folder, Places())


def test_a_page_that_verify_could_not_read_is_not_written(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LARGEST", 2**16)
    with pytest.raises(UserError, match="more than the 0 that 'unlearn verify' reads"):
        write_report(audited, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("place", [SETTINGS, PROVENANCE, METRICS])
def test_a_long_note_beside_a_student_stays_out_of_the_record(place: str, audited: Path, tmp_path: Path) -> None:
    student = Path(read_record(audited / AUDIT)["models"]["student"]["path"])
    (tmp_path / STUDENT).write_bytes(student.read_bytes())
    digest = load_checkpoint(student).digest
    files = {SETTINGS: {}, PROVENANCE: {"student_sha256": digest}, METRICS: {"step": 1}}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps({**content, **({"note": LONG} if name == place else {})}))
    found = describe_origin(tmp_path / STUDENT, digest, None)
    assert found["run"] is None
    assert "more than 65,536" in found["problems"][0]


@pytest.mark.parametrize("uri", ["a\0b", "file:///a\0b", "s3://a/b\0", "a\x1b[2Jb"])
def test_a_place_with_characters_that_cannot_be_printed_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="is not a place for a run: it has characters that cannot be printed") as caught:
        open_store(uri)
    assert str(caught.value).isprintable()


def test_metrics_that_are_damaged_do_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, WayOn(command="unlearn distill"))
    folder.begin({"seed": 0})
    folder.save_checkpoint({"step": 2, "weight": torch.zeros(1)})
    (tmp_path / METRICS).write_bytes(b'{"step": 1}\n{"st\xff\xfe\n{"step": 2}\n')
    assert folder.load_checkpoint() is not None
    assert (tmp_path / METRICS).read_text() == '{"step": 1}\n{"step": 2}\n'


def test_settings_of_a_run_are_those_of_its_request(tmp_path: Path) -> None:
    """The bounds refuse nothing that a run writes itself."""
    written = json.loads(json.dumps(RUN))
    assert isinstance(
        run_request(written, {"architecture": "lenet5", "width": 1}, tmp_path, "s", None, tmp_path, "cpu"),
        carry_out.Request,
    )
