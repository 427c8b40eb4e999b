"""How much memory decoded images may take, and what follows from it: windows, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from synth.basics.errors import UsageError
from synth.checkpoint.file import SETTINGS, STUDENT
from synth.shards.store import Folder
from tests.unlearn.shards import GIB
from unlearn.commands.main import main
from unlearn.samples import memory
from unlearn.samples.memory import Share, bytes_of, bytes_of_shard, divide_memory, memory_limit
from unlearn.samples.runs import Runs


def test_memory_is_given_in_bytes_or_as_a_share_of_what_the_process_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_limit", lambda: 8 * GIB)
    assert [bytes_of(text) for text in ("1GiB", "500MB", "1.5 kb", "25%")] == [GIB, 500_000_000, 1500, 2 * GIB]
    for text in ("", "much", "-1GiB", "1TiB!", "NaN%", "0%", "101%", "0MB", "9" * 400 + "GB", "1"):
        with pytest.raises(UsageError, match="--memory"):
            bytes_of(text)


def test_a_containers_limit_and_that_of_ulimit_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_limit() > 10**9
    monkeypatch.setattr(memory, "control_groups", lambda: [(10**12, 5), (123456789, 5)])
    assert memory_limit() == 123456789
    monkeypatch.setattr("resource.getrlimit", lambda which: (1000, 2000))
    assert memory_limit() == 1000


def test_a_run_that_fits_is_one_window_and_a_larger_one_has_windows_of_half_of_what_fits(tiny_run: Path) -> None:
    runs = Runs([Folder(tiny_run)])
    each = bytes_of_shard(runs)
    assert each >= 25 * (28 * 28 + 3 * 2 * 10)
    assert divide_memory(runs, 4 * each).slots == divide_memory(runs, GIB).slots == runs.planned == 4
    runs.ends = [4000]  # as many shards are planned
    for shards in (20, 100, 1000):
        share = divide_memory(runs, shards * each)
        assert share.slots == 2 * share.window or share.slots == 2 * share.window + 1
        assert shards * 0.5 <= share.slots + 2 * share.readers <= shards
    assert divide_memory(runs, each) == Share(1, 2, 1)  # the least
    kept = divide_memory(runs, 20 * each, window=15)
    assert kept.window == 15
    assert kept.slots > 15


def test_a_student_depends_on_the_window_which_is_recorded_and_not_on_the_memory(
    tiny_run: Path, tmp_path: Path
) -> None:
    def distilled(out: str, *options: object) -> Path:
        given = ["distill", "--shards", tiny_run, "--forget", "0", "--out", tmp_path / out, "--steps", 30]
        given += ["--batch-size", 16, "--threads", 1]
        result = CliRunner().invoke(main, list(map(str, [*given, *options])))
        assert result.exit_code == 0, result.output
        return tmp_path / out

    each = bytes_of_shard(Runs([Folder(tiny_run)]))
    whole, small = distilled("whole"), distilled("small", "--memory", f"{3 * each}B")
    windows = [json.loads((run / SETTINGS).read_text())["window"] for run in (whole, small)]
    assert windows == [4, 1]
    student = (small / STUDENT).read_bytes()
    assert student != (whole / STUDENT).read_bytes()
    again = distilled("again", "--config", small / SETTINGS)
    assert (again / STUDENT).read_bytes() == student
    assert (distilled("more", "--window", 1, "--memory", "1GiB") / STUDENT).read_bytes() == student


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--memory lots", "--memory 'lots' is not an amount of memory: write it like 2GiB or 25%"),
        ("--memory 200%", "--memory 200% is not a share: give one above 0% and at most 100%"),
        ("--window 0", "0 is not in the range x>=1"),
    ],
)
def test_a_memory_that_is_none_is_refused_in_one_line(
    tiny_run: Path, tmp_path: Path, options: str, message: str
) -> None:
    given = ["distill", "--shards", str(tiny_run), "--forget", "0", "--out", str(tmp_path / "run"), *options.split()]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2
    assert message in result.output


def test_a_window_without_effect_is_refused(tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path) -> None:
    given = ["gkt", "--teacher", tiny_teacher_path, "--shards", tiny_run, "--forget", "0", "--out", tmp_path / "run"]
    result = CliRunner().invoke(main, [*map(str, given), "--window", "2"])
    assert result.exit_code == 2
    assert "--window has no effect: gkt trains on no shards here" in result.output


def test_a_line_says_that_two_shards_take_more_than_the_memory(tiny_run: Path, tmp_path: Path) -> None:
    given = ["distill", "--shards", tiny_run, "--forget", "0", "--out", tmp_path / "run", "--steps", 1]
    result = CliRunner().invoke(main, [*map(str, given), "--memory", "1KB"])
    assert result.exit_code == 0, result.output
    assert "more than --memory 1KB: give more memory, or make smaller shards" in result.output


def test_a_window_that_no_memory_holds_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_limit", lambda: 3 * bytes_of_shard(Runs([Folder(tiny_run)])))
    given = ["distill", "--shards", tiny_run, "--forget", "0", "--out", tmp_path / "run", "--steps", 1, "--window", 4]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert result.exit_code == 1
    assert "that this process may take: give a smaller --window" in result.output
    assert not (tmp_path / "run").exists()
