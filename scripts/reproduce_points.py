"""Forgetting single points: an original that memorised wrong labels, retrained models, and students beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from reproduce_jobs import Data, Job, all_of, header, run, spread
from reproduce_subset import first_images, subset

from synth.basics.disk import write_file
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from unlearn.data import DataSource
from unlearn.drawn_points import draw_points, write_points

SUBJECTS = ("original", "relabelled", "this model", "retrained")
MEASURES = {
    "labels-memorised": "says the label of memorised points, %",
    "labels-typical": "says the label of typical points, %",
    "agreement-memorised": "agrees with retrained on memorised points, minus test images, points",
    "agreement-typical": "the same on typical points, points",
    "rmia-memorised": "RMIA's area, memorised points, %",
    "rmia-typical": "RMIA's area, typical points, %",
    "lira-memorised": "U-LiRA's area, memorised points, %",
    "lira-typical": "U-LiRA's area, typical points, %",
    "accuracy": "accuracy on test images, %",
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained, on what, and how long."""

    out: Path
    data: Data
    images: int | None  # of the training set, the first ones; None for all
    count: int  # points
    arch: str
    public: Path | None  # the checkpoint that originals, retrained models and students start from
    side: int | None  # pixels; None for the data's own size
    epochs: int
    seeds: int
    per_class: int
    preset: str
    steps: int  # of the student
    keep_layers: str | None  # of the original, in the student
    answers: bool  # whether it learns answers for the points that it takes for memorised
    answer_weight: float  # how much a point counts beside a view

    @property
    def points(self) -> Path:
        return self.out / "points"

    def folder(self, seed: int) -> Path:
        return self.out / f"seed{seed}"

    def student(self, seed: int) -> Path:
        return self.folder(seed) / ("answered" if self.answers else "distill")

    @property
    def data_options(self) -> list[object]:
        """The data, as the networks are trained and judged on it. A subset is a path, and gets the data's own shape."""
        size = ["--image-size", self.side] if self.side else []
        if self.images is None:
            return [*self.data.options, *size]
        return ["--data", self.out / "images", *size]

    @property
    def shaped(self) -> bool:
        """Whether the networks get their shape from a checkpoint, since a subset as a folder has none of its own."""
        return self.images is not None and self.public is None

    @property
    def like(self) -> Path:
        return self.out / "like.safetensors"

    @property
    def code(self) -> list[object]:
        """The option that trusts the network's code, if it is none of ours."""
        return ["--arch", self.arch] if ":" in self.arch else []

    @property
    def start(self) -> list[object]:
        return ["--start-from", self.public] if self.public else []


def reproduce(study: Study) -> None:
    begun = time.time()
    study.out.mkdir(parents=True, exist_ok=True)
    prepare(study)
    seeds = range(study.seeds)
    all_of(job for seed in seeds for job in training_jobs(study, seed))
    for seed in seeds:
        run(shards_job(study, seed))
    all_of(distill_job(study, seed) for seed in seeds)
    for seed in seeds:
        run(audit_job(study, seed))
    text = summary(study, [json.loads(audit_job(study, seed)[0].read_text()) for seed in seeds])
    write_file(study.out / "results.md", text.encode())
    click.echo(text)
    click.echo(f"wrote {study.out / 'results.md'}, {(time.time() - begun) / 60:.0f} minutes", err=True)


def prepare(study: Study) -> None:
    """The points, and for a subset its images and a checkpoint that has their shape and classes."""
    whole = DataSource(study.data.name, study.data.root, study.data.download).load("train")
    if not study.points.exists():
        chosen = whole if study.images is None else first_images(whole, study.images)
        write_points(*draw_points(chosen, study.count, 0.5, seed=0), study.points)
    if study.images is None:
        return
    subset(study.data, study.images, study.out / "images")
    if not study.shaped:
        return
    channels, height, width = whole.images.shape[1:]
    card = ModelCard(
        architecture=study.arch,
        class_names=whole.class_names,
        input_shape=(channels, height, width),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )
    if not study.like.exists():
        save_checkpoint(Classifier.untrained(card, 0), study.like)


def training_jobs(study: Study, seed: int) -> list[Job]:
    common = ["unlearn", "train", "--arch", study.arch, *study.data_options, "--epochs", study.epochs]
    common += [*study.start, "--weight-decay", 0, "--seed", seed, "--threads", 1]
    if study.images is not None:
        common += ["--no-flip", "--shift", 0]  # else few labels are memorised
    if study.shaped:
        common += ["--like", study.like]
    jobs: list[Job] = []
    for name, option in (("teacher", "--with-points"), ("retrained", "--without-points")):
        path = study.folder(seed) / f"{name}.safetensors"
        jobs.append((path, [*common, option, study.points, "--out", path]))
    return jobs


