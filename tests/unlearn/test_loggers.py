"""`--log-to`: every logger gets the run's metrics, and a resumed run goes on with the same log."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from synth.basics.errors import UserError
from synth.checkpoint.file import STUDENT
from tests.unlearn import services
from unlearn.commands.main import main
from unlearn.commands.unlearning import COMMANDS
from unlearn.run import loggers
from unlearn.run.folder import LOGS, METRICS, TABLE, RunFolder
from unlearn.run.loggers import Destination, is_installed, opened, parse
from unlearn.run.loggers.logged_run import LoggedRun


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def distill(shards: Path, out: Path, *options: object) -> Result:
    return invoke("distill", "--shards", shards, "--forget", 0, "--out", out, "--steps", 120, *options)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def table(file: Path) -> list[dict[str, float]]:
    with file.open() as rows:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(rows)]


def events(folder: Path, name: str = "loss") -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(name)]


def log_steps(destination: str, run: LoggedRun, steps: tuple[int, ...], **values: float) -> None:
    name, _, target = destination.partition(":")
    with opened([Destination(name, target or None)], run) as log:
        for step in steps:
            log(step, values or {"loss": run.done + step})


def folder_run(tmp_path: Path, **facts: Any) -> LoggedRun:
    """A run in a folder, as an unlearning method has it."""
    (tmp_path / "run").mkdir(exist_ok=True)
    return LoggedRun(place=tmp_path / "run", memory=tmp_path / "run" / LOGS, **facts)


def test_the_loggers_get_the_runs_metrics(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    done = distill(tiny_run, tmp_path / "run", "--log-to", "csv", "--log-to", f"tensorboard:{folder}")
    assert done.exit_code == 0, done.output
    logged = metrics(tmp_path / "run")
    assert [line["step"] for line in logged] == [100, 120]
    assert table(tmp_path / "run" / TABLE) == logged
    assert events(folder) == [(line["step"], pytest.approx(line["loss"])) for line in logged]


def test_a_resumed_run_logs_no_step_twice(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--log-to", "csv", "--log-to", f"csv:{tmp_path / 'log.csv'}", "--log-to", f"tensorboard:{tmp_path}/e")
    save = RunFolder.save_checkpoint

    def interrupt(folder: RunFolder, state: Any) -> None:
        if state["step"] == 120:  # it is logged, but the checkpoint is of step 100
            raise KeyboardInterrupt
        save(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", interrupt)
        assert distill(tiny_run, tmp_path / "run", *options).exit_code == 130
    assert [row["step"] for row in table(tmp_path / "log.csv")] == [100, 120]
    done = distill(tiny_run, tmp_path / "run", *options, "--resume")
    assert done.exit_code == 0, done.output
    logged = metrics(tmp_path / "run")
    assert [line["step"] for line in logged] == [100, 120]
    assert table(tmp_path / "log.csv") == table(tmp_path / "run" / TABLE) == logged
    assert [step for step, _ in events(tmp_path / "e")] == [100, 120]


def test_a_training_logs_its_epochs_beside_its_checkpoint(tmp_path: Path) -> None:
    options = ("train", "--arch", "lenet5", "--width", 0.25, "--data", "digits", "--epochs", 2, "--log-to", "csv")
    done = invoke(*options, "--out", tmp_path / "teacher.safetensors")
    assert done.exit_code == 0, done.output
    rows = table(tmp_path / "teacher.csv")
    assert [row["step"] for row in rows] == [1, 2]
    assert f"loss {rows[1]['loss']:.4f}" in done.stdout
    again = invoke(*options, "--out", tmp_path / "other.safetensors", "--log-to", f"csv:{tmp_path / 'teacher.csv'}")
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "teacher.csv exists already" in again.stderr
    assert table(tmp_path / "teacher.csv") == rows


def test_each_run_of_a_sweep_has_its_own_log(tiny_run: Path, tmp_path: Path) -> None:
    options = ("--log-to", "csv", "--log-to", f"csv:{tmp_path}/log.csv", "--log-to", f"tensorboard:{tmp_path}/events")
    command = ("sweep", "--method", "distill", "--over", "steps=2,4", "--forget", 0, "--shards", tiny_run)
    done = invoke(*command, "--data", "digits", "--out", tmp_path / "sweep", *options)
    assert done.exit_code == 0, done.output
    for steps in (2, 4):
        part = f"steps-{steps}/seed-0"
        logged = metrics(tmp_path / "sweep" / part)
        assert table(tmp_path / "sweep" / part / TABLE) == table(tmp_path / "log" / f"{part}.csv") == logged
        assert events(tmp_path / "events" / part) == [(steps, pytest.approx(logged[0]["loss"]))]


def test_a_csv_file_gets_new_columns_as_they_come(tmp_path: Path) -> None:
    with opened([Destination("csv", None)], folder_run(tmp_path)) as log:
        log(1, {"noise_loss": 0.1})
        log(2, {"loss": 0.3, "lr": 1e-5})
        log(3, {"loss": 1 / 3})
    assert (tmp_path / "run" / TABLE).read_text() == (
        "step,noise_loss,loss,lr\n1,0.1,,\n2,,0.3,1e-05\n3,,0.3333333333333333,\n"
    )


def test_a_row_that_a_killed_run_left_incomplete_is_removed(tmp_path: Path) -> None:
    log_steps("csv", folder_run(tmp_path), (50, 100, 150))
    with (tmp_path / "run" / TABLE).open("a") as file:
        file.write("2")  # of "200,..."
    log_steps("csv", folder_run(tmp_path, done=100), (150,))
    assert table(tmp_path / "run" / TABLE) == [{"step": s, "loss": v} for s, v in ((50, 50), (100, 100), (150, 250))]


@pytest.mark.parametrize("row", ["2.5,1,1", "word,1,1", "3", "3,1,1,1", ",,", "\xff,1,1"])
def test_rows_that_no_run_wrote_are_removed(row: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / TABLE).write_bytes(f"step,loss,lr\n1,1.0,0.1\n{row}\n".encode("latin-1"))
    log_steps("csv", folder_run(tmp_path, done=5), (6,), loss=2.0)
    kept = [{"step": 1, "loss": 1.0, "lr": 0.1}, *([{"step": 3}] if row == "3" else []), {"step": 6, "loss": 2.0}]
    assert table(tmp_path / "run" / TABLE) == kept


@pytest.mark.parametrize("replaces", [False, True])
def test_a_device_is_no_file_for_a_table(replaces: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--log-to csv: /dev/null (exists already|is not a log of a run): "):
        loggers.check([Destination("csv", "/dev/null")], folder_run(tmp_path, replaces=replaces))


@pytest.mark.parametrize(("done", "shown"), [(100, [(50, 50), (100, 100), (150, 250)]), (0, [(150, 150)])])
def test_events_that_a_run_repeats_are_hidden(done: int, shown: list[tuple[int, float]], tmp_path: Path) -> None:
    folder = tmp_path / "events"
    log_steps(f"tensorboard:{folder}", folder_run(tmp_path), (50, 100, 150))
    (first,) = folder.iterdir()
    first.rename(folder / "events.out.tfevents.0000000001.host.1.0")  # files are read in the order of their times
    log_steps(f"tensorboard:{folder}", folder_run(tmp_path, done=done), (150,))
    assert events(folder) == shown


@pytest.mark.parametrize(
    ("destination", "complaint"),
    [
        ("nonsense", "there is no logger 'nonsense': choose csv, tensorboard, wandb, mlflow"),
        ("tensorboard", "write --log-to tensorboard:FOLDER"),
        ("wandb:", "write --log-to wandb:PROJECT"),
        ("mlflow", "write --log-to mlflow:URI"),
        ("tensorboard:x", "pip install '.[tensorboard]'"),
        ("wandb:x", "pip install '.[wandb]'"),
        ("mlflow:x", "pip install '.[mlflow]'"),
    ],
)
def test_a_logger_that_cannot_work_is_refused_before_any_work(
    destination: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    done = distill(tmp_path / "nowhere", tmp_path / "run", "--log-to", destination)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_the_name_of_a_package_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nobodys_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("nobodys_package")
    assert is_installed("tensorboard")


@pytest.mark.parametrize(
    ("destination", "content", "overwrite", "complaint"),
    [
        ("tensorboard:mine", "mine", True, "mine"),
        ("csv:mine/log.csv", "mine", True, "mine"),
        ("csv:mine", "mine", True, "mine is not a log of a run"),
        ("csv:mine", "step,loss\n", False, "mine exists already"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_an_earlier_student_is_replaced(
    destination: str, content: str, overwrite: bool, complaint: str, tiny_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text(content)
    if overwrite:
        assert distill(tiny_run, Path("run"), "--steps", 2).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options = ["--steps", 2, *(["--overwrite"] if overwrite else [])]
    done = distill(tiny_run, Path("run"), *options, "--log-to", destination)
    assert done.exit_code in (1, 2)
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert ((tmp_path / "run" / STUDENT) in before) == overwrite


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> services.Wandb:
    module = services.Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_each_step_once_also_from_a_resumed_run(wandb: services.Wandb, tmp_path: Path) -> None:
    log_steps("wandb:p", folder_run(tmp_path, settings={"lr": 0.1}), (50, 100, 150))
    log_steps("wandb:p", folder_run(tmp_path, done=100), (150, 200))
    (run,) = wandb.runs.values()
    assert (run.name, run.config, run.exit_code) == ("run", {"lr": 0.1}, 0)
    assert run.history == [(50, {"loss": 50}), (100, {"loss": 100}), (150, {"loss": 150}), (200, {"loss": 300})]


def test_a_new_run_has_a_new_log_in_wandb(wandb: services.Wandb, tmp_path: Path) -> None:
    log_steps("wandb:p", folder_run(tmp_path, part="gate-0.1/seed-0"), (50,))
    shutil.rmtree(tmp_path / "run")  # as --overwrite does
    log_steps("wandb:p", folder_run(tmp_path, part="gate-0.2/seed-0"), (50,))
    assert [run.name for run in wandb.runs.values()] == ["gate-0.1/seed-0", "gate-0.2/seed-0"]


def test_the_package_wandb_writes_the_parts_of_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run = folder_run(tmp_path, settings={"lr": 0.1})
    loggers.check([Destination("wandb", "p")], run)
    log_steps("wandb:p", run, (50, 100))
    log_steps("wandb:p", folder_run(tmp_path, done=100), (150,))
    number = json.loads((tmp_path / "run" / LOGS).read_text())["wandb:p"]["id"]
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{number}/run-{number}.wandb"))) == 2


def test_wandb_without_a_login_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", services.Wandb(logged_in=False))
    with pytest.raises(UserError, match=r"^--log-to wandb: No API key configured\. Use .* WANDB_MODE=offline\)$"):
        loggers.check([Destination("wandb", "p")], folder_run(tmp_path))


@pytest.fixture(params=["the stand-in", "the package"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a store in a folder."""
    if request.param == "the package":
        pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    else:
        for name, module in services.mlflow_modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=str(tmp_path / "store"))


