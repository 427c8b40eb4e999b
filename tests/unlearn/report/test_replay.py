import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import SETTINGS
from synth.shards.index import INDEX
from synth.shards.plan import Plan
from tests.runs import QUICK, make_run, recipe_for
from tests.unlearn.auditing.subjects import SMALL
from unlearn.auditing.audit import Request, audit
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.record.schema import read_record
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.report.places import Places, locate
from unlearn.report.replay import replay as replaying
from unlearn.report.replay.comparison import compare
from unlearn.report.replay.remake import remake, run_request
from unlearn.report.replay.replay import replay
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report
from unlearn.run import carry_out as runs
from unlearn.run.folder import PROVENANCE

quiet = lambda line: None  # noqa: E731


def test_a_replay_gives_the_same_bytes_whatever_the_number_of_workers(audited: Path, tmp_path: Path) -> None:
    found = replay(audited, tmp_path / "again", Places(), None, None, 1, quiet)
    assert found.agrees
    assert (found.equal, found.largest) == (found.measures, 0.0)
    assert (tmp_path / "again" / "audit" / AUDIT).read_bytes() == (audited / AUDIT).read_bytes()


def test_differences_are_named_and_judged(audited: Path) -> None:
    old, new = read_record(audited / AUDIT), read_record(audited / AUDIT)
    reading = new["measurements"][1]["readings"]["this model"]
    reading["values"][0][0] += 60
    reading["mean"] += 60
    new["verdict"]["conclusion"] = "not unlearned"
    found = compare(old, new)
    assert not found.agrees
    assert found.outside == ["accuracy-forget of this model"]
    assert (found.largest, found.where, found.equal) == (60, "accuracy-forget", found.measures - 1)
    assert found.conclusions == ("like retrained", "not unlearned")


def test_what_was_left_out_or_is_judged_in_another_way_is_named(audited: Path) -> None:
    old, new = read_record(audited / AUDIT), read_record(audited / AUDIT)
    old["measurements"] = [m for m in old["measurements"] if m["name"] != "resurrection"]
    old["measurements"][1]["resolution"] = 90.0
    old["ledger"] = []
    named = ["resurrection, which the report lacks", "the ledger", "accuracy-forget, which is judged in another way"]
    assert compare(old, new).outside == named


