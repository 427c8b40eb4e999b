import json
from pathlib import Path

import pytest

from synth.checkpoint.file import SETTINGS, STUDENT
from unlearn.auditing.record.origin import MOST_METRICS, describe_origin, read_run, run_of, thinned
from unlearn.run.folder import METRICS, PROVENANCE

DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SETTINGS).write_text("{}")
    (tmp_path / METRICS).write_text('{"step": 1, "loss": NaN}')
    (tmp_path / PROVENANCE).write_text(json.dumps({"student_sha256": DIGEST}))
    return tmp_path


def test_a_run_describes_the_student_that_it_names(folder: Path) -> None:
    run = run_of(folder, DIGEST)
    assert run is not None
    assert run["metrics"] == [{"step": 1, "loss": None}]
    assert describe_origin(folder / STUDENT, DIGEST, None)["problems"] == []


def test_a_student_that_differs_from_its_own_runs_record_is_a_problem(folder: Path) -> None:
    run, problems = read_run(folder / STUDENT, OTHER)
    assert run is None
    assert len(problems) == 1
    assert "is not the student that" in problems[0]
    assert str(folder / PROVENANCE) in problems[0]


def test_an_earlier_student_of_the_run_is_not_described_and_is_no_problem(folder: Path) -> None:
    assert read_run(folder / "student-000850.safetensors", OTHER) == (None, [])


def test_a_student_outside_of_any_run_is_no_problem(tmp_path: Path) -> None:
    assert read_run(tmp_path / STUDENT, DIGEST) == (None, [])


@pytest.mark.parametrize("name", [SETTINGS, METRICS, PROVENANCE])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_a_damaged_or_missing_file_of_the_run_is_a_problem_that_names_the_file(
    name: str, content: bytes | None, folder: Path
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    run, problems = read_run(folder / STUDENT, DIGEST)
    assert run is None
    assert len(problems) == 1
    assert str(folder / name) in problems[0]


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000, 1234])
def test_the_last_line_of_the_metrics_is_always_kept(count: int) -> None:
    metrics = [{"step": step} for step in range(count)]
    kept = thinned(metrics)
    assert kept[:1] == metrics[:1]
    assert kept[-1:] == metrics[-1:]
    assert len(kept) <= MOST_METRICS + 1
