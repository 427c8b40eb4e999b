"""The page's sections that show what everything was made from: the student's run, hashes, real images, settings."""

from __future__ import annotations

import json
from typing import Any

from synth.basics.disk import sha256_of
from unlearn.report.page import charts
from unlearn.report.page.charts import Chart
from unlearn.report.page.first_screen import other_shards
from unlearn.report.page.tables import Cell, Record, Table, facts, text_row
from unlearn.report.places import run_indexes_of, run_provenance


def training_facts(record: Record) -> list[Chart] | None:
    """The curves of the student's run, and what its filters dropped."""
    run = record["origin"]["run"]
    if run is None:
        return None
    drawn = [Chart(svg, "Over the steps of the run") for svg in charts.draw_training(run["metrics"])]
    samples = run["provenance"].get("samples")
    if samples:
        drawn.append(Chart(charts.filters(samples), "Samples that were kept, and those that each filter dropped"))
    return drawn or None


def inputs(record: Record) -> dict[str, Any]:
    run, shards = record["origin"]["run"], record["origin"]["shards"]
    synthesis = {"method": shards["method"], **shards["settings"], **shards["plan"]} if shards else {}
    audit = {"seed": record["seed"], "device": record["device"], **record["settings"]}
    folded = {
        "Settings of the audit": facts("Settings", audit),
        "Settings of the unlearning run": facts("Settings", run["settings"]) if run else None,
        "Settings of the synthesis": facts("Settings", synthesis) if shards else None,
        "Versions": facts("Versions of the audit", record["versions"]),
    }
    return {
        "hashes": facts("SHA-256 of everything that this report rests on", hashes(record)),
        "ledger": ledger(record) if record["ledger"] else None,
        "real_images_read": run_provenance(record).get("real_images_read", "unknown"),
        "sweep": sweep_facts(record),
        "trained_on": trained_on(record),
        "folded": {summary: table for summary, table in folded.items() if table},
    }


def hashes(record: Record) -> dict[str, str]:
    models, shards = record["models"], record["origin"]["shards"]
    found = {"teacher": models["teacher"]["sha256"], "student": models["student"]["sha256"]}
    if "public" in models:
        found["public weights"] = models["public"]["sha256"]
    found |= {f"retrained {number}": m["sha256"] for number, m in enumerate(models["references"], 1)}
    if "points_sha256" in record:
        found["pixels of the points"] = record["points_sha256"]
    if shards:
        found["shards' index"] = shards["index_sha256"] or "not complete"
        found |= {"shards' teacher": shards["teacher_sha256"], **shards["shards"]}
    if other_shards(record) is not None:
        found["index of the shards that the run read"] = ", ".join(run_indexes_of(record)) or "unknown"
    found["this record"] = sha256_of(json.dumps(record, sort_keys=True).encode())
    return found


def ledger(record: Record) -> Table:
    rows = []
    for line in record["ledger"]:
        cells = [Cell(line["purpose"]), Cell(f"{line['images']:,}"), Cell(line["rows"], code=True, folded=True)]
        rows.append((f"{line['data']}, {line['split']}", cells))
    return Table("Every real image that this audit read", ["data", "for", "images", "which"], rows, words=True)


def sweep_facts(record: Record) -> dict[str, Any] | None:
    """The real images that a sweep judged the student on, where the run was part of one."""
    judged = run_provenance(record).get("judged_on")
    return {part: judged.get(part) for part in ("images", "split", "data")} if isinstance(judged, dict) else None


def trained_on(record: Record) -> Table:
    models = record["models"]
    rows = [text_row(name, data_of(models[name])) for name in ("teacher", "student")]
    rows += [text_row(f"retrained {number}", data_of(model)) for number, model in enumerate(models["references"], 1)]
    return Table(
        "What the models were trained on, as their own cards say", ["model", "data or method"], rows, words=True
    )


def data_of(model: Record) -> str:
    """The data or the method, and the classes that were left out, as the model's own card says."""
    card = model["training"]
    without = card.get("without")
    left_out = f", without {', '.join(map(str, without))}" if isinstance(without, list) and without else ""
    start = card.get("start_from")
    started = f", started from {start.get('file')}" if isinstance(start, dict) else ""
    points = card.get("points")
    single = f", {points.get('how')} {points.get('images')} points" if isinstance(points, dict) else ""
    return f"{card.get('data') or card.get('method') or 'unknown'}{left_out}{single}{started}"
