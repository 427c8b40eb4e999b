"""Commands that make files. A command runs unless its file exists, one per core; a failure names its command."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click

Job = tuple[Path, list[object]]  # a file, and the command that makes it


@dataclass(frozen=True)
class Data:
    """Real images: mnist, fashion-mnist, cifar10, or a folder with train/ and test/."""

    name: str
    root: Path
    download: bool

    @property
    def options(self) -> list[object]:
        return ["--data", self.name, "--data-root", self.root, *(["--download"] if self.download else [])]

    @property
    def flip(self) -> list[object]:
        """The option that mirrors images, if mirrored images are plausible in this data."""
        return [] if "mnist" in self.name or self.name == "digits" else ["--flip"]

    @property
    def title(self) -> str:
        return {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}.get(
            self.name, Path(self.name).name
        )


class JobError(Exception):
    """A command failed; the message is the last line that it printed."""


def in_parallel(jobs: Iterable[Job], workers: int | None = None) -> dict[Path, str]:
    """Run one single-threaded job per core (small networks gain nothing from a second thread). Returns each failed file
    and why.
    """
    failed: dict[Path, str] = {}

    def attempt(job: Job) -> None:
        try:
            run(job)
        except JobError as error:
            failed[job[0]] = f"{error}"

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        list(pool.map(attempt, jobs))
    return failed


def all_of(jobs: Iterable[Job], workers: int | None = None) -> None:
    """As `in_parallel`, but end the program if a job fails."""
    for path, reason in in_parallel(jobs, workers).items():
        raise SystemExit(f"could not make {path}: {reason}")


def run(job: Job) -> None:
    """Run the job unless its file exists. Raises JobError if the command fails and the file is missing afterwards."""
    target, command = job
    if target.exists():
        return
    words = list(map(str, command))
    click.echo(f"$ {' '.join(words)}", err=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(words, capture_output=True, text=True)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    click.echo(f"  {said[-1] if said else target}", err=True)
    if done.returncode and not target.exists():
        raise JobError(said[-1] if said else f"exit code {done.returncode}")


def shards_job(teacher: Path, shards: Path, per_class: int, seed: int, *options: object) -> Job:
    """`synth generate`, with --resume if the folder exists."""
    given = ["--teacher", teacher, "--seed", seed, "--shard-size", per_class * 5, "--per-class", per_class]
    resume = ["--resume"] if shards.exists() else []
    return shards / "index.json", [
        "synth",
        "generate",
        *given,
        "--out",
        shards,
        "--address",
        "local",
        *options,
        *resume,
    ]


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def header(what: str) -> str:
    """One line: what, date, commit, machine and command."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    places = ("--data-root", "--out")
    words = [word for before, word in pairwise(sys.argv) if word not in places and before not in places]
    return (
        f"{what} {time.strftime('%Y-%m-%d')}, commit {commit}, {os.cpu_count()} CPU cores, {platform.machine()}. "
        f"Command: `scripts/reproduce {' '.join(words)}`."
    )