def number_in(store: Any, run: LoggedRun) -> str:
    """The store's own name of the run."""
    assert run.memory is not None
    return str(json.loads(run.memory.read_text())[f"mlflow:{store.tracking_uri}"]["id"])


def mlflow_history(store: Any, run: LoggedRun) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in store.get_metric_history(number_in(store, run), "loss")]


def test_mlflow_gets_each_step_once_also_from_a_resumed_run(store: Any, tmp_path: Path) -> None:
    run = folder_run(tmp_path, settings={"lr": 0.1, "forget": (0,), "shards": None})
    loggers.check([Destination("mlflow", store.tracking_uri)], run)
    log_steps(f"mlflow:{store.tracking_uri}", run, (50, 100, 150))
    log_steps(f"mlflow:{store.tracking_uri}", folder_run(tmp_path, done=100), (150, 200))
    assert mlflow_history(store, run) == [(50, 50), (100, 100), (150, 150), (200, 300)]
    found = store.get_run(number_in(store, run))
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params == {"lr": "0.1", "forget": "(0,)", "shards": "None"}


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")])
def test_mlflow_hears_how_a_run_ended(error: type[BaseException], status: str, tmp_path: Path, store: Any) -> None:
    run = folder_run(tmp_path)
    with suppress(error), opened([Destination("mlflow", store.tracking_uri)], run):
        raise error
    assert store.get_run(number_in(store, run)).info.status == status


