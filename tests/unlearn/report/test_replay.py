from collections.abc import Mapping
from pathlib import Path

import pytest

from synth.errors import UserError
from unlearn.audit.run import AUDIT
from unlearn.audit.schema import read_record
from unlearn.report.replay import compare, replay

quiet = lambda line: None  # noqa: E731


def test_a_replay_gives_the_same_bytes_whatever_the_number_of_workers(audited: Path, tmp_path: Path) -> None:
    found = replay(audited, tmp_path / "again", {}, None, None, 1, quiet)
    assert found.agrees
    assert (found.equal, found.largest) == (found.measures, 0.0)
    assert (tmp_path / "again" / AUDIT).read_bytes() == (audited / AUDIT).read_bytes()


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


def test_another_student_is_not_a_replay(models: Mapping[str, Path], audited: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the one that was audited"):
        replay(audited, tmp_path / "again", {"student": models["third"]}, None, None, 1, quiet)
