"""What is left of class 0 in students of several methods, by every measure of `unlearn audit`, each beside the retrained models.

A retrained model is audited too, against those of the other seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from reproduce_jobs import all_of, header, run, shards_job, spread
from reproduce_mnist import training_jobs


def reproduce(out: Path, data: list[object], seeds: int, per_class: int, students: list[str]) -> None:
    references = [out / f"seed{seed}" / "retrained-0.safetensors" for seed in range(seeds)]
    all_of(job for seed in range(seeds) for job in training_jobs(out, seed, data, ("0",)))
    records: dict[str, list[dict]] = {name: [] for name in students}
    for seed in range(seeds):
        folder = out / f"seed{seed}"
        teacher, shards = folder / "teacher.safetensors", folder / f"shards-{per_class}"
        run(shards_job(teacher, shards, per_class, seed))
        for name in records:
            student = made(name, folder, teacher, shards, per_class, seed)
            others = [word for path in references if path != student for word in ("--reference", path)]
            target = folder / f"audit-{name}"
            command = ["unlearn", "audit", student, "--teacher", teacher, "--forget", 0, *others, *data]
            run((target / "audit.json", [*command, "--shards", shards, "--seed", seed, "--out", target]))
            run((target / "report.html", ["unlearn", "report", target, "-o", target / "report.html"]))
            records[name].append(json.loads((target / "audit.json").read_text()))
    what = f"MNIST, LeNet5 with batch norm, forget 0, {seeds} seeds (mean ± standard deviation)."
    text = f"{header(what)}\n\n{audit_table(records)}\n"
    (out / "results-audit.md").write_text(text)
    click.echo(text)


def made(name: str, folder: Path, teacher: Path, shards: Path, per_class: int, seed: int) -> Path:
    """The student of that name, made where it isn't there yet."""
    if name == "retrained":
        return folder / "retrained-0.safetensors"
    student = folder / (f"distill-{per_class}-0" if name == "distill" else name)
    options = ["--shards", shards, "--forget", 0, "--out", student, "--seed", seed, "--threads", 1, "--overwrite"]
    if name == "distill":
        command = ["unlearn", "distill", *options]
    elif name in ("masked-logit", "last-layer", "finetune", "random-relabel"):
        command = ["unlearn", "baseline", "--kind", name, "--teacher", teacher, *options]
    else:
        command = ["unlearn", name, "--teacher", teacher, *options]
    run((student / "provenance.json", command))
    return student


def audit_table(records: dict[str, list[dict]]) -> str:
    """Markdown: each measure's mean ± standard deviation over seeds of every student, the status counts, the verdicts."""
    first = next(iter(records.values()))
    students = [name for name in records if name != "masked-logit"]
    columns = ["original", "masked logit", *students, "random"]
    lines = [f"| measure | unit | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for measurement in first[0]["measurements"]:
        cells = [
            over_seeds(first, measurement["name"], "original"),
            over_seeds(first, measurement["name"], "masked logit"),
        ]
        cells += [over_seeds(records[name], measurement["name"], "this model") for name in students]
        cells.append(over_seeds(first, measurement["name"], "random"))
        lines.append(f"| {measurement['title']} | {measurement['unit']} | {' | '.join(cells)} |")
    lines += ["", "Against the retrained models' interval, and the verdict, seed by seed:", ""]
    for name, runs in records.items():
        for seed, record in enumerate(runs):
            verdict = record["verdict"]
            left = [f["name"] for f in verdict["findings"] if f["status"] == "more left"]
            other = [f["name"] for f in verdict["findings"] if f["status"] in ("less than retrained", "differs")]
            lines.append(
                f"- {name}, seed {seed}: **{verdict['conclusion']}**. More left: {', '.join(left) or 'none'}. "
                f"Otherwise outside: {', '.join(other) or 'none'}."
            )
    return "\n".join(lines)


def over_seeds(records: list[dict], measure: str, subject: str) -> str:
    readings = [m["readings"].get(subject) for r in records for m in r["measurements"] if m["name"] == measure]
    return spread([reading["mean"] for reading in readings]) if readings and all(readings) else "-"
