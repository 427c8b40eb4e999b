"""A range of a regressor's target forgotten: turned digits, 0 to 180 degrees, forget 60 to 90, both heads."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from reproduce_audit import audit_table
from reproduce_jobs import Data, Job, all_of, header, spread

from synth.basics.disk import write_file
from unlearn.regression import distance

HEADS = ("bins", "gaussian")
RANGE = "60:90"  # degrees
INSIDE = (60.0, 90.0)
MODELS = {
    "original": "original",
    "retrained": "retrained",
    "distill": "distill, fresh views",
    "early-layers": "distill, the original's first layers (60 %), post-filter",
    "gkt": "GKT, gate P(60 <= y <= 90) < 0.01",
    "masked-logit": "clipped output",
}

ALWAYS = ("original", "retrained")  # of MODELS; the others are students


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes that make the study fit a machine. None of them changes a method."""

    seeds: int
    epochs: int  # of teachers and retrained models
    per_bin: int  # images for distill
    steps: int  # of distill's student
    rounds: int  # of GKT
    rows: tuple[str, ...]  # of MODELS

    @property
    def students(self) -> list[str]:
        return [name for name in self.rows if name not in ALWAYS]


def chosen(asked: Sequence[str]) -> tuple[str, ...]:
    """The models of the study, or of its students only those asked for. Raises click.UsageError for an unknown one."""
    for name in asked:
        if name not in MODELS:
            raise click.UsageError(f"--rows {name} is none of {', '.join(MODELS)}")
    return tuple(name for name in MODELS if not asked or name in (*asked, *ALWAYS))


def reproduce(out: Path, data: Data, sizes: Sizes, audit: str | None, workers: int | None) -> None:
    """`audit` names the student that is audited beside the retrained models of all seeds."""
    out.mkdir(parents=True, exist_ok=True)
    runs = [(head, seed) for seed in range(sizes.seeds) for head in HEADS]
    for stage in (training_jobs, shards_jobs, student_jobs, evaluation_jobs):
        all_of([job for head, seed in runs for job in stage(out, head, seed, data, sizes)], workers)
    found = {run: evaluated(out, *run, sizes.rows) for run in runs}
    what = f"{data.name}, 0 to 180 degrees, forget {RANGE}, LeNet5, {sizes.seeds} seeds (mean ± standard deviation)."
    text = f"{header(what)}\n\n{summary(found, sizes)}\n"
    if audit:
        all_of([audit_job(out, head, seed, audit, data, sizes) for head, seed in runs], workers)
        records = {head: audits(out, head, audit, sizes) for head in HEADS}
        text += "".join(f"\n**Audit, head: {head}**\n\n{audit_table({audit: records[head]})}\n" for head in HEADS)
    write_file(out / "results.md", text.encode())
    write_file(out / "ranges.png", picture(found))
    click.echo(text)


def training_jobs(out: Path, head: str, seed: int, data: Data, sizes: Sizes) -> list[Job]:
    common: list[object] = ["unlearn", "train", "--task", "regression", "--head", head, "--arch", "lenet5"]
    common += ["--epochs", sizes.epochs, "--lr", 0.05, "--threads", 1, *data.options]
    teacher, reference = (out / f"{head}-{seed}-{kind}.safetensors" for kind in ("teacher", "retrained"))
    apart = seed + sizes.seeds  # with the teacher's seed a reference would begin with the teacher's weights
    return [
        (teacher, [*common, "--seed", seed, "--out", teacher]),
        (reference, [*common, "--seed", apart, "--without-range", RANGE, "--out", reference]),
    ]


def shards_jobs(out: Path, head: str, seed: int, data: Data, sizes: Sizes) -> list[Job]:
    shards = out / f"{head}-{seed}-shards"
    given: list[object] = ["synth", "generate", "--teacher", out / f"{head}-{seed}-teacher.safetensors"]
    given += ["--per-bin", sizes.per_bin, "--seed", seed, "--address", "none", "--out", shards]
    return [(shards / "index.json", [*given, *(["--resume"] if shards.exists() else [])])]


def student_jobs(out: Path, head: str, seed: int, data: Data, sizes: Sizes) -> list[Job]:
    teacher = ["--teacher", out / f"{head}-{seed}-teacher.safetensors"]
    gkt = ["gkt", *teacher, "--preset", "tuned", "--gate", 0.01, "--channels", 16, "--rounds", sizes.rounds]
    distill = ["distill", "--shards", out / f"{head}-{seed}-shards", *teacher, "--steps", sizes.steps]
    distill += ["--unmixed", 0.5]
    commands: dict[str, list[object]] = {
        "distill": distill,
        "early-layers": [*distill, "--keep-layers", "60%", "--post-filter"],
        "gkt": gkt,
        "masked-logit": ["edit", "--kind", "masked-logit", *teacher],
    }
    jobs: list[Job] = []
    for name in sizes.students:
        folder = out / f"{head}-{seed}-{name}"
        options = ["--forget-range", RANGE, "--seed", seed, "--threads", 1, "--overwrite", "--out", folder]
        jobs.append((folder / "provenance.json", ["unlearn", *commands[name], *options]))
    return jobs


