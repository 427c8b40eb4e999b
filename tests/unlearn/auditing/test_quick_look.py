"""`--measures`: a quick look runs a few measures, and never acquits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from synth.basics.errors import UsageError
from unlearn.auditing import measures
from unlearn.auditing.audit import audit
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.auditing.judgement import verdict
from unlearn.auditing.measures import MEASURES
from unlearn.auditing.record.record import NOT_CHOSEN
from unlearn.auditing.record.schema import read_record
from unlearn.report.places import Places
from unlearn.report.verify.checks import BROKEN
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report

from .subjects import SMALL, request_for

quiet = lambda line: None  # noqa: E731
LOOK = dataclasses.replace(SMALL, measures="accuracy, probe,transplant")


def test_a_quick_look_has_the_values_of_the_whole_audit_and_acquits_nobody(
    models: Mapping[str, Path], audited: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    found = audit(request_for(models, models["first"], tmp_path / "look", settings=LOOK), said.append)
    whole = read_record(audited / AUDIT)
    assert any(line.startswith("runs 3 measures on") for line in said)
    names = {m["name"] for m in found["measurements"]}
    assert {"accuracy-forget", "probe-1", "transplant-stitched"} <= names
    assert not {"relearn-5", "membership-ratio", "resurrection"} & names
    assert found["measurements"] == [m for m in whole["measurements"] if m["name"] in names]
    assert {n["why"] for n in found["not_run"] if n["name"] == "relearn"} == {"--measures leaves it out"}
    assert whole["verdict"]["conclusion"] == verdict.LIKE_RETRAINED
    assert found["verdict"]["conclusion"] == verdict.UNDECIDED
    assert found["verdict"]["reasons"][0] == verdict.LEFT_OUT
    known = {control["subject"]: control["conclusion"] for control in found["controls"]}
    assert (known["original"], known["masked logit"]) == (verdict.NOT_UNLEARNED, verdict.SUPPRESSION)
    write_report(tmp_path / "look", tmp_path / "report.html")
    assert not [check for check in verify(tmp_path / "report.html", Places()) if check.state == BROKEN]


def test_a_list_of_every_measure_leaves_nothing_out(
    models: Mapping[str, Path], audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_record(audited / AUDIT)
    few = {name: MEASURES.find(name) for name in ("accuracy", "probe", "transplant", "range_errors")}
    monkeypatch.setattr(measures, "modules", lambda: few)
    said: list[str] = []
    settings = dataclasses.replace(SMALL, measures="accuracy,probe,probe,transplant,range_errors")
    found = audit(request_for(models, models["first"], tmp_path / "look", settings=settings), said.append)
    assert any(line.startswith("runs 3 measures on") for line in said)  # one is named twice, one is for regressors
    assert not [n for n in found["not_run"] if n["why"] == NOT_CHOSEN]
    assert verdict.LEFT_OUT not in found["verdict"]["reasons"]
    names = {m["name"] for m in found["measurements"]}
    assert found["measurements"] == [m for m in whole["measurements"] if m["name"] in names]
    write_report(tmp_path / "look", tmp_path / "report.html")
    assert not [check for check in verify(tmp_path / "report.html", Places()) if check.state == BROKEN]


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ("probes", r"there is no audit measure 'probes'; did you mean 'probe'\?: choose accuracy, retained,"),
        ("probe,range_error", "there is no audit measure 'range_error'; did you mean 'range_errors'"),
        ("range_errors", "--measures range_errors is not for these models: choose from accuracy, retained, divergence"),
    ],
)
def test_measures_that_there_are_not_are_refused(
    models: Mapping[str, Path], tmp_path: Path, measures: str, words: str
) -> None:
    settings = dataclasses.replace(SMALL, measures=measures)
    with pytest.raises(UsageError, match=words):
        audit(request_for(models, models["first"], tmp_path / "out", settings=settings), quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("measures", [",", " "])
def test_a_list_without_names_is_refused(measures: str) -> None:
    with pytest.raises(ValueError, match="names no measure"):
        AuditSettings(measures=measures)
