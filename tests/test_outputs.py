"""Files that a command writes where the user says: it replaces its own, and never something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from synth.basics.disk import prepare_output
from synth.basics.errors import UsageError, UserError
from synth.checkpoint.file import SETTINGS, STUDENT, student_file
from synth.commands.main import main as synth
from unlearn.commands.main import main as unlearn

WRITERS = {
    "preview": (synth, lambda run, teacher: ["preview", run, "-o"], "grid.png"),
    "recognise": (synth, lambda run, teacher: ["recognise", run, "--teacher", teacher, "--json"], "found.json"),
    "evaluate": (
        unlearn,
        lambda run, teacher: ["evaluate", teacher, "--data", "digits", "--forget", "0", "--out"],
        "found.json",
    ),
}


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_a_command_replaces_its_own_file_and_no_other(
    writer: str, tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    command, given, name = WRITERS[writer]

    def write(out: Path) -> tuple[int, str]:
        result = CliRunner().invoke(command, list(map(str, [*given(tiny_run, tiny_teacher_path), out])))
        return result.exit_code, result.stderr

    for _ in range(2):
        assert write(tmp_path / "new" / name)[0] == 0
    other = tmp_path / f"other{Path(name).suffix}"
    other.write_bytes((tiny_run / "index.json").read_bytes())
    code, error = write(other)
    assert (code, error.count("\n")) == (2, 1), error
    assert f"{other} is there already and is not " in error
    assert other.read_bytes() == (tiny_run / "index.json").read_bytes()


def test_an_empty_file_is_no_loss(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    prepare_output(tmp_path / "a", b"x", "a thing")
    (tmp_path / "a").write_bytes(b"y")
    with pytest.raises(UsageError, match=r"a is there already and is not a thing: name another file, or remove"):
        prepare_output(tmp_path / "a", b"x", "a thing")


def test_a_folder_without_a_student_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"holds no {STUDENT}: name a checkpoint, or the folder of a run"):
        student_file(tmp_path)
    (tmp_path / SETTINGS).touch()
    with pytest.raises(UserError, match=f"has no {STUDENT} yet: finish it with its own command and --resume"):
        student_file(tmp_path)
    (tmp_path / STUDENT).touch()
    assert student_file(tmp_path) == tmp_path / STUDENT
    assert student_file(tmp_path / "teacher.safetensors") == tmp_path / "teacher.safetensors"


def test_a_name_that_is_too_long_for_a_file_is_one_line(tiny_teacher_path: Path, tmp_path: Path) -> None:
    long = tmp_path / ("a" * 300)
    for given in (
        ["evaluate", long, "--data", "digits", "--forget", "0"],
        ["audit", long, "--teacher", tiny_teacher_path, "--forget", "0", "--out", tmp_path / "audit"],
    ):
        result = CliRunner().invoke(unlearn, list(map(str, given)))
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.stderr
