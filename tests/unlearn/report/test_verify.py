import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from unlearn.audit.run import AUDIT
from unlearn.audit.schema import read_record
from unlearn.cli import main
from unlearn.report.verify import BROKEN, HOLDS, NOT_CHECKED, Check, Places, claims, verify


@pytest.fixture
def report(page_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(page_path, tmp_path / "report.html"))


def broken(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if check.state == BROKEN]


def test_an_honest_report_holds(report: Path, audited: Path) -> None:
    assert {check.state for check in verify(report, Places())} == {HOLDS}
    assert {check.state for check in verify(audited, Places())} == {HOLDS}
    result = CliRunner().invoke(main, ["verify", str(report)])
    assert "0 are broken, 0 could not be checked" in result.output


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"conclusion": "like retrained", "findings"',
            '"conclusion": "traces left", "findings"',
            "the verdict follows",
        ),
        ('"status": "inside"', '"status": "less than retrained"', "every status"),
        ('"conclusion": "output suppression only"', '"conclusion": "like retrained"', "verdicts on the known models"),
    ],
)
def test_a_changed_verdict_is_found(report: Path, old: str, new: str, words: str) -> None:
    text = report.read_text()
    assert old in text
    report.write_text(text.replace(old, new, 1))
    assert any(words in what for what in broken(verify(report, Places())))
    result = CliRunner().invoke(main, ["verify", str(report)])
    assert result.exit_code != 0


def test_a_changed_value_is_found(audited: Path, tmp_path: Path) -> None:
    shutil.copytree(audited, tmp_path / "audit")
    record = read_record(audited / AUDIT)
    record["measurements"][1]["readings"]["this model"]["values"][0][0] = 77.0
    (tmp_path / "audit" / AUDIT).write_text(json.dumps(record))
    assert any("accuracy-forget" in what for what in broken(verify(tmp_path / "audit", Places())))


def test_another_student_or_teacher_or_picture_is_found(
    report: Path, models: Mapping[str, Path], audited: Path, tmp_path: Path
) -> None:
    assert broken(verify(report, Places(student=models["third"]))) == ["the student is the one that was audited"]
    assert broken(verify(report, Places(teacher=models["third"]))) == ["the teacher is the one that was audited"]
    shutil.copytree(audited, tmp_path / "audit")
    victim = next((tmp_path / "audit" / "pictures").iterdir())
    victim.write_bytes(victim.read_bytes() + b" ")
    assert broken(verify(tmp_path / "audit", Places())) == ["the pictures are the audit's"]


def test_a_file_that_is_gone_is_not_checked_and_says_so(report: Path, tmp_path: Path) -> None:
    checks = verify(report, Places(student=tmp_path / "gone"))
    (gone,) = [check for check in checks if check.state == NOT_CHECKED]
    assert "name its place" in gone.why


def test_the_chain_from_teacher_through_shards_to_student() -> None:
    teacher, student, index = "a" * 64, "b" * 64, "c" * 64
    record = {
        "models": {
            "teacher": {"sha256": teacher},
            "student": {"sha256": student, "training": {"teacher_sha256": teacher}},
        },
        "origin": {
            "shards": {"teacher_sha256": teacher, "index_sha256": index},
            "run": {"provenance": {"student_sha256": student, "teacher_sha256": teacher, "index_sha256": index}},
        },
    }
    assert {check.state for check in claims(record)} == {HOLDS}
    record["origin"]["run"]["provenance"]["index_sha256"] = "d" * 64  # type: ignore[index]
    assert broken(list(claims(record))) == ["the run names these shards"]
    record["origin"]["shards"]["teacher_sha256"] = "e" * 64  # type: ignore[index]
    assert "the shards name this teacher" in broken(list(claims(record)))
