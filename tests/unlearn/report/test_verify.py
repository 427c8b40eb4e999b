import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import open_regular
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.record.schema import read_record
from unlearn.commands.main import main
from unlearn.report.places import Places
from unlearn.report.verify.chain import claims, index_in
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, Check, summary
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report

SHARDS = {
    "uri": "shards",
    "complete": True,
    "index_sha256": None,
    "teacher_sha256": "a" * 64,
    "samples": 0,
    "method": "fast",
    "settings": {},
    "plan": {"classes": [0]},
    "versions": {},
    "shards": {},
}


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


def test_a_check_of_a_missing_file_says_that_it_was_not_made(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    record["models"]["student"]["path"] = str(tmp_path / "gone")
    record["models"]["references"][1]["path"] = str(tmp_path)
    (tmp_path / AUDIT).write_text(json.dumps(record))
    student, retrained, pictures = [check for check in verify(tmp_path, Places()) if check.state == NOT_CHECKED]
    assert student.why == f"{tmp_path / 'gone'} is not there: name its place now with --student"
    assert retrained.what == "retrained model 2 is the one that was audited"
    assert retrained.why == f"{tmp_path} can't be read: it is a folder"
    assert "are not there" in pictures.why


def test_a_file_that_the_user_names_must_be_there(report: Path, models: Mapping[str, Path], tmp_path: Path) -> None:
    for option in ("--student", "--teacher", "--shards", "--reference"):
        given = [option, str(tmp_path / "nope")] * (2 if option == "--reference" else 1)
        result = CliRunner().invoke(main, ["verify", str(report), *given])
        assert result.exit_code == 2, result.output
        assert f"{option} {tmp_path / 'nope'}: there is no" in result.stderr
    with pytest.raises(UsageError, match="the audit had 2 references, and 1 is given"):
        verify(report, Places(references=(models["second"],)))
    swapped = verify(report, Places(references=(models["third"], models["second"])))
    assert broken(swapped) == [f"retrained model {n} is the one that was audited" for n in (1, 2)]


def test_a_changed_page_around_an_honest_record_is_found(report: Path, tmp_path: Path) -> None:
    text, what = report.read_text(), "the page shows what its record says"
    for old, new in (
        (">Like retrained<", ">Not unlearned<"),
        ("</main>", "<p>fine</p></main>"),
        (">\n", ">\r\n"),
    ):
        assert old in text
        report.write_bytes(text.replace(old, new, 1).encode())
        assert broken(verify(report, Places())) == [what]
    result = CliRunner().invoke(main, ["verify", str(report)])
    assert result.exit_code == 1
    assert "1 is broken" in result.output


def test_a_page_of_another_version_is_not_checked_and_can_be_rendered_again(report: Path, page_path: Path) -> None:
    changed = report.read_text().replace('name="generator" content="', 'name="generator" content="later\x1b[2J ', 1)
    report.write_text(changed.replace("Like retrained", "Undecided"))
    (check,) = [check for check in verify(report, Places()) if check.state != HOLDS]
    assert check.state == NOT_CHECKED
    assert "written by later[2J data-free-unlearning" in check.why
    write_report(report, report.parent / "new.html")
    assert (report.parent / "new.html").read_bytes() == page_path.read_bytes()


def test_the_models_in_a_record_are_compared_with_their_own_cards(audited: Path, tmp_path: Path) -> None:
    def found(change: Callable[[dict[str, Any]], object]) -> list[str]:
        record = read_record(audited / AUDIT)
        change(record)
        return broken(verify(written(record, tmp_path), Places()))

    assert found(lambda r: r["class_names"].reverse()) == ["the teacher's card says what the record does"]
    never_saw_it = {"without": [0], "data": "hospital"}
    assert found(lambda r: r["models"]["references"][0].update(training=never_saw_it)) == [
        "retrained model 1's card says what the record does"
    ]
    assert found(lambda r: r["models"]["student"].update(width=2.0)) == ["the student's card says what the record does"]


def test_a_record_of_other_rules_is_not_called_broken(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    record["verdict"]["conclusion"] = "traces left"
    assert broken(verify(written(record, tmp_path), Places())) != []
    record["versions"]["data-free-unlearning"] = "0.0.1, sources 012345678901"
    checks = verify(written(record, tmp_path), Places())
    assert broken(checks) == []
    (check,) = [c for c in checks if "the verdict follows" in c.what]
    assert check.state == NOT_CHECKED
    assert "by this version's rules: traces left instead of" not in check.why
    assert "written by 0.0.1, sources 012345678901, whose rules may be others" in check.why


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("measurements", 0, "readings", "this model", "low"), 1.0, "the interval of accuracy-retain"),
        (("measurements", 1, "readings", "original", "high"), 99.99, "the interval of accuracy-forget"),
        (("measurements", 1, "details", "confusion", "this model", 0, 0), 25, "the value of accuracy-forget"),
        (("verdict", "reasons", 0), "it is perfect", "reasons and intervals"),
        (("verdict", "sentence"), "It is perfect.", "reasons and intervals"),
        (("controls", 0, "subject"), "masked logit", "verdicts on the known models"),
        (("histograms", 0, "counts", 0), 1000, "the histogram of original"),
        (("relearn-20", "details", "curves", "this model", 0, "accuracy", 3), 3.0, "the values of relearn-20"),
        (("relearn-20", "details", "curves", "original", 0, "reached"), 7, "the steps of relearn-20"),
        (("relearn-20", "details", "anamnesis", "index"), 9.9, "the Anamnesis Index of relearn-20"),
    ],
)
def test_numbers_that_contradict_each_other_are_found(
    audited: Path, tmp_path: Path, path: tuple[str | int, ...], value: object, words: str
) -> None:
    record = read_record(audited / AUDIT)
    place = record
    if path[0] == "relearn-20":
        place, path = next(m for m in record["measurements"] if m["name"] == path[0]), path[1:]
    for step in path[:-1]:
        place = place[step]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    (tmp_path / AUDIT).write_text(json.dumps(record))
    assert any(words in what for what in broken(verify(tmp_path, Places())))


