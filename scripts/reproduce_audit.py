"""What is left of class 0 in students of several methods, by every measure of `unlearn audit`, each beside the retrained models.

`control` is distilled like `distill`, but from images and logits of a model that never saw the class: where it differs from the
retrained models, the recipe does, and where `distill` differs from it, the teacher's knowledge of the class does.
Every audit also judges the models whose answer is known: the masked logit, and each retrained model against the others.
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
    """What is the same for every seed. `size` has the rows' sizes, and the images a class of two runs of shards: those that the
    rows' monitors hold out, and those that `distill` learns from.
    """

    arch: str
    data: Data
    forget: str  # such as 0 or 3,8
    size: Size
    references: int  # retrained models, those of the first seeds

    @property
    def rows(self) -> dict[str, Row]:
        """Students as `scripts/reproduce table` makes them."""
        return {row.name: row for row in method_rows(self.size, self.data.flip)}

    def training_jobs(self, out: Path) -> list[Job]:
        """Teachers and their retrained models, and the retrained models of seeds that have no teacher here."""
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
        """In a folder of the student's name, as `unlearn audit` of several students has it."""
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
    (out / f"results-audit-{forget}.md").write_text(text)
    click.echo(text)


def audit_students(students: list[str], case: Case, retrained: list[Path], brief: bool) -> None:
    """Those that are not audited yet, in one command for all that have the same references."""
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
    """The students that have the same references, by the retrained model that is none of theirs: they are its kin, or itself."""
    found: dict[Path | None, list[str]] = {}
    for name in students:
        found.setdefault(case.retrained if name in (CONTROL, RETRAINED) else None, []).append(name)
    return found


def audited_student(name: str, case: Case) -> Path:
    return student_job(name, case)[0].parent if name != RETRAINED else case.retrained


def student_job(name: str, case: Case) -> Job:
    """The student of that name: its provenance, which is written last, and the command that makes it."""
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
    """From a teacher that never saw the class: what the recipe alone leaves."""
    study, per_class = case.study, case.study.size.per_class[-1]
    kept = ",".join(str(c) for c in range(10) if str(c) not in study.forget.split(","))
    shards = case.folder / f"shards-{per_class}-control-{study.forget}"
    return shards_job(case.retrained, shards, per_class, case.seed, "--classes", kept, *study.data.flip)


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
