"""What a record must have beyond the schema's form, so that it can be judged again and drawn: its parts fit together.

Every check here is something that a record from elsewhere can get wrong and that an audit never does. After them, an
error while a record is judged or drawn is a bug of this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from synth.basics.errors import UserError
from synth.checkpoint.card import LARGEST_NOTES
from unlearn.auditing.record.record import MASKED, MODEL, SUBJECTS

Record = Mapping[str, Any]
LARGEST_NUMBER = 1e100  # the square of a larger one might be infinite
WORST = "accuracy-forget-worst"
CONFUSIONS = {  # the measurement that has each accuracy's confusion
    "accuracy-retain": "accuracy-forget",
    "accuracy-forget": "accuracy-forget",
    "accuracy-retain-real": "accuracy-retain-real",
    WORST: "accuracy-forget",
}
ROWS = re.compile("[0-9,-]*")
RESURRECTED = re.compile(r"resurrection-([a-z-]+)\.png")


def check_consistent(record: Record, name: str) -> None:
    """Raise UserError at the first part of the record that doesn't fit the others. `name` is the file."""
    refuse_first(faults(record), name)


def refuse_first(found: Iterator[str], name: str) -> None:
    for fault in found:
        raise UserError(f"{name} is not a record that an audit writes: {fault}; make it again with 'unlearn audit'")


def faults(record: Record) -> Iterator[str]:
    yield from leaves(record)
    yield from long_texts(record)
    yield from settings(record)
    yield from origin(record["origin"])
    yield from measurements(record["measurements"])
    yield from accuracy_faults(record)
    for measurement in record["measurements"]:
        if measurement["family"] == "relearn":
            yield from curve_faults(measurement)
    yield from drawn(record)
    yield from recognition(record)


def leaves(record: Record) -> Iterator[str]:
    """Numbers that can be squared, and text that can be written to a file."""
    for value in parts(record):
        if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            yield f"{value[:40]!r} is not text"
        elif isinstance(value, (int, float)) and abs(value) > LARGEST_NUMBER:
            yield f"it has a number above {LARGEST_NUMBER:g}"


def long_texts(record: Record) -> Iterator[str]:
    """Texts that are longer than any note of ours, so that a page is not much larger than what it shows. The ledger
    alone may be long: it lists the row of every real image.
    """
    for text in parts({**record, "ledger": [{**line, "rows": ""} for line in record["ledger"]]}):
        if isinstance(text, str) and len(text) > LARGEST_NOTES:
            yield f"it has a text of {len(text):,} characters, more than {LARGEST_NOTES:,}"
    for line in record["ledger"]:
        if not ROWS.fullmatch(line["rows"]):
            yield "its ledger has rows that are no row numbers"


