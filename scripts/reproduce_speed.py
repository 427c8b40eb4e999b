"""6,000 images a class, which the report made in 7 to 8 hours on a GPU: the minutes that they take here, and their student.

Everything counts: Ray's start, the images, their blends and the teacher's labels, writing. The student is the default's.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import click
from reproduce_jobs import Data, Job, all_of, header, run, spread
from reproduce_mnist import training_jobs

FORGET = "0"


def reproduce(out: Path, data: Data, seeds: int, per_class: int, preset: str) -> None:
    folders = [out / f"seed{seed}" for seed in range(seeds)]
    all_of(job for seed in range(seeds) for job in training_jobs(out, seed, data, (FORGET,)))
    for seed, folder in enumerate(folders):
        for job in (shards_job(folder, seed, per_class, preset), student_job(folder, seed, per_class)):
            timed(job)
    all_of(evaluation_job(folder, per_class, data) for folder in folders)
    what = f"MNIST, LeNet5 with batch norm, {per_class:,} images a class by `--preset {preset}`, forget {FORGET}, {seeds} seeds."
    text = f"{header(what)}\n\n{table(folders, per_class)}\n"
    (out / "results.md").write_text(text)
    click.echo(text)


def shards_job(folder: Path, seed: int, per_class: int, preset: str) -> Job:
    shards = folder / f"shards-{per_class}"
    given = ["--teacher", folder / "teacher.safetensors", "--preset", preset, "--per-class", per_class, "--seed", seed]
    return shards / "index.json", ["synth", "generate", *given, "--address", "local", "--out", shards]


def student_job(folder: Path, seed: int, per_class: int) -> Job:
    student = folder / f"distill-{per_class}"
    given = ["--shards", folder / f"shards-{per_class}", "--forget", FORGET, "--seed", seed]
    return student / "provenance.json", ["unlearn", "distill", *given, "--out", student]


def evaluation_job(folder: Path, per_class: int, data: Data) -> Job:
    """Writes what `unlearn evaluate` prints."""
    found = folder / f"evaluation-{per_class}.json"
    models = ["--teacher", folder / "teacher.safetensors", "--reference", folder / f"retrained-{FORGET}.safetensors"]
    words = [
        "unlearn",
        "evaluate",
        folder / f"distill-{per_class}" / "student.safetensors",
        *models,
        "--forget",
        FORGET,
        *data.options,
        "--json",
    ]
    return found, ["sh", "-c", f"{' '.join(map(str, words))} > {found}.tmp && mv {found}.tmp {found}"]


def timed(job: Job) -> None:
    """Run the job, and keep its wall seconds beside what it makes, where they are not there from before."""
    target, _ = job
    begun, there = time.monotonic(), target.exists()
    run(job)
    if not there:
        seconds_file(target).write_text(json.dumps(round(time.monotonic() - begun, 1)))


def seconds_file(target: Path) -> Path:
    return target.parent.with_name(f"{target.parent.name}.seconds.json")


def table(folders: list[Path], per_class: int) -> str:
    lines = ["| what | mean ± standard deviation |", "|---|---|"]
    for title, name in (("images, wall seconds", "shards"), ("student, wall seconds", "distill")):
        seconds = [json.loads(seconds_file(folder / f"{name}-{per_class}" / "any").read_text()) for folder in folders]
        lines.append(f"| {title} | {spread(seconds)} (median {statistics.median(seconds):.0f}) |")
    found = [json.loads((folder / f"evaluation-{per_class}.json").read_text())["models"] for folder in folders]
    for model in ("original", "retrained", "unlearned"):
        retain, forget = (spread([models[model][which] for models in found]) for which in ("retain", "forget"))
        lines.append(f"| {model}: retain / forget, % | {retain} / {forget} |")
    return "\n".join(lines)
