"""The page's sections that tell where everything comes from, and what still holds the class."""

from __future__ import annotations

import hashlib
import json

from unlearn.report.page import charts
from unlearn.report.page.cells import Record, classes_of
from unlearn.report.page.markup import Markup, chart, element, facts, folded, listing, section, table


def training(record: Record) -> Markup | None:
    run = record["origin"]["run"]
    if run is None:
        return None
    drawn = [chart(svg, "Over the run's steps") for svg in charts.training(run["metrics"])] if run["metrics"] else []
    samples = run["provenance"].get("samples") or {}
    if samples:
        drawn.append(chart(charts.filters(samples), "Samples kept, and dropped by each filter"))
    return section("How the model was made", element("div", *drawn, class_="charts"))


def disposal(record: Record) -> Markup:
    lines = [f"the original checkpoint, {record['models']['teacher']['path']}"]
    shards, data = record["origin"]["shards"], record["request"]["data"]
    if data:
        lines.append(f"the real images of {classes_of(record)} in {data['name']}")
    if (learnt := other_shards(record)) is not None:
        lines.append(
            f"the shards in {learnt}, which the unlearning run read: unless it was left out when they were made, they hold "
            "synthesised images of the class, and the original's logits name it in any case"
        )
    if shards and set(shards["plan"]["classes"]) & set(record["forget"]):
        lines.append(
            f"the shards in {shards['uri']}: they hold synthesised images of the class, and the original's logits"
        )
    elif shards:
        lines.append(
            f"the shards in {shards['uri']}: no image was made for the class, but the original's logits name it"
        )
    if any(name.startswith("resurrection-") for name in record["pictures"]):
        lines.append("the pictures in this report and in the audit's folder, where a model could still draw the class")
    lines.append(
        "every copy and backup of these, a generator trained for the shards, and logs or caches of shards and outputs"
    )
    text = (
        "Unlearning a model does not clean what lies beside it. These still hold the class, and are to be disposed of once "
        "the model is in service:"
    )
    return section("What still holds the class", element("p", text), listing(lines))


def other_shards(record: Record) -> str | None:
    """Where the shards that the student's run read were, if they are none of the audit's."""
    run, shards = record["origin"]["run"], record["origin"]["shards"]
    told = run["provenance"].get("shards") if run else None
    if not told or (shards and shards["index_sha256"] == run["provenance"].get("index_sha256")):
        return None
    return str(told)


def provenance(record: Record) -> Markup:
    run, shards = record["origin"]["run"], record["origin"]["shards"]
    models = record["models"]
    digests = {"teacher": models["teacher"]["sha256"], "student": models["student"]["sha256"]}
    digests |= {f"retrained {n + 1}": m["sha256"] for n, m in enumerate(models["references"])}
    if shards:
        digests["shards' index"] = shards["index_sha256"] or "not complete"
        digests |= {"shards' teacher": shards["teacher_sha256"], **shards["shards"]}
    if other_shards(record) is not None:
        digests["index of the shards that the run read"] = run["provenance"].get("index_sha256") or "not told"
    digests["this record"] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    ledger = [
        [f"{line['data']}, {line['split']}", line["purpose"], f"{line['images']:,}", rows_of(line)]
        for line in record["ledger"]
    ]
    trained = [[name, told_data(models[name])] for name in ("teacher", "student")]
    trained += [[f"retrained {n + 1}", told_data(model)] for n, model in enumerate(models["references"])]
    read = run["provenance"].get("real_images_read") if run else None
    judged = judged_by(run["provenance"].get("judged_on")) if run else ""
    synthesis = {"method": shards["method"], **shards["settings"], **shards["plan"]} if shards else {}
    audit = {"seed": record["seed"], "device": record["device"], **record["settings"]}
    return section(
        "Provenance",
        facts("SHA-256 of everything this rests on", digests),
        table("Every real image that this audit read", ["data", "for", "images", "which"], ledger, words=True)
        if ledger else element("p", "This audit read no real image."),
        element("p", f"Real images that the unlearning run read, by its own account: {'unknown' if read is None else read}.{judged}"),
        *(element("p", element("strong", f"Do not rely on the student's origin: {problem}."))
          for problem in record["origin"]["problems"]),
        table("What the models say they were trained on", ["model", "data or method"], trained, words=True),
        folded("Settings of the audit", facts("Settings", audit)),
        folded("Settings of the unlearning run", facts("Settings", run["settings"])) if run else None,
        folded("Settings of the synthesis", facts("Settings", synthesis)) if shards else None,
        folded("Versions", facts("Versions of the audit", record["versions"])),
    )  # fmt: skip


def judged_by(told: object) -> str:
    """What a sweep's students were judged on, where the run was one of a sweep's."""
    if not isinstance(told, dict):
        return ""
    where = f"{told.get('images')} {told.get('split')} images of {told.get('data')}"
    return f" A sweep then judged it by {where}: who chose it by that has chosen by real images."


def rows_of(line: Record) -> Markup:
    return folded("rows", element("code", line["rows"]))


def told_data(model: Record) -> str:
    """The data or the method, and what was left out, by the model's own card."""
    told = model["training"]
    without = told.get("without")
    left_out = f", without {', '.join(map(str, without))}" if isinstance(without, list) and without else ""
    return f"{told.get('data') or told.get('method') or 'not told'}{left_out}"
