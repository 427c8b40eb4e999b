"""Shared parts: one small teacher and one small complete run a session. A test that changes the run copies it first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.shards.plan import Plan
from tests.runs import QUICK, digits_card, make_run, recipe_for, train_on_digits


@pytest.fixture(autouse=True, scope="session")
def _quiet_machine() -> Iterator[None]:
    """One thread and a heeded Ctrl-C here and in child processes, and no option from the caller's environment."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that a shell started with `&` ignores it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in [n for n in os.environ if n == "RAY_ADDRESS" or n.startswith(("SYNTH_", "UNLEARN_"))]:
            patch.delenv(name)
        patch.setenv("UNLEARN_CACHE", "")
        patch.setenv("PYTHONSAFEPATH", "")  # a command would set it, and the tests' own programs import from here
        yield


@pytest.fixture(scope="session")
def tiny_teacher_path(tmp_path_factory: pytest.TempPathFactory, _quiet_machine: None) -> Path:
    """A checkpoint of a half-width LeNet5, briefly trained on digits."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_checkpoint(train_on_digits(digits_card()), path)
    return path


@pytest.fixture(scope="session")
def tiny_teacher(tiny_teacher_path: Path) -> Classifier:
    """The classifier in `tiny_teacher_path`, frozen. A test that changes it loads its own."""
    return load_checkpoint(tiny_teacher_path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Classifier) -> Path:
    """A complete run of 100 images of ten classes in 4 shards, with two views per image.

    Read only: copy it (shutil.copytree) to change it.
    """
    path = tmp_path_factory.mktemp("runs") / "tiny"
    plan = Plan(classes=tuple(range(10)), per_class=10, shard_size=25, views=2)
    make_run(path, recipe_for(tiny_teacher, QUICK), plan)
    return path


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory, _quiet_machine: None) -> Iterator[int]:
    """The port of an S3 server with a bucket `runs`; the process environment holds its credentials."""
    from s3_server import KEY, SECRET, NoServerError, s3_server

    with ExitStack() as stack:
        try:
            port = stack.enter_context(s3_server(tmp_path_factory.mktemp("s3")))
        except NoServerError as error:
            pytest.skip(str(error))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield port
