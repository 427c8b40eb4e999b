import json
from pathlib import Path

from unlearn.audit.record.origin import run_of
from unlearn.run.folder import METRICS, PROVENANCE, SETTINGS


def test_a_run_is_the_story_of_the_student_that_it_names_and_of_no_other(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text("{}")
    (tmp_path / METRICS).write_text('{"step": 1, "loss": NaN}')
    (tmp_path / PROVENANCE).write_text(json.dumps({"student_sha256": "a" * 64}))
    told = run_of(tmp_path, "a" * 64)
    assert told is not None
    assert told["metrics"] == [{"step": 1, "loss": None}]
    assert run_of(tmp_path, "b" * 64) is None  # such as student-000850.safetensors, of an earlier step
