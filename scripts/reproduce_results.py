"""The results of runs. Real test images are read only here, after the runs; accuracies are kept beside the runs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from reproduce_jobs import Data
from reproduce_rows import Row, Size

Result = dict[str, Any]
Pair = tuple[float, float]  # retain and forget accuracy in per cent


def results_of(
    folder: Path, arch: str, seed: int, rows: list[Row], size: Size, data: Data, forget: int
) -> list[Result]:
    """One result for every complete run of a teacher."""
    fixed = {"original": folder / "teacher.safetensors", "retrained": folder / f"retrained-{forget}.safetensors"}
    for n in size.per_class:
        fixed[f"distill-{n}"] = folder / f"distill-{n}-{forget}" / "student.safetensors"
    found = [of_model(name, path, folder, data, forget) for name, path in fixed.items() if path.exists()]
    complete = [row for row in rows if (folder / row.name / "provenance.json").exists()]
    found += [of_run(row, folder, data, forget) for row in complete]
    return [{"arch": arch, "seed": seed, **result} for result in found]


def of_model(name: str, path: Path, folder: Path, data: Data, forget: int) -> Result:
    """The result of a model of which only the end is known."""
    facts_file = path.with_name("provenance.json")
    facts = json.loads(facts_file.read_text()) if facts_file.exists() and facts_file.parent != folder else {}
    pair = curve(name, {0: path}, folder, data, forget)[0]
    step, seconds = facts.get("student_step"), facts.get("seconds")
    end = {"step": step, "retain": pair[0], "forget": pair[1]}
    return {"row": name, "chosen": end, "best": end if pair[1] < 1 else None, "end": end, "seconds": seconds}


def of_run(row: Row, folder: Path, data: Data, forget: int) -> Result:
    """The student that the monitor chose without data, the step where it would have stopped, and all checks on the test
    set.
    """
    facts = json.loads((folder / row.name / "provenance.json").read_text())
    chosen, stopped = choice(read_metrics(folder / row.name))
    course = curve(row.name, kept_students(folder / row.name), folder, data, forget)
    points = [{"step": step, "retain": pair[0], "forget": pair[1]} for step, pair in sorted(course.items())]
    within = [point for point in points if point["forget"] < 1]
    last = points[-1]["step"]
    return {
        "row": row.name,
        "student_steps": row.student_steps,
        "chosen": next((point for point in points if point["step"] == chosen), points[-1]),
        "stopped": stopped,
        "best": max(within, key=lambda point: point["retain"], default=None),
        "end": points[-1],
        "seconds": facts["seconds"] * (stopped or last) / last,  # all steps of a run take the same time
        "ended": facts["ended"],
        "course": points,
    }


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The metrics of a run, one dictionary per check."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kept_students(run: Path) -> dict[int, Path]:
    """The files of the students that a run kept, by the step of their check."""
    return {int(path.stem.partition("-")[2]): path for path in sorted(run.glob("student-*.safetensors"))}


def choice(metrics: list[dict[str, float]]) -> tuple[int, int | None]:
    """The step whose student the monitor keeps, and the step at which it stops, or None. Both come from hold-outs
    only.
    """
    from unlearn.run.monitor import StoppingRule
    from unlearn.settings import LoopSettings

    rule = StoppingRule(LoopSettings().forget_bound, LoopSettings().patience)
    for line in metrics:
        rule.record_check(int(line["step"]), line["holdout_retain"], line["holdout_near"])
        if rule.forget_class_is_back:
            return rule.best_step, int(line["step"])
    return rule.best_step, None


def curve(name: str, models: dict[int, Path], folder: Path, data: Data, forget: int) -> dict[int, Pair]:
    """Accuracies on the test set by step. They are kept in `curves/`, which no run reads."""
    from unlearn.evaluation import evaluate_model

    file = folder / "curves" / f"{name}.json"
    known: dict[int, Pair] = {int(s): tuple(p) for s, p in json.loads(file.read_text())} if file.exists() else {}
    kept = file.stat().st_mtime if known else 0.0
    found = {step: known[step] for step, path in models.items() if step in known and path.stat().st_mtime <= kept}
    file.parent.mkdir(parents=True, exist_ok=True)
    for step in sorted(models.keys() - found.keys()):
        result = evaluate_model(model_at(models[step]), test_images(data), (forget,))
        found[step] = (result.retain, result.forget or 0.0)
        file.write_text(json.dumps(sorted(found.items())))
    return found


def model_at(path: Path) -> Any:
    from synth.checkpoint.file import load_checkpoint

    return load_checkpoint(path)


@cache
def test_images(data: Data) -> Any:
    from unlearn.data import load_images

    return load_images(data.name, "test", data.root)