def shards_job(study: Study, seed: int) -> Job:
    folder = study.folder(seed)
    command = ["synth", "generate", "--teacher", folder / "teacher.safetensors", "--per-class", study.per_class]
    command += ["--preset", study.preset, "--seed", seed, "--address", "none", "--threads", 1]
    return folder / "shards" / "index.json", [*command, *study.code, "--out", folder / "shards", "--overwrite"]


def distill_job(study: Study, seed: int) -> Job:
    folder = study.folder(seed)
    command = ["unlearn", "distill", "--shards", folder / "shards", "--forget-points", study.points]
    command += ["--teacher", folder / "teacher.safetensors", *study.data.flip, "--steps", study.steps]
    command += ["--seed", seed, "--threads", 1, *(["--answer-points"] if study.answers else [])]
    command += ["--answer-weight", study.answer_weight] if study.answers and study.answer_weight != 1 else []
    command += [*study.code, *(["--student-arch", study.arch] if study.code else []), *study.start]
    command += ["--keep-layers", study.keep_layers] if study.keep_layers else []
    out = study.student(seed)
    return out / "provenance.json", [*command, "--out", out, "--overwrite"]


def audit_job(study: Study, seed: int) -> Job:
    folder = study.folder(seed)
    command = ["unlearn", "audit", study.student(seed), "--teacher", folder / "teacher.safetensors"]
    for other in range(study.seeds):
        command += ["--reference", study.folder(other) / "retrained.safetensors"]
    command += ["--forget-points", study.points, *study.data_options, "--seed", seed, *study.code]
    out = folder / ("audit-answered" if study.answers else "audit")
    return out / "audit.json", [*command, "--out", out, "--overwrite"]


def summary(study: Study, records: Sequence[dict[str, Any]]) -> str:
    """A Markdown page: the measures by subject, mean ± standard deviation over the seeds, and the verdicts."""
    of_all = f"the first {study.images:,} training images" if study.images else "all training images"
    what = (
        f"{study.data.title}, {of_all}, {study.arch}, {study.count} points, half of them with wrong labels, "
        f"{study.seeds} seeds (mean ± standard deviation), real test set; students "
        f"{'with' if study.answers else 'without'} answers for the points."
    )
    memorised, wrong, learnt = zip(*map(learnt_in, records), strict=True)
    lines = [
        f"# Single points: {study.data.title}\n",
        header(what),
        f"\nOf {wrong[0]} wrong labels the originals learnt {', '.join(map(str, learnt))}. Memorised points: "
        f"{', '.join(map(str, memorised))}.\n",
        f"| | {' | '.join('student' if s == 'this model' else s for s in SUBJECTS)} |",
        f"|---|{'---|' * len(SUBJECTS)}",
    ]
    for name, title in MEASURES.items():
        lines.append(f"| {title} | {' | '.join(cell(records, name, subject) for subject in SUBJECTS)} |")
    lines.append("\n| seed | student | known models with a wrong name |\n|---|---|---|")
    for seed, record in enumerate(records):
        failed = "; ".join(record["failed_controls"]) or "none"
        lines.append(f"| {seed} | {record['verdict']['conclusion']} | {failed} |")
    lines.append("\nWhat the filter dropped:\n")
    for seed in range(study.seeds):
        dropped = json.loads((study.student(seed) / "provenance.json").read_text())
        kept, by_space = dropped["samples"]["kept"], dropped["points"]["dropped"]
        lines.append(f"- seed {seed}: {', '.join(f'{n:,} in {s}' for s, n in by_space.items())}; {kept:,} samples kept")
    return "\n".join(lines) + "\n"


def learnt_in(record: dict[str, Any]) -> tuple[int, int, int]:
    """How many points are memorised, how many labels are wrong, and how many of these the original says."""
    wrong = [point for point in record["points"] if "wrong" in point["file"]]
    learnt = sum(point["called"]["original"] == [point["label"]] for point in wrong)
    return sum(point["group"] == "memorised" for point in record["points"]), len(wrong), learnt


def cell(records: Sequence[dict[str, Any]], name: str, subject: str) -> str:
    readings = [m["readings"] for r in records for m in r["measurements"] if m["name"] == name]
    found = [each[subject]["mean"] for each in readings if subject in each]
    return spread(found) if found else "-"
