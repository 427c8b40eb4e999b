"""`unlearn audit` as a whole, on digits."""

import dataclasses
import html
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.run.recognise import Question, recognise
from synth.shards.plan import Plan
from synth.shards.store import Folder
from tests.runs import QUICK, make_run, recipe_for
from unlearn.auditing import audit as run
from unlearn.auditing.audit import audit, prepare
from unlearn.auditing.audit_folder import AUDIT, INPUTS, PICTURES, RESULTS, TIMING
from unlearn.auditing.audit_settings import AuditSettings, counts
from unlearn.auditing.judgement import verdict
from unlearn.auditing.measures import relearn as relearning
from unlearn.auditing.record.record import under_copies
from unlearn.auditing.record.schema import parse_record, read_record, schema
from unlearn.auditing.text import audit_text
from unlearn.commands import auditing as commands
from unlearn.commands.main import main
from unlearn.data import DataSource, LabelledImages
from unlearn.methods.edit import BaselineSettings
from unlearn.report.page.page import page
from unlearn.report.places import Places
from unlearn.report.verify.checks import BROKEN
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report
from unlearn.run import carry_out as runs
from unlearn.settings import LoopSettings

from .subjects import SMALL, request_for

RESURRECTION = {f"resurrection{part}" for part in ("", "-advantage", "-others", "-retain")}

quiet = lambda line: None  # noqa: E731


