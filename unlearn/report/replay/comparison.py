"""The comparison of a replayed audit with the one in a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unlearn.auditing.record.record import on_synthetic
from unlearn.auditing.record.versions import PACKAGE
from unlearn.report.places import AuditedModel, Places, locate
from unlearn.report.verify.values import close

Record = Mapping[str, Any]
IN_WORDS = {
    "class_names": "the names of the classes",
    "forget": "the classes to forget",
    "seed": "the seed",
    "settings": "the audit's settings",
    "ledger": "the ledger",
    "histograms": "the histograms",
    "pictures": "the pictures",
    "recognition": "the recognition of the shards' images",
    "points_sha256": "the pixels of the points",
    "points": "what the models call the points",
    "doubts": "what is doubtful about the references",
}
FACTS = (
    "family",
    "unit",
    "more_left",
    "resolution",
    "source",
    "key",
    "quality",
    "against_retrained",
    "against_mask",
    "repeated_by",
)


@dataclass(frozen=True)
class Comparison:
    """How two records of the same request differ."""

    measures: int
    equal: int  # measures whose values are all the same
    largest: float  # difference of two values
    where: str  # the measure with that difference
    outside: list[str]  # measures whose new mean is outside of the old interval and resolution, and other differences
    conclusions: tuple[str, str]
    same_student: bool | None = None  # byte for byte, where it was made again

    @property
    def agrees(self) -> bool:
        return not self.outside and self.conclusions[0] == self.conclusions[1]


def compare(old: Record, new: Record, retrained: bool = False) -> Comparison:
    """`retrained` says that the new record's student was made again, so that its bytes may differ."""
    known = {m["name"] for m in old["measurements"]}
    found = {m["name"]: m for m in new["measurements"]}
    models = list(zip(locate(old, Places()).models, locate(new, Places()).models, strict=True))
    largest, where, equal = 0.0, "", 0
    outside = [f"{name}, which the report lacks" for name in found if name not in known]
    outside += other_inputs(old, new, models, retrained)
    outside += other_facts(old, new, models, retrained)
    for m in old["measurements"]:
        other = found.get(m["name"])
        if other is None or set(other["readings"]) != set(m["readings"]):
            outside.append(m["name"])
            continue
        outside += outside_of(m, other)
        gap = max(difference(m["readings"][s]["values"], other["readings"][s]["values"]) for s in m["readings"])
        equal += gap == 0
        if gap > largest:
            largest, where = gap, m["name"]
    if equal == len(found) == len(known):
        outside += other_results(old, new)
    conclusions = old["verdict"]["conclusion"], new["verdict"]["conclusion"]
    return Comparison(len(known), equal, largest, where, outside, conclusions)


def outside_of(old: Record, new: Record) -> Iterator[str]:
    """What of a new measurement doesn't agree with the old one of the same name."""
    if any(old[fact] != new[fact] for fact in FACTS):
        yield f"{old['name']}, which is judged in another way"
    for subject, reading in old["readings"].items():
        low, high = reading["low"] - old["resolution"], reading["high"] + old["resolution"]
        if not low <= new["readings"][subject]["mean"] <= high:
            yield f"{old['name']} of {subject}"


def other_inputs(
    old: Record, new: Record, models: list[tuple[AuditedModel, AuditedModel]], retrained: bool
) -> Iterator[str]:
    """The models and shards of the new record that are not the old one's, by their hashes."""
    for before, after in models:
        if before.sha256 != after.sha256 and not (retrained and before.option == "--student"):
            yield f"{before.name}, which is another one"
    then, now = (record["origin"]["shards"] or {"shards": {}, "index_sha256": None} for record in (old, new))
    changed = [name for name, digest in then["shards"].items() if now["shards"].get(name) != digest]
    if changed or (then["index_sha256"] and now["index_sha256"] != then["index_sha256"]):
        yield f"the shards, which are others ({len(changed)} of {len(then['shards'])})"


def other_facts(
    old: Record, new: Record, models: list[tuple[AuditedModel, AuditedModel]], retrained: bool
) -> Iterator[str]:
    """Facts that are the same on every machine, and differ between the records."""
    for name in ("class_names", "forget", "seed", "settings", "ledger", "points_sha256", "doubts"):
        if old.get(name) != new.get(name):  # an audit of points has no classes to forget, and other audits no points
            yield IN_WORDS[name]
    if not on_synthetic(old) and old.get("images") != new.get("images"):  # synthetic ones have their place in the name
        yield "the images that it was judged on"
    if labelled(old) != labelled(new):
        yield "the files of the points, or their labels"
    if {n["name"] for n in old["not_run"]} != {n["name"] for n in new["not_run"]}:
        yield "what could not be run"
    for before, after in models:
        if retrained and before.option == "--student":
            continue
        if any(before.facts[fact] != after.facts[fact] for fact in ("architecture", "width", "training")):
            yield f"the facts in {before.name}'s card"
    if not retrained and new["origin"]["run"] and old["origin"]["run"] != new["origin"]["run"]:
        yield "the run's settings, metrics and provenance"


def labelled(record: Record) -> list[tuple[str, str]]:
    """The points by file and label; none in an audit of classes."""
    return [(point["file"], point["label"]) for point in record.get("points", ())]


def other_results(old: Record, new: Record) -> Iterator[str]:
    """Results that follow from the same values on the same kind of machine, and differ between the records."""
    for name in ("histograms", "pictures", "recognition", "points"):
        if name in old and old[name] != new[name]:  # older records lack the recognition
            yield IN_WORDS[name]
    before, after = ({m["name"]: m["details"] for m in record["measurements"]} for record in (old, new))
    for name, details in before.items():
        if not close(details, after[name]):
            yield f"the curves or counts of {name}"
    same_rules = old["versions"].get(PACKAGE) == new["versions"].get(PACKAGE)
    if same_rules and (old["verdict"] != new["verdict"] or old["controls"] != new["controls"]):
        yield "the reasons of the verdict, or of those on the known models"


def difference(old: list[list[float]], new: list[list[float]]) -> float:
    """The largest difference of two tables of values; infinite where they have other sizes."""
    if [len(row) for row in old] != [len(row) for row in new]:
        return float("inf")
    return max(abs(a - b) for row, other in zip(old, new, strict=True) for a, b in zip(row, other, strict=True))
