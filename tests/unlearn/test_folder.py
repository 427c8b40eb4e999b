"""The folder of a run: what may take it, and what is changed in it when."""

from pathlib import Path

import pytest

from synth.basics.errors import UsageError
from synth.basics.way_on import WayOn
from synth.checkpoint.file import SETTINGS, STUDENT
from tests.runs import digests
from unlearn.run.folder import METRICS, PROVENANCE, RunFolder

CLAIM = {"method": "gkt", "seed": 0}
WAY_ON = WayOn(command="unlearn gkt")


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The folder of a complete run."""
    folder = RunFolder(tmp_path / "run", WAY_ON)
    folder.begin(CLAIM)
    for name in (STUDENT, PROVENANCE):
        (folder.path / name).write_text("{}")
    return folder.path


def test_a_new_object_and_a_check_change_no_file(ended: Path, tmp_path: Path) -> None:
    before = digests(ended)
    RunFolder(ended, WAY_ON).check(CLAIM, overwrite=True)
    RunFolder(ended, WAY_ON).check(CLAIM, resume=True)
    assert RunFolder(ended, WAY_ON).complete
    assert digests(ended) == before
    RunFolder(tmp_path / "new", WAY_ON).check(CLAIM)
    assert not (tmp_path / "new").exists()


def test_a_run_that_overwrites_another_begins_with_its_own_settings_only(ended: Path) -> None:
    RunFolder(ended, WAY_ON).begin({**CLAIM, "seed": 5}, overwrite=True)
    assert {path.name for path in ended.iterdir()} == {SETTINGS, METRICS}
    assert RunFolder(ended, WAY_ON).settings() == {**CLAIM, "seed": 5}


def test_a_run_that_resumes_keeps_every_file(ended: Path) -> None:
    before = digests(ended)
    RunFolder(ended, WAY_ON).begin(CLAIM, resume=True)
    assert digests(ended) == before


@pytest.mark.parametrize(
    ("claim", "options", "words"),
    [
        (
            CLAIM,
            {},
            "already holds files .*: go on with --resume, replace them with --overwrite, or choose another --out",
        ),
        ({**CLAIM, "seed": 5}, {"resume": True}, "was begun with seed 0, not 5"),
        ({**CLAIM, "steps": 5}, {"resume": True}, "was begun with steps None, not 5"),
        (CLAIM, {"resume": True, "overwrite": True}, "--resume and --overwrite exclude each other"),
    ],
)
def test_a_run_that_may_not_have_the_folder_changes_nothing(
    ended: Path, claim: dict[str, object], options: dict[str, bool], words: str
) -> None:
    before = digests(ended)
    for take in (RunFolder(ended, WAY_ON).check, RunFolder(ended, WAY_ON).begin):
        with pytest.raises(UsageError, match=words):
            take(claim, **options)
    assert digests(ended) == before


def test_a_folder_with_files_of_others_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex, \.\.\.\): choose another --out$"):
        RunFolder(tmp_path, WAY_ON).begin(CLAIM, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
