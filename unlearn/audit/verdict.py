"""The verdict: stated rules over all measurements, never one number and never one flag.

Rule 1. Each measure's value for this model is compared with the retrained models' interval:
        inside            within it
        more left         outside, on the side where more of the class is left
        less than retrained   outside, on the other side: no leak, but not what retraining gives (over-unlearning)
        differs           outside, for a measure that shows traces of a method, not knowledge of the class
        not evaluated     no retrained model, or no value of one of the two
        The interval reaches as far as any of these: where one more retrained model would lie (t prediction interval over the
        references' means, with two references or more); where one more repeat would lie (over the repeats of one reference,
        which stands in for the spread between retrainings); the sampling error of the mean; and the measure's stated
        resolution to either side. More references make it sharper.
Rule 2. A model beats the masked logit on a family of measures where its values are lower than the masked logit's, by a
        signed-rank test over all the family's repeats, which share samples and seeds (with fewer than five it is not known).
        The families are the linear probes, and relearning from images of the forget classes. It beats the masked logit
        altogether where it does so on both, and where a retrained model is there, has gone at least half of the way from the
        masked logit to it on one of them.
Rule 3. The conclusion is the first that holds:
        not unlearned            the forget accuracy is 'more left', or without a reference above 5 %
        output suppression only  it doesn't beat the masked logit altogether
        undecided                probe or relearning, or every comparison with a retrained model, could not be evaluated
        traces left              some measure is 'more left'
        like retrained           every evaluated measure is inside the interval, or on the harmless side of it
The same rules judge models whose answer is known: the original is not unlearned, a masked logit output suppression only, and
each retrained model, against the others, like retrained. Where one of them gets another name than its own or 'undecided',
the audit itself has failed, and says so beside its conclusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn.audit.intervals import bounded, fewest_pairs, is_below, prediction_interval
from unlearn.audit.record import MASKED, MODEL, RETRAINED, Measurement, Reading

INSIDE, MORE, LESS, DIFFERS, NOT_EVALUATED = "inside", "more left", "less than retrained", "differs", "not evaluated"
STATUSES = (INSIDE, MORE, LESS, DIFFERS, NOT_EVALUATED)
STILL_CALLED = 5.0  # per cent of forget images, where no retrained model says what is usual
HALF_WAY = 0.5

NOT_UNLEARNED, SUPPRESSION, UNDECIDED, TRACES, LIKE_RETRAINED = (
    "not unlearned",
    "output suppression only",
    "undecided",
    "traces left",
    "like retrained",
)
SENTENCES = {
    NOT_UNLEARNED: "The model still calls images by the forgotten class: it is not unlearned.",
    SUPPRESSION: "Output suppression only: the class is no longer called by its name, but the model holds no less of it than "
    "one whose logit was masked. It is not unlearned.",
    UNDECIDED: "Undecided: the model can't be told from masking or compared with retraining on these inputs.",
    TRACES: "More of the class is left than in a retrained model, though less than under a masked logit.",
    LIKE_RETRAINED: "On every measure that was evaluated, no more of the class is left than in a model that was retrained "
    "without it.",
}


@dataclass(frozen=True)
class Finding:
    """One measure's status, and where this model stands between the masked logit and the retrained model.

    `beats_mask` is None where that is unknown; `way` is 0 at the masked logit, 1 at the retrained model.
    """

    name: str
    status: str
    why: str
    interval: tuple[float, float] | None = None
    beats_mask: bool | None = None
    way: float | None = None


@dataclass(frozen=True)
class Verdict:
    conclusion: str
    sentence: str
    findings: Sequence[Finding]
    reasons: Sequence[str]


def judge(measurements: Sequence[Measurement], confidence: float) -> Verdict:
    findings = [judge_one(m, confidence) for m in measurements if not m.quality]
    by_name = {m.name: m for m in measurements}
    conclusion, reasons = conclude({f.name: f for f in findings}, by_name, confidence)
    return Verdict(conclusion, SENTENCES[conclusion], findings, reasons)


def judge_one(m: Measurement, confidence: float) -> Finding:
    """Rules 1 and 2 on one measure."""
    ours, theirs, masked = (m.readings.get(subject) for subject in (MODEL, RETRAINED, MASKED))
    beats = beats_mask([m], confidence)
    if theirs is None:
        why = "it takes two retrained models or more" if m.against_retrained else "no retrained model is given"
        return Finding(m.name, NOT_EVALUATED, why, None, beats)
    if ours is None:
        return Finding(m.name, NOT_EVALUATED, "no value of this model", None, beats)
    low, high = bounded(interval_of(theirs, m.resolution, confidence), m.unit)
    way = way_gone(ours, theirs, masked) if masked else None
    return Finding(m.name, status_of(ours.mean, low, high, m.more_left), "", (low, high), beats, way)


def interval_of(retrained: Reading, resolution: float, confidence: float) -> tuple[float, float]:
    """Rule 1's interval of the retrained model."""
    centre = retrained.mean
    candidates = [(centre - resolution, centre + resolution), (retrained.low, retrained.high)]
    if len(retrained.values) > 1:
        candidates.append(prediction_interval(retrained.by_model, confidence))
    else:
        candidates.append(prediction_interval(retrained.flat, confidence))
    return min(low for low, _ in candidates), max(high for _, high in candidates)