@pytest.fixture
def losable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The URIs of stores that do not answer."""
    for name, module in services.mlflow_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    lost: set[str] = set()
    monkeypatch.setattr(services.MlflowClient, "lost_stores", lost)
    return lost


def test_a_store_that_never_answered_is_refused(losable: set[str], tmp_path: Path) -> None:
    losable.add("http://gone")
    with pytest.raises(UserError, match=r"^--log-to mlflow:http://gone: .* failed: connection refused$"):
        loggers.check([Destination("mlflow", "http://gone")], folder_run(tmp_path))


def test_steps_that_a_lost_server_missed_are_sent_at_the_end(losable: set[str], tmp_path: Path) -> None:
    said: list[str] = []
    run = folder_run(tmp_path, say=said.append)
    with opened([Destination("mlflow", "store")], run) as log:
        log(1, {"loss": 1.0})
        losable.add("store")
        log(2, {"loss": 2.0})
        log(3, {"loss": 3.0})
        losable.clear()
    assert len(said) == 1
    assert "did not get the steps from 2 on: API request to store failed: connection refused" in said[0]
    assert mlflow_history(services.MlflowClient(tracking_uri="store"), run) == [(1, 1), (2, 2), (3, 3)]


def test_a_target_may_hold_colons() -> None:
    assert parse("tensorboard:C:/events") == Destination("tensorboard", "C:/events")


def test_a_destination_that_is_given_twice_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--shards", "shards", "--forget", "0", "--out", "run"]
    logger = ["--log-to", "csv", "--log-to", "tensorboard:events", "--log-to", "csv"]
    expected = (Destination("csv", None), Destination("tensorboard", "events"))
    assert COMMANDS["distill"].make_context("distill", [*given, *logger]).params["log_to"] == expected
    monkeypatch.setenv("UNLEARN_LOG_TO", "csv tensorboard:events")
    context = COMMANDS["distill"].make_context("distill", given, auto_envvar_prefix="UNLEARN")
    assert context.params["log_to"] == expected