def parts(value: Any) -> Iterator[Any]:
    """Every text, number and null in a value, names too."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part
        else:
            yield part


def settings(record: Record) -> Iterator[str]:
    yield from confidence(record)
    if max(record["forget"]) >= len(record["class_names"]):
        yield f"it forgets class {max(record['forget'])} of {len(record['class_names'])}"


def confidence(record: Record) -> Iterator[str]:
    found = record["settings"].get("confidence")
    if not is_number(found) or not 0.5 <= found < 1:
        yield "its setting confidence is not between 0.5 and 1"


def origin(found: Record) -> Iterator[str]:
    run, shards = found["run"], found["shards"]
    if run and not is_counts(run["provenance"].get("samples") or {}):
        yield "its run has no counts of samples"
    if run and not all(is_number(line.get("step")) for line in run["metrics"]):
        yield "its run has metrics without a step"
    classes = shards["plan"].get("classes") if shards else []
    if not isinstance(classes, list) or not all(isinstance(c, int) for c in classes):
        yield "the plan of its shards has no classes"


def measurements(found: Sequence[Record]) -> Iterator[str]:
    names = [m["name"] for m in found]
    if len(set(names)) < len(names):
        yield "two of its measurements have one name"
    for m in found:
        if MODEL not in m["readings"]:
            yield f"{m['name']} has no value of this model"
            continue
        ours, masked = (m["readings"].get(subject) for subject in (MODEL, MASKED))
        if masked and count(masked) != count(ours):
            yield f"{m['name']} has other repeats of this model than of the masked logit"
        highest = 100 + 1e-6 if m["unit"] == "%" else LARGEST_NUMBER
        if any(
            not -highest <= value <= highest for r in m["readings"].values() for row in r["values"] for value in row
        ):
            yield f"{m['name']} has a value above 100 %"


def accuracy_faults(record: Record) -> Iterator[str]:
    """Confusion matrices are square, and every accuracy and histogram has the one that it was counted from."""
    classes = len(record["class_names"])
    confusions = {m["name"]: m["details"].get("confusion", {}) for m in record["measurements"]}
    for name, matrices in confusions.items():
        if any(len(matrix) != classes or {*map(len, matrix)} != {classes} for matrix in matrices.values()):
            yield f"a confusion of {name} is not {classes} by {classes}"
            return
    for m in record["measurements"]:
        if m["name"] not in CONFUSIONS:
            continue
        rows, matrices = true_classes(m["name"], record), confusions.get(CONFUSIONS[m["name"]], {})
        for subject in m["readings"]:
            if subject not in matrices or not sum(sum(matrices[subject][c]) for c in rows):
                yield f"{m['name']} of {subject} has no confusion beside it"
    yield from histograms(record["histograms"], confusions.get("accuracy-forget", {}))


def histograms(found: Sequence[Record], confusions: Record) -> Iterator[str]:
    for line in found:
        if line["subject"] not in confusions:
            yield f"the histogram of {line['subject']} has no confusion beside it"
        if not line["counts"] or min(line["counts"]) < 0 or line["highest"] <= 0:
            yield f"the histogram of {line['subject']} has no counts"


def true_classes(name: str, record: Record) -> list[int]:
    """The true classes of the images that an accuracy was counted on: the forget classes, or all others."""
    forgotten = name in ("accuracy-forget", WORST)
    return [c for c in range(len(record["class_names"])) if (c in record["forget"]) == forgotten]


def curve_faults(m: Record) -> Iterator[str]:
    """Every value has a curve, and the curves of a measurement have the same steps."""
    found = m["details"]["curves"]
    if set(found) != set(m["readings"]):
        yield f"{m['name']} has not the curves of its subjects"
        return
    every = [curve for lines in found.values() for curve in lines]
    if any(len(found[subject]) != count(reading) for subject, reading in m["readings"].items()):
        yield f"{m['name']} has not one curve for each value"
    elif any(curve["steps"] != every[0]["steps"] or len(curve["accuracy"]) != len(curve["steps"]) for curve in every):
        yield f"the curves of {m['name']} have not the same steps"
    elif any(later <= earlier for earlier, later in pairwise(every[0]["steps"])):
        yield f"the steps of {m['name']} do not ascend"
    elif any(not 0 <= value <= 100 for curve in every for value in curve["accuracy"]):
        yield f"a curve of {m['name']} is not between 0 and 100 %"


def drawn(record: Record) -> Iterator[str]:
    """A picture of what a model draws belongs to a measurement of it."""
    measured: Record = next((m["readings"] for m in record["measurements"] if m["name"] == "resurrection"), {})
    for name in record["pictures"]:
        found = RESURRECTED.fullmatch(name)
        if found and found[1] in {s.replace(" ", "-") for s in SUBJECTS} - {s.replace(" ", "-") for s in measured}:
            yield f"no measurement belongs to the picture {name}"


def recognition(record: Record) -> Iterator[str]:
    """Every reference has judged the images of the retain classes, if there are any."""
    found = record.get("recognition")
    if found is None:
        return
    if found["retain_images"] > found["images"]:
        yield "its recognition has more images of the retain classes than images"
    expected = len(record["models"]["references"]) if found["retain_images"] else 0
    if len(found["references"]) != expected:
        yield f"its recognition is by {len(found['references'])} references, not {expected}"


def count(reading: Record) -> int:
    """The values of a reading, of all models and repeats."""
    return sum(len(model) for model in reading["values"])


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(n, int) and n >= 0 for n in value.values())
