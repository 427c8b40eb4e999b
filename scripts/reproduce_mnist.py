"""The README's main result: LeNet5 with batch norm, forgetting class 0, class 7, and classes 3 and 8 together."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import click
from reproduce_jobs import Data, Job, all_of, header, run, shards_job, spread

from synth.basics.disk import write_file

FORGET_SETS = ("0", "7", "3,8")


def reproduce(out: Path, data: Data, seeds: int, sizes: Sequence[int]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    all_of(job for seed in range(seeds) for job in training_jobs(out / f"seed{seed}", seed, data))
    for seed in range(seeds):
        for size in sizes:
            folder = out / f"seed{seed}"
            run(shards_job(folder / "teacher.safetensors", folder / f"shards-{size}", size, seed))
    all_of(job for seed in range(seeds) for size in sizes for job in distill_jobs(out, seed, size))
    results = [row for seed in range(seeds) for size in sizes for row in evaluated(out, seed, size, data)]
    results_file = out / "results.json"
    write_file(results_file, json.dumps(results, indent=1).encode())
    what = f"MNIST, LeNet5 with batch norm, {seeds} seeds (mean ± standard deviation), real test set."
    text = f"{header(what)}\n\n{summary(results, sizes)}\n"
    write_file(out / "results.md", text.encode())
    click.echo(text)
    click.echo(f"wrote {results_file} and {out / 'results.md'}, {(time.time() - begun) / 60:.0f} minutes", err=True)


def training_jobs(
    folder: Path,
    seed: int,
    data: Data,
    forget_sets: tuple[str, ...] = FORGET_SETS,
    arch: str = "lenet5",
    epochs: int = 5,
    *options: object,
) -> list[Job]:
    common = ["unlearn", "train", "--arch", arch, "--epochs", epochs, "--seed", seed, "--threads", 1, *data.options]
    common += options
    jobs: list[Job] = [(folder / "teacher.safetensors", [*common, "--out", folder / "teacher.safetensors"])]
    for forget in forget_sets:
        reference = folder / f"retrained-{forget}.safetensors"
        jobs.append((reference, [*common, "--without", forget, "--out", reference]))
    return jobs


def distill_jobs(out: Path, seed: int, size: int) -> list[Job]:
    folder = out / f"seed{seed}"
    jobs: list[Job] = []
    for forget in FORGET_SETS:
        student = folder / f"distill-{size}-{forget}"
        command = ["unlearn", "distill", "--shards", folder / f"shards-{size}", "--forget", forget, "--out", student]
        jobs.append((student / "provenance.json", [*command, "--seed", seed, "--threads", 1, "--overwrite"]))
    return jobs


def evaluated(out: Path, seed: int, size: int, data: Data) -> list[dict[str, object]]:
    folder = out / f"seed{seed}"
    return [
        {
            "seed": seed,
            "per_class": size,
            "forget": forget,
            "accuracies": accuracies(folder, folder / f"distill-{size}-{forget}", forget, data),
        }
        for forget in FORGET_SETS
    ]


def accuracies(
    folder: Path, student: Path, forget: str, data: Data, *options: object
) -> dict[str, tuple[float, float]]:
    """Retain and forget accuracy of the folder's teacher and retrained model and of the student, on the real test
    set.
    """
    reference = folder / f"retrained-{forget}.safetensors"
    models = ["--teacher", folder / "teacher.safetensors", "--reference", reference]
    command = [
        "unlearn",
        "evaluate",
        student / "student.safetensors",
        "--forget",
        forget,
        *models,
        *data.options,
        *options,
        "--json",
    ]
    found = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    return {name: (model["retain"], model["forget"]) for name, model in found["models"].items()}


def summary(results: list[dict[str, object]], sizes: Sequence[int]) -> str:
    """A Markdown table of retain and forget accuracies, mean ± standard deviation over seeds."""
    lines = ["| forget | model | retain % | forget % |", "|---|---|---|---|"]
    for forget in FORGET_SETS:
        rows = [row for row in results if row["forget"] == forget]
        named = [("original", rows, "original"), ("retrained without it", rows, "retrained")]
        named += [
            (f"unlearned, {size} images per class", [r for r in rows if r["per_class"] == size], "student")
            for size in sizes
        ]
        for title, chosen, model in named:
            pairs = {row["seed"]: row["accuracies"][model] for row in chosen}.values()  # type: ignore[index]
            retain, forgotten = (spread([pair[i] for pair in pairs]) for i in (0, 1))
            lines.append(f"| {forget} | {title} | {retain} | {forgotten} |")
    return "\n".join(lines)
