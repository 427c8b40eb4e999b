"""Metrics to MLflow: to a server, or to a local store such as sqlite:///mlflow.db."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from synth.basics.errors import UsageError, UserError
from synth.basics.progress import Say
from unlearn.optimise import Log
from unlearn.run.loggers.logged_run import LoggedRun, in_one_line, recall, remember

PACKAGE = "mlflow"
TARGET = "URI"
TARGET_IS_OPTIONAL = False
EXPERIMENT = "data-free-unlearning"  # unless MLFLOW_EXPERIMENT_NAME names another
AT_ONCE = 1000  # the most metrics in one request to a server
LONGEST = 500  # characters of a parameter


def check(uri: str, run: LoggedRun) -> None:
    """Raises UsageError if no store answers at the URI."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        experiment_of(MlflowClient(tracking_uri=uri))
    except MlflowException as error:
        raise UsageError(f"--log-to mlflow:{uri}: {in_one_line(error)}") from error


def experiment_of(client: Any) -> str:
    """The experiment's number. It is created if it is not there yet."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


@contextmanager
def opened(uri: str, run: LoggedRun) -> Iterator[Log]:
    """A log of one run in the experiment. A resumed run continues its log and sends no step twice."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri)
    try:
        number, last = take_up(client, run, f"mlflow:{uri}")
    except MlflowException as error:
        raise UserError(f"--log-to mlflow:{uri}: {in_one_line(error)}") from error
    sender = Sender(client, number, last, run.say)
    try:
        yield sender.log
    except BaseException as error:
        sender.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    sender.end("FINISHED")


def take_up(client: Any, run: LoggedRun, service: str) -> tuple[str, int]:
    """The store's number of the run, and the last step that the store has of it. A run that is not there is begun."""
    number = recall(run, service).get("id")
    if number is not None:
        client.update_run(number, status="RUNNING")
        return number, last_step(client, number)
    number = client.create_run(experiment_of(client), run_name=run.name).info.run_id
    remember(run, service, id=number)
    client.log_batch(number, params=parameters(run.settings))
    return number, 0


def parameters(settings: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)[:LONGEST]) for name, value in settings.items()]


def last_step(client: Any, number: str) -> int:
    """The last step that the store has of a run. 0 if it has none."""
    names = client.get_run(number).data.metrics
    return max((metric.step for name in names for metric in client.get_metric_history(number, name)), default=0)


class Sender:
    """Sends each step after `last`. If the server is lost, the run goes on, and the steps are sent at its end."""

    def __init__(self, client: Any, number: str, last: int, say: Say) -> None:
        self.client, self.number, self.last, self.say = client, number, last, say
        self.waiting: list[Any] = []
        self.lost = False

    def log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        if step > self.last:
            now = int(1000 * time.time())
            self.waiting += [Metric(name, value, now, step) for name, value in values.items()]
            if not self.lost:
                self.send()

    def send(self) -> None:
        """Send what waits. Without a server all of it goes on waiting."""
        from mlflow.exceptions import MlflowException

        try:
            while self.waiting:
                self.client.log_batch(self.number, metrics=self.waiting[:AT_ONCE])
                del self.waiting[:AT_ONCE]
        except MlflowException as error:
            self.lost = True
            self.say(f"warning: MLflow did not get the steps from {self.waiting[0].step} on: {in_one_line(error)}")

    def end(self, status: str) -> None:
        """Send what waits, and note in the log how the run ended."""
        from mlflow.exceptions import MlflowException

        self.send()
        with suppress(MlflowException):  # `send` warned of a lost server
            self.client.set_terminated(self.number, status)
