"""The verdict on points: stated rules, with the retrained models as the target.

Rule 1. Each measure's value is compared with the retrained models' interval, as in an audit of classes
        (`unlearn.auditing.judgement.verdict`, rule 1).
Rule 2. The conclusion is the first that holds:
        not unlearned            the labels of memorised points are 'more left': the model still says them. Without
                                 retrained models nobody knows which points are memorised, and the conclusion is
                                 'undecided'
        output suppression only  agreement on typical points, or membership of some group, is 'less than retrained':
                                 the model avoids the points, as the original does after a training on wrong labels.
                                 Whoever has the points can see that they were to be forgotten
        undecided                there are fewer than two retrained models, no test images, or too few points of each
                                 group, or the retrained models differ too much, so that no membership is evaluated
        traces left              membership of some group is 'more left', or agreement on memorised points is 'less than
                                 retrained': the label is gone, but the model is not yet sure of what retrained models
                                 say
        undecided                some points are memorised, but too few for an evaluation of their membership
        like retrained           nothing of this. For typical points this means: no change
The same rules judge models whose answer is known: the original is not unlearned (if it memorised any of the points),
the relabelled original is output suppression only, and each retrained model, judged by the others, is like retrained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unlearn.auditing.judgement.controls import as_if, each_retrained
from unlearn.auditing.judgement.verdict import (
    LESS,
    LIKE_RETRAINED,
    MORE,
    NOT_EVALUATED,
    NOT_UNLEARNED,
    SUPPRESSION,
    TOO_FAR_APART,
    TRACES,
    UNDECIDED,
    Finding,
    Verdict,
    judge_one,
    with_unit,
)
from unlearn.auditing.points.lineup import RELABELLED
from unlearn.auditing.points.point_measures import FEWEST
from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED, Measurement

MEMBERSHIP = ("rmia", "lira")
NEEDED = f"two retrained models, real test images, and {FEWEST} memorised or {FEWEST} typical points"
SENTENCES = {
    NOT_UNLEARNED: "The model still says the labels of points that only a model trained on them says.",
    SUPPRESSION: "Output suppression only: the model treats the points worse than a model that never saw them. Whoever "
    "has the points can see that they were to be forgotten.",
    UNDECIDED: "Undecided: these inputs do not allow a comparison with retraining.",
    TRACES: "The model no longer says the labels, but the points still stand out more than for a retrained model.",
    LIKE_RETRAINED: "On every measure that was evaluated, the model treats the points as retrained models do.",
}
NONE_MEMORISED = (
    "the original memorised none of the points: they are typical, or they were in no training set. The right answer is "
    "no change"
)


def judge_points(measurements: Sequence[Measurement], confidence: float) -> Verdict:
    judged = [m for m in measurements if not m.quality and MODEL in m.readings]
    findings = {m.name: judge_one(m, confidence) for m in judged}
    conclusion, reasons = conclusion_on_points(judged, findings)
    return Verdict(conclusion, SENTENCES[conclusion], list(findings.values()), reasons)


def conclusion_on_points(judged: Sequence[Measurement], findings: Mapping[str, Finding]) -> tuple[str, list[str]]:
    """Rule 2, and the reasons."""

    def of(names: Sequence[str], status: str) -> list[str]:
        there = [(m, findings[m.name]) for m in judged if m.name.startswith(tuple(names))]
        return [outside(m, finding) for m, finding in there if finding.status == status]

    if still := of(("labels-",), MORE):
        return NOT_UNLEARNED, still
    if avoided := of(("agreement-typical", *MEMBERSHIP), LESS):
        return SUPPRESSION, avoided
    evaluated = [m for m in judged if findings[m.name].status != NOT_EVALUATED]
    told_apart = [m for m in evaluated if m.family in MEMBERSHIP]
    if not told_apart:
        apart = any(f.why == TOO_FAR_APART for f in findings.values() if f.name.startswith(MEMBERSHIP))
        return UNDECIDED, [
            f"not evaluated: membership, {f'because {TOO_FAR_APART}' if apart else f'which needs {NEEDED}'}"
        ]
    if left := [*of(MEMBERSHIP, MORE), *of(("agreement-memorised",), LESS)]:
        return TRACES, left
    memorised = any(m.name == "labels-memorised" for m in judged)
    if memorised and not any(m.name.endswith("-memorised") for m in told_apart):
        return UNDECIDED, [f"not evaluated: membership of the memorised points, which needs {FEWEST} of them"]
    reasons = [f"{len(evaluated)} measures were evaluated, and none is outside of the retrained models' interval"]
    if not memorised:
        reasons.append(NONE_MEMORISED)
    return LIKE_RETRAINED, reasons


def outside(m: Measurement, finding: Finding) -> str:
    assert finding.interval is not None
    low, high = (with_unit(end, m.unit) for end in finding.interval)
    return f"{finding.status}: {m.title}, {with_unit(m.readings[MODEL].mean, m.unit)} against {low} to {high}"


def controls_on_points(measurements: Sequence[Measurement], confidence: float) -> list[dict[str, Any]]:
    """The conclusions of the same rules on the original, on the relabelled original, and on each retrained model."""
    found = []
    for subject in (ORIGINAL, RELABELLED):
        swapped = [as_if(m, m.readings.get(subject), m.readings.get(RETRAINED)) for m in measurements]
        found.append(control(subject, swapped, confidence))
    return found + [control(name, swapped, confidence) for name, swapped in each_retrained(measurements, confidence)]


def control(subject: str, measurements: Sequence[Measurement], confidence: float) -> dict[str, Any]:
    verdict = judge_points(measurements, confidence)
    return {"subject": subject, "conclusion": verdict.conclusion, "reasons": list(verdict.reasons)}


def failed(found: Sequence[Mapping[str, Any]], memorised: int) -> list[str]:
    """The known models with a wrong conclusion. 'Undecided' is not wrong, nor is an original that memorised nothing."""
    wrong = []
    for each in found:
        expected = {ORIGINAL: NOT_UNLEARNED, RELABELLED: SUPPRESSION}.get(each["subject"], LIKE_RETRAINED)
        if each["conclusion"] in (expected, UNDECIDED) or (each["subject"] == ORIGINAL and not memorised):
            continue
        wrong.append(f"{each['subject']} is called '{each['conclusion']}' instead of '{expected}'")
    return wrong
