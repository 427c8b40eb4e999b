"""How a record and the one that was made again differ: in values, in facts, and in what follows from the values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unlearn.audit.record.record import on_synthetic
from unlearn.audit.record.versions import PACKAGE
from unlearn.report.places import Places, models_of
from unlearn.report.verify.values import close

TOLD_AS = {
    "class_names": "the names of the classes",
    "forget": "the classes to forget",
    "seed": "the seed",
    "settings": "the audit's settings",
    "ledger": "the ledger",
    "histograms": "the histograms",
    "pictures": "the pictures",
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
    equal: int
    largest: float  # difference of two values
    where: str
    outside: list[
        str
    ]  # measures whose new mean is outside of the old interval and resolution, and what else is not the same
    conclusions: tuple[str, str]
    same_student: bool | None = None  # byte for byte, where it was made again

    @property
    def agrees(self) -> bool:
        return not self.outside and self.conclusions[0] == self.conclusions[1]


def compare(old: Mapping[str, Any], new: Mapping[str, Any], retrained: bool = False) -> Comparison:
    """`retrained` where the new record is of a student that was made again, whose bytes may be others."""
    fresh = {m["name"]: m for m in new["measurements"]}
    largest, where, equal = 0.0, "", 0
    outside = [
        f"{name}, which the report lacks" for name in fresh if name not in {m["name"] for m in old["measurements"]}
    ]
    outside += other_inputs(old, new, retrained)
    outside += other_facts(old, new, retrained)
    for m in old["measurements"]:
        other = fresh.get(m["name"])
        if other is None or set(other["readings"]) != set(m["readings"]):
            outside.append(m["name"])
            continue
        differences = [difference(m["readings"][s]["values"], other["readings"][s]["values"]) for s in m["readings"]]
        equal += max(differences) == 0
        if any(m[fact] != other[fact] for fact in FACTS):
            outside.append(f"{m['name']}, which is judged otherwise")
        if max(differences) > largest:
            largest, where = max(differences), m["name"]
        for subject, reading in m["readings"].items():
            low, high = reading["low"] - m["resolution"], reading["high"] + m["resolution"]
            if not low <= other["readings"][subject]["mean"] <= high:
                outside.append(f"{m['name']} of {subject}")
    if equal == len(fresh) == len(old["measurements"]):
        outside += other_results(old, new)
    conclusions = old["verdict"]["conclusion"], new["verdict"]["conclusion"]
    return Comparison(len(old["measurements"]), equal, largest, where, outside, conclusions)


def other_inputs(old: Mapping[str, Any], new: Mapping[str, Any], retrained: bool) -> Iterator[str]:
    """Which models and shards of the new record are not the old one's, by their hashes."""
    for before, after in zip(models_of(old, Places()), models_of(new, Places()), strict=True):
        if before.sha256 != after.sha256 and not (retrained and before.option == "--student"):
            yield f"{before.name}, which is another one"
    made, found = (record["origin"]["shards"] or {"shards": {}, "index_sha256": None} for record in (old, new))
    changed = [name for name, digest in made["shards"].items() if found["shards"].get(name) != digest]
    if changed or (made["index_sha256"] and found["index_sha256"] != made["index_sha256"]):
        yield f"the shards, which are others ({len(changed)} of {len(made['shards'])})"


def other_facts(old: Mapping[str, Any], new: Mapping[str, Any], retrained: bool) -> Iterator[str]:
    """What no machine changes, and the records tell otherwise."""
    for name in ("class_names", "forget", "seed", "settings", "ledger"):
        if old[name] != new[name]:
            yield TOLD_AS[name]
    if not on_synthetic(old) and old["images"] != new["images"]:  # of synthetic images it names their place
        yield "what it was judged on"
    if {n["name"] for n in old["not_run"]} != {n["name"] for n in new["not_run"]}:
        yield "what could not be run"
    models = [[r["models"]["teacher"], r["models"]["student"], *r["models"]["references"]] for r in (old, new)]
    for model, before, after in zip(models_of(old, Places()), *models, strict=True):
        if retrained and model.option == "--student":
            continue
        if any(before[fact] != after[fact] for fact in ("architecture", "width", "training")):
            yield f"what {model.name}'s card says"
    if not retrained and new["origin"]["run"] and old["origin"]["run"] != new["origin"]["run"]:
        yield "the run's settings, metrics and provenance"


def other_results(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What follows from the same values on the same kind of machine, and the records tell otherwise."""
    for name in ("histograms", "pictures"):
        if old[name] != new[name]:
            yield TOLD_AS[name]
    details = [{m["name"]: m["details"] for m in record["measurements"]} for record in (old, new)]
    yield from (
        f"the curves or counts of {name}" for name in details[0] if not close(details[0][name], details[1][name])
    )
    if old["versions"].get(PACKAGE) == new["versions"].get(PACKAGE) and (old["verdict"], old["controls"]) != (
        new["verdict"], new["controls"],
    ):  # fmt: skip
        yield "the verdict's reasons, or those on the known models"


def difference(old: list[list[float]], new: list[list[float]]) -> float:
    """The largest difference of two tables of values; infinite where they are of other sizes."""
    if [len(row) for row in old] != [len(row) for row in new]:
        return float("inf")
    return max(abs(a - b) for row, other in zip(old, new, strict=True) for a, b in zip(row, other, strict=True))
