"""What is left of a class in students of several methods: every measure of `unlearn audit`, beside the retrained
models.

`control` is distilled like `distill`, but from images and logits of a model that never saw the class. A difference
between the control and the retrained models comes from the recipe. A difference between `distill` and the control comes
from what the teacher knows about the class. Every audit also judges models whose answer is known: the masked logit, and
each retrained model against the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
from reproduce_jobs import Data, Job, all_of, header, run, shards_job, spread
from reproduce_mnist import training_jobs
from reproduce_rows import Row, Size, method_rows
from reproduce_table import row_job
from reproduce_text import ARCHS

from synth.basics.disk import write_file

CONTROL, RETRAINED = "control", "retrained"
DISTILLED: dict[str, list[object]] = {
    "distill": [],
    "distill-soft": ["--temperature", 4],
    "distill-hard": ["--hard-labels", "--entropy", 0.2],
    CONTROL: [],
}
BRIEF = {
    "repeats": 2,
    "draws": 5,
    "relearn-steps": 32,
    "inversion-steps": 40,
    "inversion-images": 10,
    "random-models": 1,
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is the same for every seed. `size` has the sizes of the rows. Its two values of images per class belong to
    two runs of shards: the monitors hold out images of the first, `distill` learns from the second.
    """

    arch: str
    data: Data
    forget: str  # such as 0 or 3,8
    size: Size
    references: int  # number of retrained models, of the first seeds

    @property
    def rows(self) -> dict[str, Row]:
        """The rows of `scripts/reproduce table`, by name."""
        return {row.name: row for row in method_rows(self.size, self.data.flip)}

    def training_jobs(self, out: Path) -> list[Job]:
        """Jobs for teachers and retrained models; further seeds have only a retrained model."""
        jobs: list[Job] = []
        for seed in range(max(self.size.seeds, self.references)):
            forget, size = (self.forget,), self.size
            of_seed = training_jobs(out / f"seed{seed}", seed, self.data, forget, self.arch, size.epochs)
            jobs += of_seed if seed < size.seeds else of_seed[1:]
        return jobs


@dataclass(frozen=True)
class Case:
    """One seed's models."""

    folder: Path
    seed: int
    study: Study

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher.safetensors"

    @property
    def retrained(self) -> Path:
        return self.folder / f"retrained-{self.study.forget}.safetensors"

    def shards(self, per_class: int) -> Path:
        return self.folder / f"shards-{per_class}"

    def audit_of(self, name: str) -> Path:
        """The audit's folder. It has the student's name, as when `unlearn audit` gets several students."""
        student = audited_student(name, self)
        return self.folder / f"audits-{self.study.forget}" / (student.stem if name == RETRAINED else student.name)


def reproduce(out: Path, study: Study, students: list[str], brief: bool) -> None:
    data, forget = study.data, study.forget
    cases = [Case(out / f"seed{seed}", seed, study) for seed in range(study.size.seeds)]
    held_out, learnt = study.size.per_class
    all_of(study.training_jobs(out))
    for case in cases:
        for per_class in {learnt, held_out} if study.rows.keys() & set(students) else {learnt}:
            run(shards_job(case.teacher, case.shards(per_class), per_class, case.seed, *study.data.flip))
    if CONTROL in students:
        for case in cases:
            run(control_shards(case))
    all_of(student_job(name, case) for name in students for case in cases)
    retrained = [Case(out / f"seed{seed}", seed, study).retrained for seed in range(study.references)]
    records: dict[str, list[dict]] = {name: [] for name in students}
    for case in cases:
        audit_students(students, case, retrained, brief)
        for name in students:
            audit = case.audit_of(name)
            run((audit / "report.html", ["unlearn", "report", audit, "-o", audit / "report.html"]))
            records[name].append(json.loads((audit / "audit.json").read_text()))
    seeds = f"{study.size.seeds} seeds (mean ± standard deviation)" if study.size.seeds > 1 else "one seed"
    how = ", brief settings" if brief else ""
    arch = ARCHS.get(study.arch, study.arch)
    what = f"{data.title}, {arch}, forget {forget}, {seeds}, {study.references} retrained models{how}."
    text = f"{header(what)}\n\n{audit_table(records)}\n"
    write_file(out / f"results-audit-{forget}.md", text.encode())
    click.echo(text)


def audit_students(students: list[str], case: Case, retrained: list[Path], brief: bool) -> None:
    """Audit the students that lack an audit, with one command for all students that share their references."""
    study = case.study
    for own, names in together(students, case).items():
        lacking = [name for name in names if not (case.audit_of(name) / "audit.json").exists()]
        if not lacking:
            continue
        audited = [audited_student(name, case) for name in lacking]
        references = [word for path in retrained if path != own for word in ("--reference", path)]
        given = ["--teacher", case.teacher, "--forget", study.forget, *references, *study.data.options]
        sizes = [f"--{name}={value}" for name, value in BRIEF.items()]
        given += sizes if brief else ["--shards", case.shards(study.size.per_class[1])]
        last = case.audit_of(lacking[-1])
        out = last.parent if len(lacking) > 1 else last
        command = ["unlearn", "audit", *audited, *given, "--seed", case.seed, "--out", out, "--overwrite"]
        run((last / "audit.json", command))


def together(students: list[str], case: Case) -> dict[Path | None, list[str]]:
    """Students grouped by the retrained model that may not be their reference, because they were made from it or are
    it.
    """
    found: dict[Path | None, list[str]] = {}
    for name in students:
        found.setdefault(case.retrained if name in (CONTROL, RETRAINED) else None, []).append(name)
    return found


def audited_student(name: str, case: Case) -> Path:
    return student_job(name, case)[0].parent if name != RETRAINED else case.retrained


def student_job(name: str, case: Case) -> Job:
    """The job for one student: its provenance file, which is written last, and its command."""
    study, (held_out, learnt) = case.study, case.study.size.per_class
    if name == RETRAINED:
        return case.retrained, []
    student = case.folder / f"{f'distill-{learnt}' if name == 'distill' else name}-{study.forget}"
    if name in study.rows:
        return row_job(student, study.rows[name], case.seed, f"shards-{held_out}", study.forget)
    shards = control_shards(case)[0].parent if name == CONTROL else case.shards(learnt)
    options = ["--shards", shards, "--forget", study.forget, "--out", student, "--seed", case.seed, *study.data.flip]
    command = ["unlearn", "distill", *DISTILLED[name], *options, "--threads", 1, "--overwrite"]
    return student / "provenance.json", command


def control_shards(case: Case) -> Job:
    """Shards from a teacher that never saw the class, for the control."""
    study, per_class = case.study, case.study.size.per_class[-1]
    kept = ",".join(str(c) for c in range(10) if str(c) not in study.forget.split(","))
    shards = case.folder / f"shards-{per_class}-control-{study.forget}"
    return shards_job(case.retrained, shards, per_class, case.seed, "--classes", kept, *study.data.flip)


def audit_table(records: dict[str, list[dict]]) -> str:
    """Markdown: each measure's mean ± standard deviation over seeds, and the verdicts on students and known models."""
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
