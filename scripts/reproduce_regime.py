"""The regime of the published data-free students: ResNet-18 on CIFAR-10, 50,000 images, ten million presentations.

It needs a GPU: on one, a few hours. The student is trained in two rounds, the second one on images against the student
of the first one as well. The target is within one point of the retrained model (synth's and unlearn's defaults
otherwise). The teacher, which labels fresh views, is at hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from reproduce_jobs import Data, Job, header, run, spread
from reproduce_mnist import accuracies

from synth.basics.disk import write_file

FORGET = "0"
ARCH = "cifar_networks:resnet18"
BATCH = 256
PER_CLASS = 5000
PRESENTATIONS = 10_000_000


def reproduce(
    out: Path, data: Data, device: str, seeds: int, per_class: int, presentations: int, epochs: int | None, preset: str
) -> None:
    here = str(Path(__file__).parent)  # where the commands find the network
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    folders = [out / f"seed{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        for job in jobs(folder, seed, data, device, per_class, presentations, epochs, preset):
            run(job)
    images = f"{per_class:,} images per class by `--preset {preset}`, twice, {presentations:,} presentations per round"
    what = f"{data.title}, ResNet-18, {images}, forget {FORGET}, seeds: {seeds}, {device}."
    text = f"{header(what)}\n\n{table(folders, data)}\n"
    write_file(out / "results.md", text.encode())
    click.echo(text)


def jobs(
    folder: Path,
    seed: int,
    data: Data,
    device: str,
    per_class: int,
    presentations: int,
    epochs: int | None,
    preset: str,
) -> list[Job]:
    teacher, shards, student = folder / "teacher.safetensors", folder / "shards", folder / "distill"
    common: list[object] = ["--arch", ARCH, "--seed", seed, "--device", device]
    train = ["unlearn", "train", *common, *(["--epochs", epochs] if epochs else []), *data.options]
    retrained = folder / f"retrained-{FORGET}.safetensors"
    generate = ["synth", "generate", "--teacher", teacher, *common, "--per-class", per_class, "--preset", preset]
    distill = ["unlearn", "distill", "--shards", shards, "--teacher", teacher, *common, "--student-arch", ARCH]
    distill += ["--forget", FORGET, "--rounds", 2, "--batch-size", BATCH, "--steps", max(1, presentations // BATCH)]
    resume = ["--resume"] if student.exists() or student.with_name("distill-rounds").exists() else []
    return [
        (teacher, [*train, "--out", teacher]),
        (retrained, [*train, "--without", FORGET, "--out", retrained]),
        (shards / "index.json", [*generate, "--out", shards, *(["--resume"] if shards.exists() else [])]),
        (student / "provenance.json", [*distill, "--out", student, *resume]),
    ]


def table(folders: list[Path], data: Data) -> str:
    lines = ["| model | retain % | forget % |", "|---|---|---|"]
    found = [accuracies(folder, folder / "distill", FORGET, data, "--arch", ARCH) for folder in folders]
    for model in ("original", "retrained", "student"):
        retain, forget = (spread([pairs[model][which] for pairs in found]) for which in (0, 1))
        lines.append(f"| {model} | {retain} | {forget} |")
    return "\n".join(lines)
