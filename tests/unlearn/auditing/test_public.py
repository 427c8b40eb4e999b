"""An audit of a student that started from public weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.checkpoint.public_start import PublicStart
from tests.runs import digits_card
from unlearn.auditing.audit import audit
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.claim import claim
from unlearn.auditing.judgement.controls import NEVER_SAW, failed_controls
from unlearn.auditing.record.schema import read_record
from unlearn.auditing.subjects import gather
from unlearn.auditing.text import audit_text
from unlearn.report.places import Places
from unlearn.report.verify.checks import BROKEN
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report

from .subjects import SMALL, request_for


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("public") / "public.safetensors"
    save_checkpoint(
        Classifier.untrained(digits_card(class_names=("a", "b", "c"), training={"imported": True}), 9).freeze(), path
    )
    return path


def started(models: Mapping[str, Path], name: str, public: Path, out: Path) -> Path:
    """The model of that name, whose card says that it started from the public weights."""
    model, start = load_checkpoint(models[name]), PublicStart(load_checkpoint(public), str(public))
    card = dataclasses.replace(model.card, training={"start_from": start.facts()})
    save_checkpoint(Classifier(model.net, card), out)
    return out


def test_the_public_weights_are_one_more_model_whose_answer_is_known(
    models: Mapping[str, Path], public: Path, tmp_path: Path
) -> None:
    student = started(models, "first", public, tmp_path / "student.safetensors")
    least = {"repeats": 2, "draws": 2, "pool": 10, "judge_images": 5, "relearn_steps": 2, "inversion_steps": 1}
    settings = dataclasses.replace(SMALL, relearn_labels="5", probe_labels="3", inversion_images=2, **least)
    request = request_for(models, student, tmp_path / "audit", public=public, settings=settings)
    request = dataclasses.replace(request, references=(models["second"],))
    audit(request, lambda line: None)
    record = read_record(tmp_path / "audit" / AUDIT)
    readings = {m["name"]: m["readings"] for m in record["measurements"]}
    assert "public" in readings["probe-3"]
    assert record["models"]["public"]["sha256"] == load_checkpoint(public).digest
    known = next(c for c in record["controls"] if c["subject"] == "public")
    assert known["reasons"][-1] == NEVER_SAW
    assert not any("public is called" in line for line in failed_controls(record["controls"]))
    assert "started from public weights (public.safetensors" in claim(record)
    assert claim(record) in audit_text(record)
    assert any(n["name"] == "a comparison with references of the same start" for n in record["not_run"])
    page = tmp_path / "report.html"
    write_report(tmp_path / "audit", page)
    assert "started from public weights" in page.read_text()
    checks = verify(page, Places())
    assert not [check for check in checks if check.state == BROKEN]
    assert any(check.what == "the public checkpoint is the one that was audited" for check in checks)


def test_layers_that_are_the_originals_have_the_originals_values(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    layers = [m for m in record["measurements"] if m["family"] == "layers"]
    assert [m["name"] for m in layers] == ["layers-25", "layers-50", "layers-75"]
    assert all(m["quality"] for m in layers)
    for m in layers:
        assert m["readings"]["original"]["values"] == m["readings"]["masked logit"]["values"]
        assert m["readings"]["original"]["values"] != m["readings"]["retrained"]["values"]


def test_public_weights_are_the_students_own_start_and_not_the_original(
    models: Mapping[str, Path], public: Path, tmp_path: Path
) -> None:
    student = started(models, "first", public, tmp_path / "student.safetensors")
    other = started(models, "second", public, tmp_path / "other.safetensors")
    for named, why in ((models["teacher"], "is the teacher itself"), (other, "started from other weights")):
        with pytest.raises(UsageError, match=why):
            gather([student], models["teacher"], [], (0,), None, "cpu", 0, 1, named)
    missing = gather([student], models["teacher"], [models["third"]], (0,), None, "cpu", 0, 1)[1]
    assert [line.cure for line in missing][:1] == ["name them with --public"]


def test_the_claim_names_the_layers_that_were_kept() -> None:
    def of(**training: object) -> str:
        return claim({"models": {"student": {"training": training}}})

    assert of() == of(settings={"keep_layers": ""}) == ""
    assert "holds the original's layers up to 'layer3', which saw the class" in of(settings={"keep_layers": "layer3"})
    assert "holds the original's first layers, 60% of them, which saw" in of(settings={"keep_layers": "60%"})
    start = {"file": "public.safetensors", "sha256": "ab" * 32}
    both = of(settings={"keep_layers": "60%"}, start_from=start)
    assert "The later layers started from public weights (public.safetensors, sha256 abababababab)." in both
    assert "holds no more of the images to forget" not in both
    assert "holds no more of the images to forget" in of(start_from=start)
    assert "cannot claim that it never saw the class" in of(from_teacher=True)
