"""Metrics to MLflow: to a server, or to a local store such as sqlite:///mlflow.db."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from synth.basics.errors import UsageError
from unlearn.optimise import Log
from unlearn.run.loggers.logged_run import LoggedRun, Sent, in_one_line, recall, remember

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
    """The experiment's number. It is made if it is not there yet."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


@contextmanager
def opened(uri: str, run: LoggedRun) -> Iterator[Log]:
    """A log of one run in the experiment. A resumed run continues its log and sends no step twice."""
    from mlflow import MlflowClient

    client, service = MlflowClient(tracking_uri=uri), f"mlflow:{uri}"
    sent = recall(run, service)
    if sent is None:
        sent = Sent(client.create_run(experiment_of(client), run_name=run.name).info.run_id)
        client.log_batch(sent.id, params=parameters(run.settings))
        remember(run, service, sent)
    else:
        client.update_run(sent.id, status="RUNNING")
    sender = Sender(client, run, service, sent)
    try:
        yield sender.log
    except BaseException as error:
        sender.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    sender.end("FINISHED")


def parameters(settings: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)[:LONGEST]) for name, value in settings.items()]


class Sender:
    """Sends each step. If the server is lost, the run goes on, and the other steps are sent at its end."""

    def __init__(self, client: Any, run: LoggedRun, service: str, sent: Sent) -> None:
        self.client, self.run, self.service, self.sent = client, run, service, sent
        self.waiting: list[Any] = []
        self.lost = False

    def log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        if step <= self.sent.step:
            return
        now = int(1000 * time.time())
        self.waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if not self.lost:
            self.send()

    def send(self) -> None:
        """Send what waits. Without a server all of it goes on waiting."""
        from mlflow.exceptions import MlflowException

        try:
            while self.waiting:
                batch = self.waiting[:AT_ONCE]
                self.client.log_batch(self.sent.id, metrics=batch)
                del self.waiting[:AT_ONCE]
                self.sent.step = batch[-1].step
                remember(self.run, self.service, self.sent)
        except MlflowException as error:
            self.lost = True
            self.run.say(f"warning: {self.service} did not get step {self.waiting[0].step}: {in_one_line(error)}")

    def end(self, status: str) -> None:
        """Send what waits, and note in the log how the run ended."""
        from mlflow.exceptions import MlflowException

        self.send()
        with suppress(MlflowException):  # `send` warned of a lost server
            self.client.set_terminated(self.sent.id, status)
