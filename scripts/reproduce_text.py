"""The results as Markdown tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reproduce_jobs import spread
from reproduce_results import Result
from reproduce_rows import Row

from synth.basics.disk import write_file

ARCHS = {"lenet5": "LeNet5 with batch norm", "allcnn": "AllCNN", "resnet20": "ResNet-20"}
FIXED = {
    "original": ("original model", "97.84"),
    "retrained": ("retrained without class 0", "99.25"),
    "distill-100": ("distill, 100 images per class", "40-50"),
    "distill-500": ("distill, 500 images per class", "-"),
    "distill-1000": ("distill, 1,000 images per class", "-"),
    "distill-6000": ("distill, 6,000 images per class", "80-85"),
}
Point = tuple[float, float, float]  # a step, and the retain and the forget accuracy in per cent
STUDENT_STEPS = (1000, 2000, 3000, 4000, 8000, 16000)


def tables(results: Sequence[Result], rows: Sequence[Row], published: bool) -> str:
    """All tables as Markdown. `published` adds the published figures, which are for MNIST."""
    parts = []
    for arch in dict.fromkeys(result["arch"] for result in results):
        ours = [result for result in results if result["arch"] == arch]
        seeds = len({result["seed"] for result in ours})
        parts += [f"## {ARCHS.get(arch, arch)}, {seeds} seed{'s' * (seeds > 1)}", main_table(ours, rows, published)]
        if any(row.kind == "ablation" and named(ours, row.name) for row in rows):
            parts += ["### The tuned preset without each of its parts", ablation_table(ours, rows)]
        parts += ["### Equal numbers of student steps: retain / forget", equal_steps_table(ours, rows)]
    return "\n\n".join(parts)


def main_table(results: Sequence[Result], rows: Sequence[Row], published: bool) -> str:
    lines = [
        "| method | stopped without data: retain % | forget % | best retain while forget < 1 % (at step) | end: retain "
        "% | end: forget % | steps | seconds | published retain % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    titles = {**FIXED, **{row.name: (row.title, row.published) for row in rows if row.kind != "ablation"}}
    for name, (title, theirs) in titles.items():
        found = named(results, name)
        if found:
            lines.append(f"| {title} | {' | '.join(cells(found))} | {theirs if published else '-'} |")
    return "\n".join(lines)


def cells(found: Sequence[Result]) -> list[str]:
    best = [result["best"] for result in found if result["best"]]
    at = ", ".join(f"{point['step']}" for point in best if point["step"])
    stops = [result.get("stopped") or result["end"]["step"] for result in found]
    seconds = [result["seconds"] for result in found if result["seconds"] is not None]
    missing = f" ({len(best)} of {len(found)} seeds)" if len(best) < len(found) else ""
    return [
        *(spread([result["chosen"][which] for result in found]) for which in ("retain", "forget")),
        (spread([point["retain"] for point in best]) + (f" ({at})" if at else "") if best else "never") + missing,
        *(spread([result["end"][which] for result in found]) for which in ("retain", "forget")),
        ", ".join(f"{stop:,}" for stop in stops) if None not in stops else "-",
        f"{sum(seconds) / len(seconds):.0f}" if seconds else "-",
    ]


def ablation_table(results: Sequence[Result], rows: Sequence[Row]) -> str:
    lines = ["| | stopped without data: retain % | forget % | best retain while forget < 1 % |", "|---|---|---|---|"]
    for row in rows:
        found = named(results, row.name)
        if found and row.kind == "ablation":
            lines.append(f"| {row.title} | {' | '.join(cells(found)[:3])} |")
    return "\n".join(lines)


def equal_steps_table(results: Sequence[Result], rows: Sequence[Row]) -> str:
    """Each run's student at its last check within the given number of student steps; a dash where the run was
    shorter.
    """
    lines = [f"| | {' | '.join(f'{n:,}' for n in STUDENT_STEPS)} |", "|---" * (len(STUDENT_STEPS) + 1) + "|"]
    for row in rows:
        found = named(results, row.name)
        if not found or row.student_steps == 1 or row.kind == "ablation":
            continue
        shown = []
        for limit in STUDENT_STEPS:
            pairs = [point for result in found if (point := at_most(result, limit))]
            retain, forget = (
                spread([point[which] for point in pairs]) if pairs else "-" for which in ("retain", "forget")
            )
            shown.append(f"{retain} / {forget}" if pairs else "-")
        lines.append(f"| {row.title} | {' | '.join(shown)} |")
    return "\n".join(lines)


def at_most(result: Result, limit: int) -> dict[str, float] | None:
    """The last check within `limit` student steps; None where the run is shorter."""
    per_step = result["student_steps"]
    if result["end"]["step"] * per_step < limit:
        return None
    return max((p for p in result["course"] if p["step"] * per_step <= limit), key=lambda p: p["step"], default=None)


def named(results: Sequence[Result], name: str) -> list[Result]:
    return [result for result in results if result["row"] == name]


def figures(results: Sequence[Result], folder: Path) -> None:
    """Plot both accuracies over the steps of each run that has more than two checks."""
    from unlearn.run.sweep import plot

    courses: dict[str, list[Point]] = {}
    for result in results:
        points = [(p["step"], p["retain"], p["forget"]) for p in result.get("course", [])]
        courses.setdefault(f"{result['arch']}-{result['row']}", []).extend(points)
    for name, points in courses.items():
        if len({step for step, _, _ in points}) > 2:
            folder.mkdir(parents=True, exist_ok=True)
            write_file(folder / f"{name}.svg", plot(f"step of {name}", points).encode())
