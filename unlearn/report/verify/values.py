"""The values of an audit fit together: means, intervals, the accuracies and their confusions, curves.

A change of a value and of everything that follows from it is not found here, but by a replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unlearn.auditing.measures.relearn import Curve, anamnesis
from unlearn.auditing.record.intervals import bounded, share_interval
from unlearn.auditing.record.record import Measurement, Reading
from unlearn.report.consistency import CONFUSIONS, WORST, Record, true_classes
from unlearn.report.verify.checks import Check, Fault, all_hold

TOLERANCE = 1e-7  # of a number in JSON, and between versions of the libraries that compute it


def values(record: Record) -> Iterator[Check]:
    yield from all_hold("means and intervals follow from the values", readings(record))
    yield from all_hold("the accuracies are those of the confusions", accuracies(record))
    yield from all_hold("the relearning curves give the values and the index beside them", curves(record))


def readings(record: Record) -> Iterator[Fault]:
    confidence = record["settings"]["confidence"]
    for raw in record["measurements"]:
        for subject, reading in Measurement.from_json(raw).readings.items():
            written = raw["readings"][subject]
            if not close(reading.mean, written["mean"]):
                yield f"the mean of {raw['name']}, {subject}", "it isn't the mean of its values"
            if raw["name"] in CONFUSIONS and raw["name"] != WORST:
                continue  # its interval is that of a share: see accuracies
            again = Reading.of(reading.values, confidence, raw["details"].get("images"))
            interval = bounded((again.low, again.high), raw["unit"])
            if not close(interval, (written["low"], written["high"])):
                yield f"the interval of {raw['name']}, {subject}", "it doesn't follow from its values"


def accuracies(record: Record) -> Iterator[Fault]:
    """A confusion matrix is that of a subject's first model. The subject's other models saw the same images."""
    measured = {m["name"]: m for m in record["measurements"]}
    for name, source in CONFUSIONS.items():
        if name in measured and name != WORST:
            confusions = measured[source]["details"]["confusion"]
            yield from accuracy(
                measured[name], confusions, true_classes(name, record), record["settings"]["confidence"]
            )
    if "accuracy-forget" not in measured:
        return
    confusions = measured["accuracy-forget"]["details"]["confusion"]
    for subject, written in measured.get(WORST, {"readings": {}})["readings"].items():
        if not close(written["values"][0][0], highest(confusions[subject], record["forget"])):
            yield f"the value of {WORST}, {subject}", "it isn't that of the confusion matrix"
    for line in record["histograms"]:
        rows = true_classes(f"accuracy-{line['images']}", record)
        if sum(line["counts"]) != sum(sum(confusions[line["subject"]][c]) for c in rows):
            where = f"the histogram of {line['subject']}, {line['images']} images"
            yield where, "it has other images than the confusion matrix"


def accuracy(measurement: Record, confusions: Mapping[str, Any], rows: list[int], confidence: float) -> Iterator[Fault]:
    """The value of each subject, and its interval, are those of the true classes `rows`."""
    for subject, written in measurement["readings"].items():
        counts, where = confusions[subject], f"{measurement['name']}, {subject}"
        seen = sum(sum(counts[c]) for c in rows)
        right = [value / 100 * seen for model in written["values"] for value in model]
        if not close(right[0], sum(counts[c][c] for c in rows)) or not close(right, [round(count) for count in right]):
            yield f"the value of {where}", "it isn't that of the confusion matrix beside it"
            continue
        interval = share_interval(sum(map(round, right)), seen * len(right), confidence)
        if not close(interval, (written["low"], written["high"])):
            yield f"the interval of {where}", "it doesn't follow from its images"


def highest(counts: list[list[int]], forget: list[int]) -> float:
    """The largest accuracy, in %, of the forget classes that have images."""
    return max(100 * counts[c][c] / sum(counts[c]) for c in forget if sum(counts[c]))


def curves(record: Record) -> Iterator[Fault]:
    for m in record["measurements"]:
        if m["family"] != "relearn":
            continue
        details = m["details"]
        found = {subject: [curve_of(raw) for raw in lines] for subject, lines in details["curves"].items()}
        for subject, lines in found.items():
            flat = [value for model in m["readings"][subject]["values"] for value in model]
            if not close([curve.mean for curve in lines], flat):
                yield f"the values of {m['name']}, {subject}", "they aren't the means of its curves"
            reached = [[*curve.reaches(details["target"])] for curve in lines]
            if not close(reached, [[raw["reached"], raw["censored"]] for raw in details["curves"][subject]]):
                yield f"the steps of {m['name']}, {subject}", "they aren't where its curves reach the target"
        if not close(anamnesis({s: [lines] for s, lines in found.items()}, details["target"]), details["anamnesis"]):
            yield f"the Anamnesis Index of {m['name']}", "it doesn't follow from its curves"


def curve_of(raw: Record) -> Curve:
    return Curve(tuple(raw["steps"]), tuple(raw["accuracy"]))


def close(found: Any, written: Any) -> bool:
    """Equal, as JSON has them, up to the rounding of numbers."""
    if isinstance(found, Mapping):
        return (
            isinstance(written, Mapping)
            and set(found) == set(written)
            and all(close(found[k], written[k]) for k in found)
        )
    if isinstance(found, (list, tuple)):
        if not isinstance(written, (list, tuple)) or len(found) != len(written):
            return False
        return all(close(a, b) for a, b in zip(found, written, strict=True))
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return bool(found == written)
    return isinstance(written, (int, float)) and abs(found - written) <= TOLERANCE * (1 + abs(found))
