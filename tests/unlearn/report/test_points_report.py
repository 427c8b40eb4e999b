"""The report of an audit of points: its page, what `verify` finds, and its replay."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from synth.basics.errors import UsageError, UserError
from tests.unlearn.report.test_consistency import TRIES, changed, places_in
from unlearn.auditing.audit_folder import AUDIT, PICTURES
from unlearn.auditing.points.points_record import check_points_record
from unlearn.commands.main import main
from unlearn.report.file import read_report
from unlearn.report.page.points_page import points_page
from unlearn.report.places import Places
from unlearn.report.points_consistency import check_points_consistent
from unlearn.report.replay.replay import replay
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED
from unlearn.report.verify.conclusions import conclusions_on_points
from unlearn.report.verify.point_values import point_values
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report

Record = dict[str, Any]


def quietly(line: str) -> None:
    """For lines that a test does not look at."""


def read(folder: Path) -> Record:
    found: Record = json.loads((folder / AUDIT).read_text())
    return found


def named(record: Record, name: str) -> Record:
    return next(m for m in record["measurements"] if m["name"] == name)


@pytest.fixture
def audit(points_audited: Path, tmp_path: Path) -> Path:
    """A copy of the audit that a test may change."""
    return Path(shutil.copytree(points_audited, tmp_path / "audit"))


def change(audit: Path, edit: Callable[[Record], object]) -> None:
    record = read(audit)
    edit(record)
    (audit / AUDIT).write_text(json.dumps(record))


def broken(audit: Path, places: Places | None = None) -> list[str]:
    return [check.what for check in verify(audit, places or Places()) if check.state == BROKEN]


def test_an_honest_audit_and_its_page_hold(points_audited: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(points_audited, page)
    for report in (points_audited, page):
        checks = verify(report, Places())
        assert {check.state for check in checks} == {HOLDS}, checks
    found = {check.what for check in checks}
    assert "the run forgot the points that were audited" in found
    assert "the points are those that were audited" in found
    assert "the page shows what its record says" in found
    result = CliRunner().invoke(main, ["verify", str(page)])
    assert (result.exit_code, "0 are broken, 0 could not be checked" in result.stdout) == (0, True)


WRONG: dict[str, tuple[Callable[[Record], object], str]] = {
    "the verdict": (lambda r: r["verdict"].update(conclusion="undecided"), "the verdict follows"),
    "a known model": (lambda r: r["controls"][0].update(conclusion="undecided"), "the verdicts on the known models"),
    "the check of itself": (lambda r: r["failed_controls"].append("none"), "the audit's check of itself"),
    "a mean": (lambda r: named(r, "labels-memorised")["readings"]["this model"].update(mean=0.5), "the mean of labels"),
    "a value": (
        lambda r: named(r, "labels-memorised")["readings"]["original"].update(values=[[3.0]]),
        "the value of labels-memorised, original",
    ),
    "what a model calls a point": (lambda r: r["points"][0]["called"].update({"original": ["9"]}), "the group of"),
    "the group of a point": (lambda r: r["points"][0].update(group="other"), "the group of"),
    "the points": (lambda r: r.update(points_sha256="0" * 64), "the run forgot the points that were audited"),
    "the student": (lambda r: r["models"]["student"].update(sha256="0" * 64), "the student is the one"),
    "a reference's card": (
        lambda r: r["models"]["references"][1]["training"].update(seed=99),
        "retrained model 2's card says",
    ),
    "the run": (lambda r: r["origin"]["run"]["settings"].update(steps=9), "the run's settings, metrics and provenance"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_was_changed_is_found(what: str, audit: Path) -> None:
    edit, words = WRONG[what]
    change(audit, edit)
    assert any(line.startswith(words) for line in broken(audit)), broken(audit)


def test_points_and_pictures_that_are_gone_or_others_are_named(audit: Path, point_models: Path, tmp_path: Path) -> None:
    shutil.copytree(point_models / "points", tmp_path / "points")
    assert broken(audit, Places(points=tmp_path / "points")) == []
    first = next((tmp_path / "points").rglob("*.png"))
    Image.new("L", (28, 28)).save(first)
    assert broken(audit, Places(points=tmp_path / "points")) == ["the points are those that were audited"]
    change(audit, lambda r: r["request"].update(points=str(tmp_path / "gone")))
    (audit / PICTURES / "points.png").unlink()
    unknown = {c.what: c.why for c in verify(audit, Places()) if c.state == NOT_CHECKED}
    assert set(unknown) == {"the points are those that were audited", "the pictures are the audit's"}
    assert "name their place now with --forget-points" in unknown["the points are those that were audited"]
    with pytest.raises(UsageError, match="there is no such folder"):
        verify(audit, Places(points=tmp_path / "gone"))


def test_a_folder_of_points_has_no_effect_on_a_report_of_classes(audited: Path, point_models: Path) -> None:
    with pytest.raises(UsageError, match="the report is not about single images"):
        verify(audited, Places(points=point_models / "points"))


def test_a_replay_gives_the_same_values_and_with_retrain_the_same_student(points_audited: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = replay(points_audited, tmp_path / "again", Places(), None, None, 1, said.append, retrain=True)
    assert found.agrees, found
    assert (found.same_student, found.equal, found.largest) == (True, found.measures, 0.0)
    assert said[0].startswith("first the student is made again by distill (")
    assert "asks the student, the teacher and 3 retrained models about 20 points, on cpu" in said


def test_a_replay_names_what_is_another(audit: Path, tmp_path: Path) -> None:
    def edit(record: Record) -> None:
        named(record, "labels-memorised")["readings"]["this model"].update(
            values=[[50.0]], mean=50.0, low=50.0, high=50.0
        )
        named(record, "labels-memorised")["resolution"] = 1.0
        record["points"][0]["file"] = "other.png"

    change(audit, edit)
    found = replay(audit, tmp_path / "again", Places(), None, None, 1, quietly)
    assert "the files of the points, or their labels" in found.outside
    assert "labels-memorised, which is judged in another way" in found.outside
    assert "labels-memorised of this model" in found.outside


@pytest.mark.parametrize("retrain", [False, True])
def test_a_replay_needs_the_same_points(retrain: bool, audit: Path, point_models: Path, tmp_path: Path) -> None:
    shutil.copytree(point_models / "points", tmp_path / "points")
    Image.new("L", (28, 28)).save(next((tmp_path / "points").rglob("*.png")))
    with pytest.raises(UserError, match="the points are those that were audited"):
        replay(audit, tmp_path / "again", Places(points=tmp_path / "points"), None, None, 1, quietly, retrain)
    assert not (tmp_path / "again").exists()


HOSTILE: dict[str, tuple[Callable[[Record], object], str]] = {
    "no confidence": (lambda r: r["settings"].pop("confidence"), "its setting confidence"),
    "a class that is none": (lambda r: r["points"][0].update(label="none"), "is called what is no class"),
    "a model too few": (lambda r: r["points"][1]["called"]["retrained"].pop(), "was shown to other models"),
    "a reference too few": (lambda r: r["models"]["references"].pop(), "to other retrained models than it names"),
    "no original": (lambda r: [p["called"].pop("original") for p in r["points"]], "what the original and this model"),
    "a row too few": (
        lambda r: named(r, "labels-memorised")["readings"]["retrained"]["values"].pop(),
        "has not one row for each model",
    ),
    "half of a character": (lambda r: r["points"][0].update(file="\ud800"), "is not text"),
    "a number whose square is infinite": (
        lambda r: named(r, "accuracy")["readings"]["this model"].update(mean=1e200),
        "a number above 1e",
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_record_that_does_not_fit_together_is_refused(hostile: str, audit: Path, tmp_path: Path) -> None:
    edit, words = HOSTILE[hostile]
    change(audit, edit)
    check_points_record(read(audit), "the record")  # the schema alone lets it pass
    for use in (lambda: verify(audit, Places()), lambda: write_report(audit, tmp_path / "report.html")):
        with pytest.raises(UserError, match=f"is not a record that an audit writes: .*{words}"):
            use()
    assert not (tmp_path / "report.html").exists()


def test_whatever_passes_can_be_judged_and_drawn(points_audited: Path) -> None:
    record = read(points_audited)
    places, rng, passed = list(places_in(record)), random.Random(0), 0
    for _ in range(TRIES):
        hostile = changed(record, places, rng)
        try:
            check_points_record(hostile, "the report")
            check_points_consistent(hostile, "the report")
        except UserError:
            continue
        passed += 1
        assert [*point_values(hostile), *conclusions_on_points(hostile)]
        assert points_page(hostile, {})
    assert passed >= TRIES / 8


def test_the_page_is_read_back_as_it_was_written(points_audited: Path, tmp_path: Path) -> None:
    write_report(points_audited, tmp_path / "report.html")
    report = read_report(tmp_path / "report.html")
    assert report.record == read(points_audited)
    assert report.pictures.keys() == {"points.png"}
    write_report(tmp_path / "report.html", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "report.html").read_bytes()
