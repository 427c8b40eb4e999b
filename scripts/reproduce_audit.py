"""What is left of class 0 in students of several methods, by every measure of `unlearn audit`, each beside the retrained models.

`control` is distilled like `distill`, but from images and logits of a model that never saw the class: where it differs from the
retrained models, the recipe does, and where `distill` differs from it, the teacher's knowledge of the class does.
Every audit also judges the models whose answer is known: the masked logit, and each retrained model against the others.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from reproduce_jobs import all_of, header, run, shards_job, spread
from reproduce_mnist import training_jobs

CONTROL = "control"
DISTILLED: dict[str, list[object]] = {
    "distill": [],
    "distill-soft": ["--temperature", 4],
    "distill-hard": ["--hard-labels"],
    CONTROL: [],
}
METHODS = {"gkt": ["gkt", "--preset", "tuned"]}
BRIEF = {
    "repeats": 2,
    "draws": 5,
    "relearn-steps": 32,
    "inversion-steps": 40,
    "inversion-images": 10,
    "random-models": 1,
}


def reproduce(out: Path, data: list[object], seeds: int, per_class: int, students: list[str], brief: bool) -> None:
    references = [out / f"seed{seed}" / "retrained-0.safetensors" for seed in range(seeds)]
    all_of(job for seed in range(seeds) for job in training_jobs(out, seed, data, ("0",)))
    records: dict[str, list[dict]] = {name: [] for name in students}
    for seed in range(seeds):
        folder = out / f"seed{seed}"
        teacher, shards = folder / "teacher.safetensors", folder / f"shards-{per_class}"
        run(shards_job(teacher, shards, per_class, seed))
        for name in records:
            student = made(name, folder, teacher, shards, per_class, seed)
            own = folder / "retrained-0.safetensors" if name in (CONTROL, "retrained") else None
            others = [word for path in references if path != own for word in ("--reference", path)]
            target = folder / f"audit-{name}"
            command = ["unlearn", "audit", student, "--teacher", teacher, "--forget", 0, *others, *data]
            command += [f"--{name}={value}" for name, value in BRIEF.items()] if brief else ["--shards", shards]
            run((target / "audit.json", [*command, "--seed", seed, "--out", target]))
            run((target / "report.html", ["unlearn", "report", target, "-o", target / "report.html"]))
            records[name].append(json.loads((target / "audit.json").read_text()))
    what = f"MNIST, LeNet5 with batch norm, forget 0, {seeds} seeds (mean ± standard deviation){', brief settings' if brief else ''}."
    text = f"{header(what)}\n\n{audit_table(records)}\n"
    (out / "results-audit.md").write_text(text)
    click.echo(text)


def made(name: str, folder: Path, teacher: Path, shards: Path, per_class: int, seed: int) -> Path:
    """The student of that name, made where it isn't there yet."""
    if name == "retrained":
        return folder / "retrained-0.safetensors"
    student = folder / (f"distill-{per_class}-0" if name == "distill" else name)
    if name == CONTROL:  # the same steps from a teacher that never saw the class: what the recipe alone leaves
        teacher, shards = folder / "retrained-0.safetensors", folder / f"shards-{per_class}-control"
        run(shards_job(teacher, shards, per_class, seed, "--classes", "1,2,3,4,5,6,7,8,9"))
    if name in DISTILLED:
        command = ["unlearn", "distill", *DISTILLED[name]]
    elif name in ("masked-logit", "last-layer", "finetune", "random-relabel"):
        command = ["unlearn", "baseline", "--kind", name, "--teacher", teacher]
    else:
        command = ["unlearn", *METHODS.get(name, [name]), "--teacher", teacher]
    options = ["--shards", shards, "--forget", 0, "--out", student, "--seed", seed, "--threads", 1, "--overwrite"]
    run((student / "provenance.json", [*command, *options]))
    return student


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