def test_a_retrained_model_is_like_retrained_and_the_known_models_get_their_names(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    assert record["verdict"]["conclusion"] == verdict.LIKE_RETRAINED, record["verdict"]
    known = {c["subject"]: c["conclusion"] for c in record["controls"]}
    assert known["original"] == verdict.NOT_UNLEARNED
    assert known["masked logit"] == verdict.SUPPRESSION
    assert {path.name for path in (audited / PICTURES).iterdir()} == set(record["pictures"])
    names = {m["name"] for m in record["measurements"]}
    assert {"accuracy-forget", "relearn-5", "relearn-20", "relearn-retain", "probe-1", "membership-ratio"} <= names
    assert {"js-retrained", "zero-retrain", "head-norm", "transplant-stitched", "resurrection"} <= names
    assert all({"original", "masked logit", "this model"} <= set(m["readings"]) for m in record["measurements"])


def test_several_students_in_one_go_get_the_records_of_single_audits(
    models: Mapping[str, Path], audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = with_card(
        models, "first", tmp_path / "other.safetensors", epochs=7
    )  # same shape, so the same random models
    students = [other, models["first"]]
    counted: list[int] = []
    relearn = relearning.relearn
    monkeypatch.setattr(relearning, "relearn", lambda *given: counted.append(1) or relearn(*given))
    requests = [request_for(models, student, tmp_path / student.stem) for student in students]
    records = run.audit_each(requests, quiet)
    assert records[0]["models"]["student"]["training"] == {"epochs": 7}
    single = read_record(audited / AUDIT)
    assert records[1] == single
    assert read_record(tmp_path / "first" / AUDIT) == single
    for name in single["pictures"]:
        assert (tmp_path / "first" / PICTURES / name).read_bytes() == (audited / PICTURES / name).read_bytes()
    subjects = sum(len(reading["values"]) for reading in single["measurements"][0]["readings"].values())
    curves = 2 * (subjects - 1) + subjects  # a masked logit shares the original's curves, except from retain images
    assert len(counted) == SMALL.repeats * (curves + 3)  # the second student has three variants of its own


def test_curves_are_kept_with_both_step_counts(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    details = next(m["details"] for m in record["measurements"] if m["name"] == "relearn-5")
    assert len(details["curves"]["retrained"]) == 2 * SMALL.repeats
    assert {"steps", "accuracy", "reached", "censored"} == set(details["curves"]["this model"][0])
    assert {"steps_model", "steps_retrained", "censored_model", "bound"} <= set(details["anamnesis"])


def baseline(kind: str, models: Mapping[str, Path], shards: Path, out: Path) -> Path:
    request = runs.Request(
        method="edit",
        settings=BaselineSettings(kind=kind, steps=300, batch_size=32, lr=0.1),
        loop=LoopSettings(every=300, monitor=False),
        teacher=models["teacher"],
        shards=str(shards),
        forget=(0,),
        out=out,
    )
    runs.unlearn(request, quiet)
    return out


@pytest.fixture(scope="module")
def shards(models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit-shards") / "run"
    recipe = recipe_for(load_checkpoint(models["teacher"]), QUICK)
    make_run(path, recipe, Plan(classes=tuple(range(10)), per_class=16, shard_size=80))
    return path


@pytest.mark.long
@pytest.mark.parametrize("kind", ["masked-logit", "last-layer"])
def test_masking_and_a_new_last_layer_are_called_output_suppression(
    kind: str, models: Mapping[str, Path], shards: Path, tmp_path: Path
) -> None:
    student = baseline(kind, models, shards, tmp_path / kind)
    record = audit(request_for(models, student, tmp_path / "audit"), quiet)
    assert record["verdict"]["conclusion"] == verdict.SUPPRESSION, record["verdict"]
    assert record["origin"]["run"]["provenance"]["student_sha256"] == record["models"]["student"]["sha256"]


@pytest.mark.long
def test_without_real_data_it_says_so_and_judges_on_synthetic_images(
    models: Mapping[str, Path], shards: Path, tmp_path: Path
) -> None:
    request = request_for(models, models["first"], tmp_path / "audit", data=None, shards=str(shards), references=())
    record = audit(request, quiet)
    assert record["ledger"] == []
    assert {m["source"] for m in record["measurements"]} == {"synthetic", "none"}
    assert "synthetic hold-outs" in record["images"]
    cures = {n["name"]: n["cure"] for n in record["not_run"]}
    assert "--data" in cures["membership"]
    assert "--reference" in cures["retrained"]
    assert "relearn-synthetic" in {m["name"] for m in record["measurements"]}
    assert record["origin"]["shards"]["teacher_sha256"] == record["models"]["teacher"]["sha256"]


def test_shards_and_retrained_models_are_enough_for_a_conclusion(
    models: Mapping[str, Path], shards: Path, tmp_path: Path
) -> None:
    few = dataclasses.replace(SMALL, inversion_steps=1, random_models=1)
    request = request_for(models, models["first"], tmp_path / "audit", data=None, shards=str(shards), settings=few)
    record = audit(request, quiet)
    known = {c["subject"]: c["conclusion"] for c in record["controls"]}
    assert known["masked logit"] == verdict.SUPPRESSION
    assert record["verdict"]["conclusion"] != verdict.UNDECIDED, record["verdict"]
    assert record["recognition"] == recognised_images(models, shards)
    words = f"the original recognises {under_copies(record['recognition']):.1f} % of changed copies (shifted, cropped, "
    assert words in audit_text(record)
    text = page(record, {})
    for share in (under_copies(record["recognition"]), *record["recognition"]["references"]):
        assert f"<td>{share:.1f}</td>" in text
    assert "confidence" not in text[text.index('<h2 id="recognition">') : text.index("</section>")]


def recognised_images(models: Mapping[str, Path], shards: Path) -> dict[str, Any]:
    """The record's `recognition`, by `synth recognise`."""
    references = [models["second"], models["third"]]
    question = Question(by=references, teacher=models["teacher"])
    found = recognise(Folder(shards), question).to_json()
    return {
        "images": 160,
        "original": {
            name: pytest.approx(100 * found["teacher"][name], abs=1e-3)
            for name in ("image", "mirrored", "shifted", "cropped", "halved", "grey")
        },
        "counted": ["shifted", "cropped", "halved"],
        "retain_images": 144,
        "references": [pytest.approx(100 * each["top1"], abs=1e-3) for each in found["networks"]],
    }


class WithoutZeros(DataSource):
    """Data after an erasure: no image of class 0 is left."""

    def load(self, split: str, card: ModelCard | None = None) -> LabelledImages:
        return super().load(split, card).without((0,))


def test_real_images_of_the_other_classes_are_used_after_those_of_the_class_are_erased(
    models: Mapping[str, Path], shards: Path, tmp_path: Path
) -> None:
    few = dataclasses.replace(SMALL, inversion_steps=1, random_models=1)
    rest = WithoutZeros("digits", None, False, 32)
    request = request_for(models, models["first"], tmp_path / "audit", data=rest, shards=str(shards), settings=few)
    record = audit(request, quiet)
    found = {m["name"]: m for m in record["measurements"]}
    sources = {name: m["source"] for name, m in found.items()}
    assert sources["accuracy-retain-real"] == "real"
    assert {sources[name] for name in ("accuracy-forget", "probe-1", "relearn-retain", "relearn-synthetic")} == {
        "synthetic"
    }
    assert not {"relearn-5", "membership-ratio"} & set(found)
    assert found["accuracy-retain-real"]["readings"]["retrained"]["mean"] > 80
    assert {line["split"]: line["images"] for line in record["ledger"]} == {"train": 9 * SMALL.pool, "test": 405}
    reasons = {n["name"]: n["why"] for n in record["not_run"]}
    left_out = "on real images: forget accuracy, linear probe, layer-wise linear probe, relearning, transplant"
    assert reasons[left_out] == "the real test images of digits have no image of the forget classes"
    assert record["verdict"]["conclusion"] != verdict.UNDECIDED, record["verdict"]
    write_report(tmp_path / "audit", tmp_path / "report.html")
    assert not [check for check in verify(tmp_path / "report.html", Places()) if check.state == BROKEN]


class WithoutTrainingZeros(DataSource):
    """Data after an erasure that left the test images alone."""

    def load(self, split: str, card: ModelCard | None = None) -> LabelledImages:
        data = super().load(split, card)
        return data.without((0,)) if split == "train" else data


def test_real_test_images_are_judged_where_the_training_images_of_the_class_are_erased(
    models: Mapping[str, Path], tmp_path: Path
) -> None:
    few = dataclasses.replace(SMALL, measures="accuracy,retained,probe")
    rest = WithoutTrainingZeros("digits", None, False, 32)
    request = request_for(models, models["teacher"], tmp_path / "audit", data=rest, settings=few)
    record = audit(request, quiet)
    found = {m["name"]: m for m in record["measurements"]}
    assert set(found) == {"accuracy-retain", "accuracy-forget", "confusion-distance"}
    assert {m["source"] for m in found.values()} == {"real"}
    assert record["verdict"]["conclusion"] == verdict.NOT_UNLEARNED
    reasons = {n["name"]: n["why"] for n in record["not_run"]}
    assert "images to learn from, beside the real test images of digits, have no image of a forget" in reasons["probe"]
    left_out = "on real images: linear probe, layer-wise linear probe, relearning, transplant"
    assert reasons[left_out] == "no training image beside the real test images of digits is of the forget classes"
    knowing = load_checkpoint(models["teacher"])
    with torch.no_grad():
        next(knowing.parameters()).mul_(1.001)  # another model than the teacher, but one that saw the class
    save_checkpoint(knowing, tmp_path / "knowing.safetensors")
    of_knowing = dataclasses.replace(request, student=models["first"], references=(tmp_path / "knowing.safetensors",))
    with pytest.raises(UsageError, match="cannot be a reference"):
        audit(dataclasses.replace(of_knowing, overwrite=True), quiet)


def test_without_any_image_of_the_class_the_accuracy_on_the_others_is_still_measured(
    models: Mapping[str, Path], tmp_path: Path
) -> None:
    few = dataclasses.replace(SMALL, inversion_steps=1, random_models=1, repeats=2)
    rest = WithoutZeros("digits", None, False, 32)
    record = audit(request_for(models, models["first"], tmp_path / "audit", data=rest, settings=few), quiet)
    measured = {m["name"] for m in record["measurements"]}
    assert measured == {"accuracy-retain-real", "head-norm", "head-bias", *RESURRECTION}
    assert record["images"] is None
    assert record["verdict"]["conclusion"] == verdict.UNDECIDED


def test_with_only_the_models_the_last_layer_is_still_checked(models: Mapping[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    record = audit(request_for(models, models["first"], tmp_path / "audit", data=None, references=()), said.append)
    assert "accuracy: not run, there is no image to judge on" in said
    assert "accuracy" not in json.loads((tmp_path / "audit" / TIMING).read_text())["seconds"]
    assert {m["name"] for m in record["measurements"]} == {
        "head-norm",
        "head-bias",
        *RESURRECTION,
    }
    assert record["verdict"]["conclusion"] == verdict.UNDECIDED


def test_shards_without_the_class_leave_out_the_measures_that_need_its_images(
    tiny_teacher_path: Path, tiny_teacher: Classifier, models: Mapping[str, Path], tmp_path: Path
) -> None:
    make_run(tmp_path / "run", recipe_for(tiny_teacher), Plan(classes=tuple(range(1, 10)), per_class=4, shard_size=36))
    request = request_for(
        models, models["first"], tmp_path / "audit", teacher=tiny_teacher_path, data=None, shards=str(tmp_path / "run")
    )
    record = audit(request, quiet)
    assert (record["images"], record["histograms"]) == (None, [])
    assert "no image of a forget class" in next(n["why"] for n in record["not_run"] if n["name"] == "accuracy")
    assert record["verdict"]["conclusion"] == verdict.UNDECIDED


def test_shards_of_only_the_class_leave_out_the_measures_that_need_other_images(
    tiny_teacher_path: Path, tiny_teacher: Classifier, models: Mapping[str, Path], tmp_path: Path
) -> None:
    make_run(tmp_path / "run", recipe_for(tiny_teacher, QUICK), Plan(classes=(0,), per_class=20, shard_size=20))
    request = request_for(
        models, models["first"], tmp_path / "audit", teacher=tiny_teacher_path, data=None, shards=str(tmp_path / "run")
    )
    record = audit(request, quiet)
    assert "no image of a retain class" in next(n["why"] for n in record["not_run"] if n["name"] == "accuracy")
    assert record["verdict"]["conclusion"] == verdict.UNDECIDED


def test_data_of_another_shape_is_refused(models: Mapping[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "data" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / place / "a.png")
    source = DataSource(str(tmp_path / "data"), None, False, 32)
    with pytest.raises(UsageError, match="name the data that the checkpoint was made for"):
        audit(request_for(models, models["first"], tmp_path / "audit", data=source), quiet)


def test_bad_requests_are_refused_in_one_line(models: Mapping[str, Path], audited: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    with pytest.raises(UsageError, match="already holds files"):
        audit(request_for(models, models["first"], audited), quiet)
    with pytest.raises(UsageError, match="forget class 12 is out of range"):
        audit(request_for(models, models["first"], out, forget=(12,)), quiet)
    with pytest.raises(UsageError, match="is the teacher itself"):
        audit(request_for(models, models["first"], out, references=(models["teacher"],)), quiet)
    with pytest.raises(UserError, match=r"there is no student .*none: make one with 'unlearn distill"):
        audit(request_for(models, tmp_path / "none", out), quiet)
    with pytest.raises(UserError, match=r"there is no retrained model .*gone: .*--without 0"):
        audit(request_for(models, models["first"], out, references=(tmp_path / "gone",)), quiet)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no student\.safetensors: name a checkpoint, or the folder of a run"):
        audit(request_for(models, tmp_path / "runs", out), quiet)
    shutil.copy(models["first"], tmp_path / "runs" / "one" / "student.safetensors")
    with pytest.raises(UserError, match=r"name a run in it, such as .*one"):
        audit(request_for(models, tmp_path / "runs", out), quiet)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_fails_before_any_work(
    models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_measures", lambda *_: pytest.fail("a measure ran"))
    (tmp_path / "file").touch()
    for out in (Path("/proc/x"), tmp_path / "file" / "audit"):
        with pytest.raises(UserError, match="choose another folder"):
            audit(request_for(models, models["first"], out), quiet)


def with_card(models: Mapping[str, Path], name: str, out: Path, **training: object) -> Path:
    """A copy of the model, whose card has other facts of its training."""
    model = load_checkpoint(models[name])
    model.card = dataclasses.replace(model.card, training=training)
    save_checkpoint(model, out)
    return out


def test_a_student_that_was_made_to_forget_another_class_is_told(models: Mapping[str, Path], tmp_path: Path) -> None:
    lines: list[str] = []
    for forget in ([0], [1, 2]):
        student = with_card(models, "first", tmp_path / f"{len(forget)}.safetensors", forget=forget)
        prepare([request_for(models, student, tmp_path / "audit")], lines.append)
    warnings = [line for line in lines if line.startswith("warning")]
    assert warnings == [f"warning: {tmp_path / '2.safetensors'} was made to forget classes 1, 2: check --forget"]


def test_a_reference_is_another_model_that_never_saw_the_class(models: Mapping[str, Path], tmp_path: Path) -> None:
    def refused(words: str, *references: Path, **changes: object) -> None:
        with pytest.raises(UsageError, match=words):
            audit(request_for(models, models["first"], tmp_path / "audit", references=references, **changes), quiet)

    copied = Path(shutil.copy(models["second"], tmp_path / "copy.safetensors"))
    refused("are the same model", models["second"], copied)
    refused("is the audited student itself", models["first"])
    refused("as its own card says", models["second"], forget=(1,))
    refused("as its own card says", with_card(models, "second", tmp_path / "all.safetensors", without=[]))
    refused(
        "by distill.*not retrained", with_card(models, "second", tmp_path / "d", teacher_sha256="a", method="distill")
    )
    refused(
        "calls .* % of the forget images by their class",
        with_card(models, "teacher", tmp_path / "imported", imported=True),
    )
    assert not (tmp_path / "audit").exists()


def test_a_record_of_another_form_is_refused(audited: Path, tmp_path: Path) -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema())
    record = read_record(audited / AUDIT)
    with pytest.raises(UserError, match="at verdict/conclusion"):
        parse_record(json.dumps({**record, "verdict": {**record["verdict"], "conclusion": "fine"}}).encode(), "x")
    with pytest.raises(UserError, match="newer than 2"):
        parse_record(json.dumps({**record, "format_version": 3}).encode(), "x")
    with pytest.raises(UserError, match=r"format version 1, older than 2: run the audit again with 'unlearn audit'"):
        parse_record(json.dumps({**record, "format_version": 1}).encode(), "x")
    with pytest.raises(UserError, match="not an audit record"):
        parse_record(b"[" * 100_000, "x")


def test_settings_are_checked() -> None:
    assert counts("100,5") == (5, 100)
    for bad in ({"repeats": 1}, {"relearn_labels": "5,x"}, {"relearn_labels": ""}, {"confidence": 1.0}, {"pool": 0}):
        with pytest.raises(ValueError, match=r"must|not a list of label counts"):
            AuditSettings(**bad)  # type: ignore[arg-type]


def test_the_commands_defaults_are_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[run.Request] = []
    monkeypatch.setattr(run, "audit_each", lambda requests, say: seen.extend(requests) or [{}] * len(requests))
    monkeypatch.setattr("unlearn.auditing.text.audit_text", lambda record: "")
    options = ["audit", "s", "--teacher", "t", "--forget", "0", "--out", "o", "--reference", "a", "--reference", "b"]
    assert CliRunner().invoke(main, [*options, "--device", "cpu"]).exit_code == 0
    assert CliRunner().invoke(main, [*options, "--device", "cpu", "--draws", "7"]).exit_code == 0
    by_default, changed = seen
    assert by_default.settings == AuditSettings()
    assert by_default.references == (Path("a"), Path("b"))
    assert changed.settings == AuditSettings(draws=7)
    assert commands.audit.name == "audit"


def test_several_students_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "gkt").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    students = [Path("runs/gkt"), Path("runs/no-zero.safetensors")]
    assert commands.folders(students[:1], Path("o")) == {students[0]: Path("o")}
    assert list(commands.folders(students, Path("o")).values()) == [Path("o/gkt"), Path("o/no-zero")]
    monkeypatch.chdir(tmp_path / "runs" / "gkt")
    assert commands.folders([Path("."), Path("a.safetensors")], Path("o"))[Path(".")] == Path("o/gkt")
    for twice in ([Path("a/x.safetensors"), Path("b/x.safetensors")], [Path("a"), Path("a")]):
        with pytest.raises(UsageError, match="two of the students would be audited in"):
            commands.folders(twice, Path("o"))


def test_the_table_names_every_measure_and_the_verdict(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    text = audit_text(record)
    assert text.startswith("What is left of class 0? LIKE RETRAINED")
    assert all(m["name"] in text for m in record["measurements"])
    assert "not run: relearning from synthetic images" in text


def test_an_audit_beside_other_files_is_not_replaced(models: Mapping[str, Path], audited: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(audited, copied)
    (copied / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="already holds files"):
        audit(request_for(models, models["first"], copied, overwrite=True), quiet)


def test_a_replaced_audit_leaves_no_old_picture_and_no_file_of_a_killed_run(
    models: Mapping[str, Path], audited: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(audited, copied)
    (copied / PICTURES / "synthesised.png").write_bytes(b"of an earlier audit with shards")
    (copied / PICTURES / "notes.txt").write_text("of the user")
    (copied / ".probe.1.2.tmp").touch()
    few = dataclasses.replace(SMALL, inversion_steps=1, repeats=2)
    record = audit(request_for(models, models["first"], copied, data=None, settings=few, overwrite=True), quiet)
    assert {path.name for path in (copied / PICTURES).iterdir()} == {*record["pictures"], "notes.txt"}
    assert {path.name for path in copied.iterdir()} == {AUDIT, TIMING, PICTURES, INPUTS, RESULTS}


def test_a_student_that_differs_from_its_runs_record_is_a_finding(models: Mapping[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(models["first"], folder / "student.safetensors")
    (folder / "settings.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    (folder / "provenance.json").write_text(json.dumps({"student_sha256": "0" * 64}))
    few = dataclasses.replace(SMALL, inversion_steps=1, repeats=2)
    record = audit(request_for(models, folder, tmp_path / "audit", data=None, references=(), settings=few), quiet)
    (problem,) = record["origin"]["problems"]
    assert "is not the student that" in problem
    assert f"Do not rely on the student's origin: {problem}." in audit_text(record)
    write_report(tmp_path / "audit", tmp_path / "report.html")
    assert html.escape(problem) in (tmp_path / "report.html").read_text()
    broken = [check.why for check in verify(tmp_path / "report.html", Places()) if check.state == BROKEN]
    assert broken == [problem]
