"""Every method on one teacher, class 0 forgotten: make the runs, evaluate them, then make the table.

Methods run to their end and keep the student of every check. The monitor's rule is then applied to the run's own
metrics: where it would have stopped, and which student it would have kept. Accuracies on real test images are added
after that.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import click
from reproduce_jobs import Data, Job, all_of, header, in_parallel, shards_job
from reproduce_mnist import training_jobs
from reproduce_results import results_of
from reproduce_rows import SIZES, Row, Size, method_rows
from reproduce_text import figures, tables

from synth.basics.disk import write_file

FORGET = 0
WATCH = ("--patience", 1_000_000, "--keep-students")  # the monitor measures but never stops the run


def sized(size: str, **changes: Any) -> Size:
    return dataclasses.replace(SIZES[size], **{name: value for name, value in changes.items() if value is not None})


def reproduce(
    out: Path, data: Data, size: Size, archs: list[str], only: list[str], workers: int | None, report: bool
) -> None:
    begun = time.time()
    rows = chosen_rows(size, data, only)
    failed: dict[Path, str] = {}
    if not report:
        teachers = [(arch, seed) for arch in archs for seed in range(size.seeds)]
        all_of((job for which in teachers for job in models_jobs(out, *which, size, data)), workers)
        all_of((job for which in teachers for job in synthesis_jobs(out, *which, size, data)), workers=1)
        jobs = [
            job
            for arch in archs
            for row in rows
            for seed in range(size.seeds)
            for job in [row_job(out / arch / f"seed{seed}" / row.name, row, seed, f"shards-{size.per_class[0]}")]
        ]
        distilled = [job for which in teachers for job in distill_jobs(out, *which, size, data)]
        failed = in_parallel([*distilled, *jobs], workers)
    results = [
        result
        for arch in archs
        for seed in range(size.seeds)
        for result in results_of(out / arch / f"seed{seed}", arch, seed, rows, size, data, FORGET)
    ]
    write_file(out / "results.json", json.dumps(results, indent=1).encode())
    what = f"{data.title}, forget class {FORGET}, real test set; mean ± standard deviation over seeds."
    text = f"{header(what)}\n\n{tables(results, rows, published=data.name == 'mnist')}\n"
    write_file(out / "results.md", text.encode())
    figures(results, out / "figures")
    click.echo(text)
    for path, reason in failed.items():
        click.echo(f"no student in {path.parent}: {reason}", err=True)
    click.echo(
        f"wrote {out / 'results.json'}, results.md and figures, {(time.time() - begun) / 60:.0f} minutes", err=True
    )


def chosen_rows(size: Size, data: Data, only: list[str]) -> list[Row]:
    """The rows named, or else all rows of the size."""
    rows = method_rows(size, data.flip)
    names = {row.name for row in rows}
    if unknown := sorted(set(only) - names):
        raise click.UsageError(f"no row is called {', '.join(unknown)}: choose from {', '.join(sorted(names))}")
    return [row for row in rows if (row.name in only if only else size.all_rows or row.kind == "method")]


def models_jobs(out: Path, arch: str, seed: int, size: Size, data: Data) -> list[Job]:
    width = ("--width", size.width) if arch == "allcnn" else ()
    return training_jobs(out / arch / f"seed{seed}", seed, data, (str(FORGET),), arch, size.epochs, *width)


def synthesis_jobs(out: Path, arch: str, seed: int, size: Size, data: Data) -> list[Job]:
    """Synthesis runs. They run one after another, because each uses every core through a local Ray."""
    folder = out / arch / f"seed{seed}"
    options = ("--preset", size.synthesis, *data.flip)
    return [
        shards_job(folder / "teacher.safetensors", folder / f"shards-{n}", n, seed, *options) for n in size.per_class
    ]


def distill_jobs(out: Path, arch: str, seed: int, size: Size, data: Data) -> list[Job]:
    folder = out / arch / f"seed{seed}"
    common = ["unlearn", "distill", "--forget", FORGET, "--seed", seed, "--threads", 1, "--resume"]
    common += ["--steps", size.distill_steps]
    common += data.flip
    places = {n: folder / f"distill-{n}-{FORGET}" for n in size.per_class}
    return [
        (place / "provenance.json", [*common, "--shards", folder / f"shards-{n}", "--out", place])
        for n, place in places.items()
    ]


def row_job(place: Path, row: Row, seed: int, shards: str, forget: object = FORGET) -> Job:
    """The row's run in `place`, which lies beside its teacher and beside the shards that its monitor holds out."""
    given = ["--teacher", place.parent / "teacher.safetensors", "--shards", place.parent / shards]
    common = ["--forget", forget, "--seed", seed, "--threads", 1, *WATCH, "--resume", "--out", place]
    return place / "provenance.json", ["unlearn", *row.command, *given, *common]
