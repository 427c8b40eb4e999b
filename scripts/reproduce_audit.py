"""What is left of class 0 in students of several methods, by every measure of `unlearn audit`, each beside the retrained models.

`control` is distilled like `distill`, but from images and logits of a model that never saw the class: where it differs from the
retrained models, the recipe does, and where `distill` differs from it, the teacher's knowledge of the class does.
Every audit also judges the models whose answer is known: the masked logit, and each retrained model against the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
from reproduce_jobs import Data, Job, all_of, header, run, shards_job, spread
from reproduce_mnist import training_jobs
from reproduce_rows import SIZES, method_rows
from reproduce_table import row_job

CONTROL, RETRAINED = "control", "retrained"
DISTILLED: dict[str, list[object]] = {
    "distill": [],
    "distill-soft": ["--temperature", 4],
    "distill-hard": ["--hard-labels", "--entropy", 0.2],
    CONTROL: [],
}
SMALL = SIZES["small"]
ROWS = {row.name: row for row in method_rows(SMALL)}  # students as `scripts/reproduce table` makes them
HOLDOUT = SMALL.per_class[0]  # images a class of the shards that their monitors hold out
BRIEF = {
    "repeats": 2,
    "draws": 5,
    "relearn-steps": 32,
    "inversion-steps": 40,
    "inversion-images": 10,
    "random-models": 1,
}


@dataclass(frozen=True)
class Case:
    """One seed's models."""

    folder: Path
    seed: int
    forget: str  # such as 0 or 3,8
    per_class: int

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher.safetensors"

    @property
    def retrained(self) -> Path:
        return self.folder / f"retrained-{self.forget}.safetensors"

    @property
    def shards(self) -> Path:
        return self.folder / f"shards-{self.per_class}"


def reproduce(out: Path, data: Data, seeds: int, per_class: int, forget: str, students: list[str], brief: bool) -> None:
    cases = [Case(out / f"seed{seed}", seed, forget, per_class) for seed in range(seeds)]
    all_of(job for case in cases for job in training_jobs(out, case.seed, data, (forget,)))
    for case in cases:
        run(shards_job(case.teacher, case.shards, per_class, case.seed))
        if ROWS.keys() & set(students):
            run(shards_job(case.teacher, case.folder / f"shards-{HOLDOUT}", HOLDOUT, case.seed))
    if CONTROL in students:
        for case in cases:
            run(control_shards(case))
    all_of(student_job(name, case) for name in students for case in cases)
    records: dict[str, list[dict]] = {name: [] for name in students}
    for name, case in product(students, cases):
        own = case.retrained if name in (CONTROL, RETRAINED) else None
        references = [word for other in cases if other.retrained != own for word in ("--reference", other.retrained)]
        target = case.folder / f"audit-{name}-{forget}"
        student = student_job(name, case)[0].parent if name != RETRAINED else case.retrained
        command = [
            "unlearn",
            "audit",
            student,
            "--teacher",
            case.teacher,
            "--forget",
            forget,
            *references,
            *data.options,
        ]
        command += [f"--{name}={value}" for name, value in BRIEF.items()] if brief else ["--shards", case.shards]
        run((target / "audit.json", [*command, "--seed", case.seed, "--out", target]))
        run((target / "report.html", ["unlearn", "report", target, "-o", target / "report.html"]))
        records[name].append(json.loads((target / "audit.json").read_text()))
    how = ", brief settings" if brief else ""
    what = f"MNIST, LeNet5 with batch norm, forget {forget}, {seeds} seeds (mean ± standard deviation){how}."
    text = f"{header(what)}\n\n{audit_table(records)}\n"
    (out / f"results-audit-{forget}.md").write_text(text)
    click.echo(text)


def student_job(name: str, case: Case) -> Job:
    """The student of that name: its provenance, which is written last, and the command that makes it."""
    if name == RETRAINED:
        return case.retrained, []
    student = case.folder / f"{f'distill-{case.per_class}' if name == 'distill' else name}-{case.forget}"
    if name in ROWS:
        return row_job(student, ROWS[name], case.seed, f"shards-{HOLDOUT}", case.forget)
    shards = control_shards(case)[0].parent if name == CONTROL else case.shards
    options = ["--shards", shards, "--forget", case.forget, "--out", student, "--seed", case.seed]
    command = ["unlearn", "distill", *DISTILLED[name], *options, "--threads", 1, "--overwrite"]
    return student / "provenance.json", command


def control_shards(case: Case) -> Job:
    """From a teacher that never saw the class: what the recipe alone leaves."""
    kept = ",".join(str(c) for c in range(10) if str(c) not in case.forget.split(","))
    shards = case.folder / f"shards-{case.per_class}-control-{case.forget}"
    return shards_job(case.retrained, shards, case.per_class, case.seed, "--classes", kept)


def audit_table(records: dict[str, list[dict]]) -> str:
    """Markdown: each measure's mean ± standard deviation over seeds, the verdicts, and those on models known before."""
    first = next(iter(records.values()))
    columns = [(s, first, s) for s in ("original", "masked logit")]
    columns += [(name, runs, "this model") for name, runs in records.items()]
    columns += [(s, first, s) for s in ("retrained", "random")]
    lines = [f"| measure | unit | {' | '.join(title for title, _, _ in columns)} |", "|---" * (len(columns) + 2) + "|"]
    for measurement in first[0]["measurements"]:
        cells = [over_seeds(runs, measurement["name"], subject) for _, runs, subject in columns]
        lines.append(f"| {measurement['title']} | {measurement['unit']} | {' | '.join(cells)} |")
    lines += ["", "Verdicts, seed by seed:", ""]
    for name, runs in records.items():
        for seed, record in enumerate(runs):
            verdict = record["verdict"]
            more, less = (
                ", ".join(f["name"] for f in verdict["findings"] if f["status"] in statuses) or "none"
                for statuses in (("more left",), ("less than retrained", "differs"))
            )
            lines.append(
                f"- {name}, seed {seed}: **{verdict['conclusion']}**. More left: {more}. Otherwise outside: {less}."
            )
    for seed, record in enumerate(first):
        told = "; ".join(f"{c['subject']}: {c['conclusion']}" for c in record["controls"])
        lines.append(f"- models whose answer is known, seed {seed}: {told}.")
    return "\n".join(lines)


def over_seeds(records: list[dict], measure: str, subject: str) -> str:
    readings = [m["readings"].get(subject) for r in records for m in r["measurements"] if m["name"] == measure]
    return spread([reading["mean"] for reading in readings]) if readings and all(readings) else "-"
