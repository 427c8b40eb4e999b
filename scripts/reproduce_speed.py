"""How many minutes 6,000 images per class take, for which 7 to 8 hours on a GPU were reported, and how good their
student is.

The time includes Ray's start, images, views, labels and writing. The student has the default settings.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import click
from reproduce_jobs import Data, Job, all_of, header, run, spread
from reproduce_mnist import accuracies, training_jobs

from synth.basics.disk import write_file

FORGET = "0"


def reproduce(out: Path, data: Data, seeds: int, per_class: int, preset: str) -> None:
    folders = [out / f"seed{seed}" for seed in range(seeds)]
    all_of(job for seed, folder in enumerate(folders) for job in training_jobs(folder, seed, data, (FORGET,)))
    for seed, folder in enumerate(folders):
        for job in (shards_job(folder, seed, per_class, preset), student_job(folder, seed, per_class)):
            timed(job)
    images = f"{per_class:,} images per class by `--preset {preset}`"
    what = f"MNIST, LeNet5 with batch norm, {images}, forget {FORGET}, {seeds} seeds."
    text = f"{header(what)}\n\n{table(folders, per_class, data)}\n"
    write_file(out / "results.md", text.encode())
    click.echo(text)


def shards_job(folder: Path, seed: int, per_class: int, preset: str) -> Job:
    shards = folder / f"shards-{per_class}"
    given = ["--teacher", folder / "teacher.safetensors", "--preset", preset, "--per-class", per_class, "--seed", seed]
    return shards / "index.json", ["synth", "generate", *given, "--address", "local", "--out", shards]


def student_job(folder: Path, seed: int, per_class: int) -> Job:
    student = folder / f"distill-{per_class}"
    given = ["--shards", folder / f"shards-{per_class}", "--forget", FORGET, "--seed", seed]
    return student / "provenance.json", ["unlearn", "distill", *given, "--out", student]


def timed(job: Job) -> None:
    """Run the job. If its file did not exist, keep the wall seconds beside the folder that it makes."""
    target, _ = job
    begun, there = time.monotonic(), target.exists()
    run(job)
    if not there:
        seconds_file(target.parent).write_text(json.dumps(round(time.monotonic() - begun, 1)))


def seconds_file(made: Path) -> Path:
    return made.with_name(f"{made.name}.seconds.json")


def table(folders: list[Path], per_class: int, data: Data) -> str:
    lines = ["| what | mean ± standard deviation |", "|---|---|"]
    for title, name in (("images, wall seconds", "shards"), ("student, wall seconds", "distill")):
        seconds = [json.loads(seconds_file(folder / f"{name}-{per_class}").read_text()) for folder in folders]
        lines.append(f"| {title} | {spread(seconds)} (median {statistics.median(seconds):.0f}) |")
    found = [accuracies(folder, folder / f"distill-{per_class}", FORGET, data) for folder in folders]
    for model in ("original", "retrained", "student"):
        retain, forget = (spread([pairs[model][which] for pairs in found]) for which in (0, 1))
        lines.append(f"| {model}: retain / forget, % | {retain} / {forget} |")
    return "\n".join(lines)