def test_a_replay_audits_the_files_with_the_hashes_of_the_record(
    models: Mapping[str, Path], audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(audited / AUDIT)
    record["request"] |= {"student": str(models["third"]), "shards": "elsewhere"}
    (tmp_path / AUDIT).write_text(json.dumps(record))
    seen: list[Request] = []
    monkeypatch.setattr(replaying, "audit", lambda request, say: seen.append(request) or record)
    replay(tmp_path, tmp_path / "again", Places(), None, None, 1, quiet)
    assert (seen[0].student, seen[0].shards) == (models["first"], None)


def test_other_models_or_shards_are_not_a_replay(audited: Path) -> None:
    old, new = read_record(audited / AUDIT), read_record(audited / AUDIT)
    old["origin"]["shards"] = {"uri": "shards", "index_sha256": None, "shards": {"shard-000000.tar": "a" * 64}}
    new["models"]["student"]["sha256"] = "b" * 64
    new["models"]["references"][1]["sha256"] = "c" * 64
    student, others = "the student, which is another one", "the shards, which are others (1 of 1)"
    assert compare(old, new).outside == [student, "retrained model 2, which is another one", others]
    assert student not in compare(old, new, retrained=True).outside


def distill_request(shards: Path, out: Path) -> runs.Request:
    settings = DistillSettings(steps=20, batch_size=16)
    return runs.Request(
        method="distill", settings=settings, loop=LOOP, shards=str(shards), forget=(0,), out=out, seed=3
    )


def test_the_student_is_made_again_from_its_runs_settings(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    runs.unlearn(distill_request(tiny_run, tmp_path / "run"), quiet)
    request = Request(
        student=tmp_path / "run",
        teacher=tiny_teacher_path,
        forget=(0,),
        shards=str(tiny_run),
        out=tmp_path / "audit",
        settings=dataclasses.replace(SMALL, relearn_steps=2, inversion_steps=2),
        workers=1,
    )
    audit(request, quiet)
    found = replay(tmp_path / "audit", tmp_path / "again", Places(), None, None, 1, quiet, retrain=True)
    assert found.same_student is True
    assert (found.agrees, found.equal) == (True, found.measures)
    assert {check.state for check in verify(tmp_path / "audit", Places())} == {HOLDS}
    record = read_record(tmp_path / "audit" / AUDIT)
    record["origin"]["run"]["settings"]["seed"] = 4
    (tmp_path / "audit" / AUDIT).write_text(json.dumps(record))
    (check,) = [c for c in verify(tmp_path / "audit", Places()) if c.state == BROKEN]
    assert (check.what[:24], check.why[-8:]) == ("the run's settings, metr", "settings")


def test_the_shards_of_the_audit_need_not_be_those_that_the_run_read(
    tiny_teacher_path: Path, tiny_teacher: Classifier, tiny_run: Path, tmp_path: Path
) -> None:
    learnt = tmp_path / "learnt"
    shutil.copytree(tiny_run, learnt)
    runs.unlearn(distill_request(learnt, tmp_path / "run"), quiet)
    held_out = tmp_path / "held-out"
    make_run(held_out, recipe_for(tiny_teacher, QUICK), Plan(classes=tuple(range(10)), per_class=16, shard_size=80))
    request = Request(
        student=tmp_path / "run",
        teacher=tiny_teacher_path,
        forget=(0,),
        shards=str(held_out),
        out=tmp_path / "audit",
        settings=dataclasses.replace(SMALL, relearn_steps=1, inversion_steps=1),
        workers=1,
    )
    record = audit(request, quiet)
    assert {check.state for check in verify(tmp_path / "audit", Places())} == {HOLDS}
    assert "the shards that the run read name this teacher" in {c.what for c in verify(tmp_path / "audit", Places())}
    _, same = remake(record, tmp_path / "again", tiny_teacher_path, locate(record, Places()).run_shards, None, quiet)
    assert same
    learnt.rename(tmp_path / "moved")
    (gone,) = [c for c in verify(tmp_path / "audit", Places()) if c.state != HOLDS]
    assert (gone.state, gone.why[-36:]) == (NOT_CHECKED, "name its place now with --run-shards")
    places = Places(run_shards=[str(tmp_path / "moved")])
    assert {check.state for check in verify(tmp_path / "audit", places)} == {HOLDS}
    wrong = Places(run_shards=[str(held_out)])
    assert [c.what for c in verify(tmp_path / "audit", wrong) if c.state == BROKEN] == [
        "the shards that the run read have the index that it names"
    ]
    with pytest.raises(UserError, match="are not those that the student's run read: name those with --run-shards"):
        remake(record, tmp_path / "third", tiny_teacher_path, [str(held_out)], None, quiet)


def test_a_student_of_several_runs_is_recorded_audited_verified_and_made_again(
    tiny_teacher_path: Path, tiny_teacher: Classifier, tiny_run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    make_run(other, recipe_for(tiny_teacher, QUICK), Plan(classes=tuple(range(10)), per_class=16, shard_size=80))
    learnt = [str(tiny_run), str(other)]
    runs.unlearn(dataclasses.replace(distill_request(tiny_run, tmp_path / "run"), shards=learnt), quiet)
    facts = json.loads((tmp_path / "run" / PROVENANCE).read_text())
    assert facts["shards"] == learnt
    assert facts["index_sha256"] == [sha256((Path(run) / INDEX).read_bytes()).hexdigest() for run in learnt]
    assert json.loads((tmp_path / "run" / SETTINGS).read_text())["shards"] == learnt
    request = Request(
        student=tmp_path / "run",
        teacher=tiny_teacher_path,
        forget=(0,),
        shards=str(other),
        out=tmp_path / "audit",
        settings=dataclasses.replace(SMALL, relearn_steps=1, inversion_steps=1),
        workers=1,
    )
    record = audit(request, quiet)
    checks = verify(tmp_path / "audit", Places())
    assert {check.state for check in checks} == {HOLDS}
    assert {f"the shards {number} that the run read name this teacher" for number in (1, 2)} < {c.what for c in checks}
    write_report(tmp_path / "audit", tmp_path / "report.html")
    found = locate(record, Places()).run_shards
    assert remake(record, tmp_path / "again", tiny_teacher_path, found, None, quiet)[1]
    swapped = Places(run_shards=learnt[::-1])
    broken = [check.what for check in verify(tmp_path / "audit", swapped) if check.state == BROKEN]
    assert broken == [f"the shards {number} that the run read have the index that it names" for number in (1, 2)]
    with pytest.raises(UserError, match="read 2 runs of shards, and 1 is given: name each of them with --run-shards"):
        verify(tmp_path / "audit", Places(run_shards=learnt[:1]))


def test_a_report_with_other_facts_does_not_agree(audited: Path) -> None:
    def outside(change: Callable[[dict[str, Any]], object]) -> list[str]:
        old, new = read_record(audited / AUDIT), read_record(audited / AUDIT)
        change(old)
        return compare(old, new).outside

    assert outside(lambda r: r["class_names"].reverse()) == ["the names of the classes"]
    assert outside(lambda r: r.update(images="real test images of a hospital")) == ["the images that it was judged on"]
    assert outside(lambda r: r.update(not_run=[])) == ["what could not be run"]
    assert outside(lambda r: r["models"]["teacher"].update(training={})) == ["the facts in the teacher's card"]
    assert outside(lambda r: r["histograms"][0]["counts"].reverse()) == ["the histograms"]
    assert outside(lambda r: r["pictures"].popitem()) == ["the pictures"]
    curve = lambda r: next(m for m in r["measurements"] if m["name"] == "relearn-5")["details"]["curves"]["original"][0]  # noqa: E731
    assert outside(lambda r: curve(r)["accuracy"].reverse()) == ["the curves or counts of relearn-5"]
    assert outside(lambda r: r["controls"].pop()) == ["the reasons of the verdict, or of those on the known models"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": ["distill"]}, "which this version doesn't know"),
        ({"method": "distill", "forget": ["x"]}, "settings are not this version's"),
        ({"method": "distill", "seed": "x"}, "settings are not this version's"),
        ({"method": "distill", "steps": "many"}, "settings are not this version's"),
    ],
)
def test_settings_that_no_run_has_are_refused_in_one_line(
    settings: dict[str, Any], words: str, audited: Path, tmp_path: Path
) -> None:
    record = read_record(audited / AUDIT)
    record["origin"]["run"] = {"settings": settings, "provenance": {}, "metrics": []}
    with pytest.raises(UserError, match=words):
        remake(record, tmp_path / "again", tmp_path / "teacher", ["shards"], None, quiet)
    assert not (tmp_path / "again").exists()


def test_a_bug_of_a_run_is_not_the_fault_of_the_report(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise TypeError("a bug of ours")

    record = read_record(audited / AUDIT)
    record["origin"]["run"] = {"settings": {"method": "distill"}, "provenance": {}, "metrics": []}
    monkeypatch.setattr("unlearn.run.carry_out.unlearn", bug)
    with pytest.raises(TypeError, match="a bug of ours"):
        remake(record, tmp_path / "again", tmp_path / "teacher", ["shards"], None, quiet)


def test_without_a_run_the_student_cannot_be_made_again(audited: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replay it without --retrain"):
        replay(audited, tmp_path / "again", Places(), None, None, 1, quiet, retrain=True)


def test_another_student_is_not_a_replay(models: Mapping[str, Path], audited: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the one that was audited"):
        replay(audited, tmp_path / "again", Places(student=models["third"]), None, None, 1, quiet)


def with_device(audited: Path, device: str, out: Path) -> Path:
    (out / AUDIT).write_text(json.dumps({**read_record(audited / AUDIT), "device": device}))
    return out


def test_a_report_of_another_device_can_be_replayed_on_this_one(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Request] = []
    record = read_record(audited / AUDIT)
    monkeypatch.setattr(replaying, "audit", lambda request, say: seen.append(request) or record)
    replay(with_device(audited, "cuda", tmp_path), tmp_path / "again", Places(), None, None, 1, quiet, device="cpu")
    assert seen[0].device == "cpu"


def test_what_cannot_be_a_replay_is_refused_at_once(
    models: Mapping[str, Path], audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def refused(words: str, places: Places, report: Path = audited) -> None:
        with pytest.raises(UserError, match=words):
            replay(report, tmp_path / "again", places, None, None, 1, lambda line: pytest.fail("a measure ran"))

    refused("the audit had 2 references, and 1 is given", Places(references=(models["second"],)))
    refused(r"retrained model 1 .* is not the one", Places(references=(models["third"], models["second"])))
    refused("--student .*nope: there is no such file", Places(student=tmp_path / "nope"))
    record = read_record(audited / AUDIT)
    record["models"]["student"]["path"] = str(tmp_path / "gone")
    (tmp_path / AUDIT).write_text(json.dumps(record))
    refused(r"the student is not in .*gone: name its place now with --student", Places(), tmp_path)
    refused("no cuda device: use --device cpu", Places(), with_device(audited, "cuda", tmp_path))
    refused("names the unknown device 'moon'", Places(), with_device(audited, "moon", tmp_path))
    assert not (tmp_path / "again").exists()


def test_a_student_of_fresh_views_is_made_again_with_its_teacher() -> None:
    settings = {"method": "distill", "forget": [0], **dataclasses.asdict(DistillSettings(steps=2))}
    model = {"architecture": "lenet5", "width": 0.5}
    for recorded, expected in ((None, None), ("where/it/was", Path("here"))):
        named = {**settings, "teacher": recorded}
        assert run_request(named, model, Path("here"), ["shards"], None, Path("out"), "cpu").teacher == expected
