"""What an audit's values say of each other fits together: means, intervals, the accuracy pair and its confusions, curves.

Somebody who changes a value and everything that follows from it is not found out here, but by a replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unlearn.audit.measures.relearn import Curve, anamnesis
from unlearn.audit.record.intervals import bounded, share_interval
from unlearn.audit.record.record import Measurement, Reading
from unlearn.report.verify.checks import Check, Fault, all_hold

Record = Mapping[str, Any]
ACCURACIES = (  # where the confusions are, and whether it is that of the forget classes
    ("accuracy-retain", "accuracy-forget", False),
    ("accuracy-forget", "accuracy-forget", True),
    ("accuracy-retain-real", "accuracy-retain-real", False),
)
TOLERANCE = 1e-7  # of a number in JSON, and between versions of what computes it


def values(record: Record) -> Iterator[Check]:
    yield from all_hold("means and intervals follow from the values", readings(record))
    yield from all_hold("the accuracies are those of the confusions", accuracies(record))
    yield from all_hold("the relearning curves give the values and the index beside them", curves(record))


def readings(record: Record) -> Iterator[Fault]:
    confidence = float(record["settings"]["confidence"])
    for raw in record["measurements"]:
        for subject, reading in Measurement.from_json(raw).readings.items():
            told = raw["readings"][subject]
            if not close(reading.mean, told["mean"]):
                yield f"the mean of {raw['name']}, {subject}", "it isn't the mean of its values"
            if raw["name"].startswith("accuracy-"):
                continue  # an interval of shares
            again = Reading.of(reading.values, confidence, raw["details"].get("images"))
            interval = bounded((again.low, again.high), raw["unit"])
            if not close(interval, (told["low"], told["high"])):
                yield f"the interval of {raw['name']}, {subject}", "it doesn't follow from its values"


def accuracies(record: Record) -> Iterator[Fault]:
    """A confusion is that of a subject's first model; its other models saw the same images."""
    measured = {m["name"]: m for m in record["measurements"]}
    forgotten = set(record["forget"])
    for name, matrices_in, kind in ACCURACIES:
        if matrices_in not in measured:
            continue
        confusions = measured[matrices_in]["details"]["confusion"]
        for subject, told in measured[name]["readings"].items():
            counts = confusions[subject]
            rows = [c for c in range(len(counts)) if (c in forgotten) == kind]
            seen = sum(sum(counts[c]) for c in rows)
            shares = [value / 100 * seen for model in told["values"] for value in model]
            if not close(shares[0], sum(counts[c][c] for c in rows)) or not close(shares, [round(s) for s in shares]):
                yield f"the value of {name}, {subject}", "it isn't that of the confusion matrix beside it"
                continue
            right = sum(map(round, shares))
            interval = share_interval(right, seen * len(shares), float(record["settings"]["confidence"]))
            if not close(interval, (told["low"], told["high"])):
                yield f"the interval of {name}, {subject}", "it doesn't follow from its images"
    for line in record["histograms"]:
        counts = measured["accuracy-forget"]["details"]["confusion"][line["subject"]]
        rows = [c for c in range(len(counts)) if (c in forgotten) == (line["images"] == "forget")]
        if sum(line["counts"]) != sum(sum(counts[c]) for c in rows):
            yield (
                f"the histogram of {line['subject']}, {line['images']} images",
                "it has other images than the confusion",
            )


def curves(record: Record) -> Iterator[Fault]:
    for m in record["measurements"]:
        if not m["name"].startswith("relearn-"):
            continue
        details = m["details"]
        found = {s: [curve_of(c) for c in lines] for s, lines in details["curves"].items()}
        for subject, lines in found.items():
            flat = [value for model in m["readings"][subject]["values"] for value in model]
            if not close([c.mean for c in lines], flat):
                yield f"the values of {m['name']}, {subject}", "they aren't the means of its curves"
            reached = [[*c.reaches(details["target"])] for c in lines]
            if not close(reached, [[c["reached"], c["censored"]] for c in details["curves"][subject]]):
                yield f"the steps of {m['name']}, {subject}", "they aren't where its curves reach the target"
        if not close(anamnesis({s: [lines] for s, lines in found.items()}, details["target"]), details["anamnesis"]):
            yield f"the Anamnesis Index of {m['name']}", "it doesn't follow from its curves"


def curve_of(raw: Record) -> Curve:
    return Curve(tuple(raw["steps"]), tuple(raw["accuracy"]))


def close(found: Any, told: Any) -> bool:
    """Equal, as JSON has them, up to the rounding of numbers."""
    if isinstance(found, Mapping):
        return isinstance(told, Mapping) and set(found) == set(told) and all(close(found[k], told[k]) for k in found)
    if isinstance(found, (list, tuple)):
        if not isinstance(told, (list, tuple)) or len(found) != len(told):
            return False
        return all(close(a, b) for a, b in zip(found, told, strict=True))
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return bool(found == told)
    return isinstance(told, (int, float)) and abs(found - told) <= TOLERANCE * (1 + abs(found))