def status_of(value: float, low: float, high: float, more_left: int) -> str:
    if low <= value <= high:
        return INSIDE
    if more_left == 0:
        return DIFFERS
    return MORE if (value > high) == (more_left > 0) else LESS


def beats_mask(family: Sequence[Measurement], confidence: float) -> bool | None:
    """Rule 2 on measures of one family; None where a measure has no direction, or the pairs are too few."""
    ours: list[float] = []
    masked: list[float] = []
    for m in family:
        if not {MODEL, MASKED} <= set(m.readings) or m.more_left == 0:
            return None
        ours += [m.more_left * value for value in m.readings[MODEL].flat]
        masked += [m.more_left * value for value in m.readings[MASKED].flat]
    if len(ours) != len(masked) or len(ours) < fewest_pairs(confidence):
        return None
    return is_below(ours, masked, confidence)


def way_gone(ours: Reading, theirs: Reading, masked: Reading) -> float | None:
    """(masked - ours) / (masked - retrained); None where these two agree."""
    whole = masked.mean - theirs.mean
    return (masked.mean - ours.mean) / whole if abs(whole) > 1e-9 else None


def conclude(
    findings: Mapping[str, Finding], measurements: Mapping[str, Measurement], confidence: float
) -> tuple[str, list[str]]:
    """Rule 3: the conclusion, and what it rests on."""
    accuracy = findings.get("accuracy-forget")
    called = measurements["accuracy-forget"].readings[MODEL].mean if accuracy else 0.0
    if accuracy and (accuracy.status == MORE or (accuracy.status == NOT_EVALUATED and called > STILL_CALLED)):
        return NOT_UNLEARNED, [f"it calls {called:.1f} % of the forget images by their class"]
    families = {
        "the linear probe": [m for name, m in measurements.items() if name.startswith("probe-")],
        "relearning": [m for name, m in measurements.items() if is_relearning(name)],
    }
    beaten = {name: beats_mask(family, confidence) if family else None for name, family in families.items()}
    held = [name for name, beats in beaten.items() if beats is False]
    if held:
        return SUPPRESSION, [f"it does not beat the masked logit on {name}" for name in held]
    ways = {m.name: findings[m.name].way for family in families.values() for m in family}
    gone = [way for way in ways.values() if way is not None]
    if gone and max(gone) < HALF_WAY:
        return SUPPRESSION, [
            "it has not gone half of the way from the masked logit to the retrained model on any probe or curve"
        ]
    evaluated = [f for f in findings.values() if f.status != NOT_EVALUATED]
    lacking = [unknown(name, families[name], confidence) for name, beats in beaten.items() if beats is None]
    missing = ["forget accuracy"] * (accuracy is None) + ["the comparison with a retrained model"] * (not evaluated)
    lacking += [f"not evaluated: {name}" for name in missing]
    if lacking:
        return UNDECIDED, lacking
    left = [measurements[f.name].title for f in evaluated if f.status == MORE]
    if left:
        return TRACES, [f"more than in the retrained model: {title}" for title in left]
    return LIKE_RETRAINED, [f"{len(evaluated)} measures were evaluated, and none shows more of the class"]


REPEATED_BY = {"the linear probe": "--draws", "relearning": "--repeats"}


def unknown(name: str, family: Sequence[Measurement], confidence: float) -> str:
    """Why it is not known whether the model beats the masked logit on the family, and the cure where more repeats are one."""
    pairs = sum(len(m.readings[MODEL].flat) for m in family if {MODEL, MASKED} <= set(m.readings))
    if not family:
        return f"not evaluated: {name}"
    if not pairs:
        return f"not told from a masked logit by {name}: there is no masked logit to compare with"
    return (
        f"not told from a masked logit by {name}: {pairs} paired repeats, and the signed-rank test takes "
        f"{fewest_pairs(confidence)} or more: raise {REPEATED_BY[name]}"
    )


def is_relearning(name: str) -> bool:
    """From images of the forget class: a masked logit's rows are drawn anew there, so that the comparison is fair."""
    return name.startswith("relearn-") and name != "relearn-retain"