def evaluation_jobs(out: Path, head: str, seed: int, data: Data, sizes: Sizes) -> list[Job]:
    """Every model on the real test set, which is read only now."""
    paths = {name: out / f"{head}-{seed}-{name}" for name in sizes.rows}
    paths |= {"original": out / f"{head}-{seed}-teacher.safetensors"}
    paths |= {"retrained": out / f"{head}-{seed}-retrained.safetensors"}
    jobs: list[Job] = []
    for name, path in paths.items():
        file = out / f"{head}-{seed}-{name}.json"
        jobs.append((file, ["unlearn", "evaluate", path, "--forget-range", RANGE, *data.options, "--out", file]))
    return jobs


def audit_job(out: Path, head: str, seed: int, student: str, data: Data, sizes: Sizes) -> Job:
    teacher, shards = out / f"{head}-{seed}-teacher.safetensors", out / f"{head}-{seed}-shards"
    command: list[object] = ["unlearn", "audit", out / f"{head}-{seed}-{student}", "--teacher", teacher]
    for other in range(sizes.seeds):
        command += ["--reference", out / f"{head}-{other}-retrained.safetensors"]
    command += ["--forget-range", RANGE, "--shards", shards, *data.options, "--threads", 1, "--seed", seed]
    folder = out / f"{head}-{seed}-{student}-audit"
    return folder / "audit.json", [*command, "--overwrite", "--out", folder]


def audits(out: Path, head: str, student: str, sizes: Sizes) -> list[dict[str, Any]]:
    folders = [out / f"{head}-{seed}-{student}-audit" for seed in range(sizes.seeds)]
    return [json.loads((folder / "audit.json").read_text()) for folder in folders]


def evaluated(out: Path, head: str, seed: int, rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `unlearn evaluate` found, by model."""
    read = {name: json.loads((out / f"{head}-{seed}-{name}.json").read_text()) for name in rows}
    return {name: next(iter(content["models"].values())) for name, content in read.items()}


Found = Mapping[tuple[str, int], Mapping[str, Mapping[str, Any]]]


def summary(found: Found, sizes: Sizes) -> str:
    """A table per head: errors, likelihoods and coverage on both ranges, and the distance to the retrained models."""
    parts = []
    seeds = sizes.seeds
    for head in HEADS:
        lines = [
            f"**Head: {head}**",
            "",
            "| model | MAE retain | MAE forget | -log p retain | -log p forget | covered % retain | covered % forget | "
            "W to retrained |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in sizes.rows:
            rows = [found[head, seed][name] for seed in range(seeds)]
            cells = [spread([row[part][value] for row in rows]) for value in VALUES for part in ("retain", "forget")]
            far = [w for seed in range(seeds) for w in distances(found, head, seed, name, seeds)]
            lines.append(f"| {MODELS[name]} | {' | '.join(cells)} | {spread(far) if far else '-'} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


VALUES = ("mae", "nll", "coverage")


def distances(found: Found, head: str, seed: int, name: str, seeds: int) -> list[float]:
    """The Wasserstein distance of the predictions inside the range to each retrained model's, in degrees.

    A retrained model is compared with those of the other seeds.
    """
    ours = inside(found[head, seed][name])
    others = [other for other in range(seeds) if name != "retrained" or other != seed]
    return [distance(ours, inside(found[head, other]["retrained"])) for other in others]


def inside(model: Mapping[str, Any]) -> list[float]:
    return [value for value, gone in zip(model["predictions"], model["forgotten"], strict=True) if gone]


def picture(found: Found) -> bytes:
    """A PNG: predictions against targets of the first seed, before, after, and of the retrained model."""
    from synth.basics.drawing import new_figure

    titles = {"original": "original", "early-layers": "student", "retrained": "retrained"}
    shown = [name for name in titles if name in found["bins", 0]]
    heads = [head for head in HEADS if (head, 0) in found]
    figure, axes = new_figure("ranges", columns=len(shown), rows=len(heads))
    for number, axis in enumerate(axes):
        head, name = heads[number // len(shown)], shown[number % len(shown)]
        model = found[head, 0][name]
        axis.axvspan(*INSIDE, color="#f3dcd6")
        axis.plot(model["targets"][:3000], model["predictions"][:3000], ".", markersize=1.5, color="#33618f")
        axis.set_title(f"{titles[name]}, {head}")
        axis.set_xlabel("angle in degrees")
        axis.set_ylabel("prediction")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
