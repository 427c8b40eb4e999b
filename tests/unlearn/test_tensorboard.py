import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unlearn.commands.main import main
from unlearn.run import tensorboard
from unlearn.run.folder import METRICS, STUDENT


def test_the_events_are_the_runs_metrics(tiny_run: Path, tmp_path: Path) -> None:
    options = ["--shards", str(tiny_run), "--forget", "0", "--out", str(tmp_path / "run"), "--steps", "120"]
    done = CliRunner().invoke(main, ["distill", *options, "--tensorboard", str(tmp_path / "events")])
    assert done.exit_code == 0, done.output
    metrics = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    found = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in found.Scalars("loss")] == [line["step"] for line in metrics] == [100, 120]
    assert [event.value for event in found.Scalars("loss")] == pytest.approx([line["loss"] for line in metrics])


def test_a_resumed_run_hides_the_events_that_it_repeats(tmp_path: Path) -> None:
    for done, steps in ((0, (50, 100, 150)), (100, (150, 200))):
        with tensorboard.events(tmp_path, done, "try again") as log:
            for step in steps:
                log(step, {"loss": float(done + step)})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (50, 50),
        (100, 100),
        (150, 250),
        (200, 300),
    ]


def test_without_the_package_the_error_says_how_to_install_it(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    options = ["--shards", str(tiny_run), "--forget", "0", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(main, ["distill", *options, "--tensorboard", str(tmp_path / "events")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "pip install '.[tensorboard]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_refused_before_an_earlier_student_is_replaced(
    tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    options = ["--shards", str(tiny_run), "--forget", "0", "--out", str(tmp_path / "run"), "--steps", "20"]
    assert CliRunner().invoke(main, ["distill", *options]).exit_code == 0
    before = (tmp_path / "run" / STUDENT).read_bytes()
    done = CliRunner().invoke(main, ["distill", *options, "--overwrite", "--tensorboard", str(tmp_path / "file")])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert (tmp_path / "run" / STUDENT).read_bytes() == before
