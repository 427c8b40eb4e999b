"""Stand-ins for wandb and mlflow, where these packages are not installed.

Names and parameters are those of wandb 0.31 and mlflow 3.17. They hold what they get in memory.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any


class Wandb(types.ModuleType):
    """The parts of wandb that the logger uses."""

    class Error(Exception):
        pass

    @dataclass
    class Settings:
        console: str

    @dataclass
    class Run:
        id: str
        name: str
        config: dict[str, Any]
        history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
        exit_code: int | None = None

        def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
            assert step is not None
            self.history.append((step, data))

        def __enter__(self) -> Wandb.Run:
            return self

        def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
            self.exit_code = int(kind is not None)

    def __init__(self, logged_in: bool = True) -> None:
        super().__init__("wandb")
        self.logged_in = logged_in
        self.runs: dict[str, Wandb.Run] = {}

    def login(self) -> bool:
        if not self.logged_in:
            raise self.Error("No API key configured.\nUse `wandb login` to log in.")
        return True

    def init(
        self,
        *,
        project: str,
        id: str | None,
        resume: str | None,
        name: str,
        config: dict[str, Any],
        settings: Wandb.Settings,
    ) -> Wandb.Run:
        if id in self.runs and resume == "allow":
            return self.runs[id]
        run = self.Run(id or f"run{len(self.runs)}", name, config)
        return self.runs.setdefault(run.id, run)


class MlflowException(Exception):  # noqa: N818 - mlflow's own name
    pass


@dataclass(frozen=True)
class Metric:
    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True)
class Param:
    key: str
    value: str


@dataclass
class Stored:
    name: str
    status: str = "RUNNING"
    metrics: list[Metric] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)


STORES: dict[str, dict[str, Stored]] = {}


class MlflowClient:
    """A client of a store in memory. A store that is named `lost` answers nothing while `lost_stores` names it."""

    lost_stores: set[str] = set()  # noqa: RUF012 - a test fills it
    numbers = count()

    def __init__(self, tracking_uri: str | None = None) -> None:
        assert tracking_uri is not None
        self.tracking_uri = tracking_uri
        self.runs = STORES.setdefault(tracking_uri, {})

    def answer(self) -> None:
        if self.tracking_uri in self.lost_stores:
            raise MlflowException(f"API request to {self.tracking_uri} failed:\nconnection refused")

    def get_experiment_by_name(self, name: str) -> Any:
        self.answer()
        return None

    def create_experiment(self, name: str) -> str:
        return "7"

    def create_run(self, experiment_id: str, run_name: str | None = None) -> Any:
        self.answer()
        number = f"run{next(self.numbers)}"
        self.runs[number] = Stored(run_name or "")
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=number))

    def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        self.answer()
        assert len(metrics) <= 1000
        self.runs[run_id].metrics += metrics
        self.runs[run_id].params += params

    def update_run(self, run_id: str, status: str | None = None) -> None:
        self.answer()
        self.runs[run_id].status = status or ""

    def set_terminated(self, run_id: str, status: str | None = None) -> None:
        self.update_run(run_id, status)

    def get_run(self, run_id: str) -> Any:
        run = self.runs[run_id]
        info = types.SimpleNamespace(run_name=run.name, status=run.status)
        params = {param.key: param.value for param in run.params}
        metrics = {metric.key: metric.value for metric in run.metrics}
        return types.SimpleNamespace(info=info, data=types.SimpleNamespace(params=params, metrics=metrics))

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return [metric for metric in self.runs[run_id].metrics if metric.key == key]


def mlflow_modules() -> dict[str, types.ModuleType]:
    """The modules by name, for sys.modules."""
    modules = {name: types.ModuleType(name) for name in ("mlflow", "mlflow.entities", "mlflow.exceptions")}
    vars(modules["mlflow"])["MlflowClient"] = MlflowClient
    vars(modules["mlflow.entities"]).update(Metric=Metric, Param=Param)
    vars(modules["mlflow.exceptions"])["MlflowException"] = MlflowException
    return modules