def written(record: dict[str, Any], folder: Path) -> Path:
    (folder / AUDIT).write_text(json.dumps(record))
    return folder


def test_devices_and_pipes_are_not_read(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    os.mkfifo(tmp_path / "pipe")
    for model, path in zip(record["models"]["references"], ("/dev/zero", str(tmp_path / "pipe")), strict=True):
        model["path"] = path
    states = [check for check in verify(written(record, tmp_path), Places()) if "was audited" in check.what]
    assert [check.state for check in states] == [HOLDS, HOLDS, NOT_CHECKED, NOT_CHECKED]
    assert states[-1].why.endswith("can't be read: it is a pipe, not a file")


def test_a_path_is_not_looked_up_as_a_shards_name(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    record["origin"]["shards"] = {**SHARDS, "shards": {"../../etc/passwd": "a" * 64}}
    with pytest.raises(UserError, match=r"at origin/shards/shards"):
        verify(written(record, tmp_path), Places())


def test_shards_out_of_reach_are_not_checked(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_record(audited / AUDIT)
    record["origin"]["shards"] = {**SHARDS, "uri": "s3://bucket/run"}

    def without_package(uri: str) -> None:
        raise UserError("s3:// needs a package")

    monkeypatch.setattr("unlearn.report.verify.chain.open_store", without_package)
    (check,) = [c for c in verify(written(record, tmp_path), Places()) if "shards' index" in c.what]
    assert check.state == NOT_CHECKED
    assert "s3:// needs a package" in check.why


def test_shards_that_are_no_files_are_not_checked(tmp_path: Path) -> None:
    (tmp_path / "index.json").symlink_to("/dev/zero")
    assert index_in(str(tmp_path), "what", "--shards") == Check(
        "what", NOT_CHECKED, f"{tmp_path}/index.json: it is a device, not a file: remove it, or choose another folder"
    )


def test_no_escape_sequence_of_a_report_reaches_the_terminal(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    record["models"]["student"]["path"] = "gone\x1b[2J\nholds"
    record["models"]["student"]["training"] = {"teacher_sha256": "\x1b]0;title\x07"}
    result = CliRunner().invoke(main, ["verify", str(written(record, tmp_path))])
    assert result.exit_code == 1
    assert "gone\\x1b[2J holds is not there" in result.output
    assert not set("\x1b\x07") & set(result.output)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "9" * 400])
def test_a_record_with_an_infinite_number_is_refused(audited: Path, tmp_path: Path, number: str) -> None:
    text = (audited / AUDIT).read_text()
    (tmp_path / AUDIT).write_text(re.sub(r'"mean": [^,\n]+', f'"mean": {number}', text, count=1))
    with pytest.raises(UserError, match="is not an audit record"):
        verify(tmp_path, Places())


def test_a_bug_is_a_traceback_and_not_the_fault_of_the_report(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise TypeError("a bug of ours")

    for name in ("conclusions.judge", "values.share_interval", "verify.render"):
        with monkeypatch.context() as patch:
            patch.setattr(f"unlearn.report.verify.{name}", bug)
            with pytest.raises(TypeError, match="a bug of ours"):
                verify(report, Places())


def test_each_file_is_read_once(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    as_before = open_regular
    monkeypatch.setattr(
        "synth.basics.regular_files.open_regular",
        lambda path, largest: opened.append(path.name) or as_before(path, largest),
    )
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail(f"{path} is read in another way"))
    verify(report, Places())
    assert sorted(opened) == sorted(
        ["report.html", "teacher.safetensors", "first.safetensors", "second.safetensors", "third.safetensors"]
    )


def test_the_summary_is_in_words() -> None:
    checks = [Check("a", HOLDS), Check("b", BROKEN)]
    assert summary(checks) == "1 check holds, 1 is broken, 0 could not be checked"
    assert summary([*checks, *checks]) == "2 checks hold, 2 are broken, 0 could not be checked"


def test_the_chain_from_teacher_through_shards_to_student() -> None:
    teacher, student, index = "a" * 64, "b" * 64, "c" * 64
    record = {
        "models": {
            "teacher": {"sha256": teacher},
            "student": {"sha256": student, "training": {"teacher_sha256": teacher}},
        },
        "origin": {
            "shards": {"teacher_sha256": teacher, "index_sha256": index},
            "problems": [],
            "run": {"provenance": {"student_sha256": student, "teacher_sha256": teacher, "index_sha256": index}},
        },
    }
    assert {check.state for check in claims(record)} == {HOLDS}
    record["origin"]["run"]["provenance"]["index_sha256"] = "d" * 64  # type: ignore[index]
    assert "the run names these shards" not in [
        check.what for check in claims(record)
    ]  # hold-outs, which are looked for elsewhere
    record["origin"]["shards"]["teacher_sha256"] = "e" * 64  # type: ignore[index]
    assert "the shards name this teacher" in broken(list(claims(record)))
