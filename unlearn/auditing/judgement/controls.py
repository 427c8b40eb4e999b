"""The audit's check of itself: the same rules on models whose answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from unlearn.auditing.judgement.verdict import (
    LIKE_RETRAINED,
    MORE,
    NOT_EVALUATED,
    NOT_UNLEARNED,
    OF_FEATURES,
    SUPPRESSION,
    TRACES,
    UNDECIDED,
    judge,
    judge_one,
    more_than_retrained,
)
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, PUBLIC, RETRAINED, Measurement, Reading, Values

NEVER_SAW = "it never saw the images to forget: what it shows is general knowledge, and no trace of them"


def controls(measurements: Sequence[Measurement], confidence: float, partial: bool = False) -> list[dict[str, object]]:
    """The conclusions of the same rules on the original, on the masked logit, and on each retrained model.

    A retrained model is judged by the others. Rules that let the first two pass, or none of the retrained models, are
    worth nothing.

    Args:
        partial: whether the person left out measures.
    """
    found = []
    for subject in (ORIGINAL, MASKED):
        swapped = [as_if(m, m.readings.get(subject), m.readings.get(RETRAINED)) for m in measurements]
        found.append(named_verdict(subject, swapped, confidence, partial))
    found += [
        named_verdict(name, swapped, confidence, partial) for name, swapped in each_retrained(measurements, confidence)
    ]
    if any(PUBLIC in m.readings for m in measurements):
        found.append(public_start(measurements, confidence))
    return found


def each_retrained(measurements: Sequence[Measurement], confidence: float) -> Iterator[tuple[str, list[Measurement]]]:
    """The name of each retrained model, and the measurements as if it were the model, judged by the others; none if
    there is only one.
    """
    references = max((len(m.readings[RETRAINED].values) for m in measurements if RETRAINED in m.readings), default=0)
    for number in range(references if references > 1 else 0):
        swapped = []
        for m in measurements:
            theirs = m.readings.get(RETRAINED)
            if theirs is None or len(theirs.values) != references:
                swapped.append(as_if(m, None, None))
                continue
            images = m.details.get("images")
            one = Reading.of(theirs.values[number : number + 1], confidence, images)
            others = without(theirs.values, number, m.against_retrained)
            swapped.append(as_if(m, one, Reading.of(others, confidence, images) if all(others) else None))
        yield f"{RETRAINED} {number + 1} of {references}", swapped


def public_start(measurements: Sequence[Measurement], confidence: float) -> dict[str, object]:
    """How much of the class the public weights show by themselves, by the first rule on the measures of features.

    Their last layer is random, so what it answers is left out. They never saw the images: what they show is general
    knowledge, and no trace. So no conclusion is wrong here.
    """
    features = [m for m in measurements if m.family in OF_FEATURES and not m.quality]
    swapped = [as_if(m, m.readings.get(PUBLIC), m.readings.get(RETRAINED)) for m in features]
    found = [(m, judge_one(m, confidence)) for m in swapped if MODEL in m.readings]
    more = [more_than_retrained(m, finding) for m, finding in found if finding.status == MORE]
    evaluated = any(finding.status != NOT_EVALUATED for _, finding in found)
    conclusion = TRACES if more else LIKE_RETRAINED if evaluated else UNDECIDED
    return {"subject": PUBLIC, "conclusion": conclusion, "reasons": [*more, NEVER_SAW]}


def without(values: Values, number: int, distances: bool) -> Values:
    """The values of all models except one. Distances to that model are left out of the others' values too."""
    kept = [(n, model) for n, model in enumerate(values) if n != number]
    if not distances:
        return tuple(model for _, model in kept)
    places = ((model, number if number < n else number - 1) for n, model in kept)  # a model has no distance to itself
    return tuple(model[:place] + model[place + 1 :] for model, place in places)


EXPECTED = {ORIGINAL: NOT_UNLEARNED, MASKED: SUPPRESSION}  # every other known model is a retrained one


def failed_controls(found: Sequence[Mapping[str, object]]) -> list[str]:
    """The known models with a wrong conclusion, one phrase each. 'Undecided' is not a wrong conclusion."""
    failed = []
    for control in found:
        if control["subject"] == PUBLIC:
            continue
        expected = EXPECTED.get(str(control["subject"]), LIKE_RETRAINED)
        if control["conclusion"] not in (expected, UNDECIDED):
            failed.append(f"{control['subject']} is called '{control['conclusion']}' instead of '{expected}'")
    return failed


def self_check(found: Sequence[Mapping[str, object]]) -> str | None:
    """A line if the audit itself failed; None if it did not."""
    failed = failed_controls(found)
    if not failed:
        return None
    return (
        f"The audit's check of itself failed: {'; '.join(failed)}. Do not rely on this audit: check that the teacher "
        "and the references are the right models, or run it again with more references and a larger --repeats."
    )


def as_if(m: Measurement, model: Reading | None, retrained: Reading | None) -> Measurement:
    """The measurement with these readings in the places of this model and of the retrained models."""
    readings = {s: r for s, r in m.readings.items() if s not in (MODEL, RETRAINED)}
    readings |= {s: r for s, r in ((MODEL, model), (RETRAINED, retrained)) if r is not None}
    return dataclasses.replace(m, readings=readings)


def named_verdict(
    subject: str, measurements: Sequence[Measurement], confidence: float, partial: bool
) -> dict[str, object]:
    verdict = judge([m for m in measurements if MODEL in m.readings], confidence, partial)
    return {"subject": subject, "conclusion": verdict.conclusion, "reasons": list(verdict.reasons)}
