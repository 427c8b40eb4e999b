"""The verdict: stated rules over all measurements, never one number and never one flag.

Rule 1. Each measure's value for this model is compared with the retrained models' interval:
        inside            no farther off than they are themselves: from the lowest to the highest of their means, and the
                          measure's stated resolution to either side; or on the harmless side, within the interval
        more left         outside of the interval, on the side where more of the class is left
        less than retrained   outside, on the other side: no leak, but not what retraining gives (over-unlearning)
        differs           outside, for a measure that shows that models differ, not knowledge of the class
        not evaluated     no retrained model, or no value of one of the two; or the references differ too much to tell: the
                          value lies between what they show and the interval's end, or what they show reaches as far as the
                          original or the masked logit, whose mean is farther from theirs than the resolution
        The interval reaches as far as any of these: where one more retrained model would lie (t prediction interval over the
        references' means, with two references or more); where one more repeat would lie (over the repeats of one reference,
        which stands in for the spread between retrainings, and is then what it shows); the sampling error of the mean; and
        the resolution to either side. More references leave less between what they show and the interval's end.
        Distances to the retrained models take three of them: between two there is one distance, and no spread. Each of
        three has a part in two of the three distances, so that their means spread less than one more model's would, and are
        spread to the n-1 / n-2 fold.
        Of what is more left than in the retrained models, and still more in a random network, which knows nothing of the
        class, that is said beside it.
Rule 2. A model beats the masked logit on a family of measures where its values are lower than the masked logit's, by a
        signed-rank test over the repeats, which share samples and seeds (with fewer than five it is not known), and on one
        of them by more than its resolution (lower by less is not known either). A measure takes part only where the masked
        logit has more of the class left, by more than the resolution, than the retrained models, or than random ones where
        none is given: elsewhere it can't tell the two apart. Where none takes part it is not known.
        The families are the linear probes, and relearning from images of the forget classes. It beats the masked logit
        altogether where it does so on both, and where a retrained model is there, has gone at least half of the way from the
        masked logit to it on one of the measures where the masked logit has more of the class left, by more than the
        resolution.
Rule 3. The conclusion is the first that holds:
        not unlearned            the forget accuracy is 'more left', or not evaluated and above 5 %
        output suppression only  it doesn't beat the masked logit altogether
        undecided                whether it does is not known of probe or relearning; or forget accuracy, or all probes or
                                 curves that take part in rule 2, have no evaluated comparison with a retrained model
        traces left              some measure is 'more left'
        like retrained           every evaluated measure is inside the interval, or on the harmless side of it; where the model is
                                 worse on the retain classes than the retrained ones, that is said beside it
The same rules judge models whose answer is known: the original is not unlearned, a masked logit output suppression only, and
each retrained model, against the others, like retrained. Where one of them gets another name than its own or 'undecided',
the audit itself has failed, and says so beside its conclusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn.audit.record.intervals import bounded, fewest_pairs, is_below, prediction_interval
from unlearn.audit.record.record import MASKED, MODEL, ORIGINAL, RANDOM, RETRAINED, Measurement, Reading

INSIDE, MORE, LESS, DIFFERS, NOT_EVALUATED = "inside", "more left", "less than retrained", "differs", "not evaluated"
STATUSES = (INSIDE, MORE, LESS, DIFFERS, NOT_EVALUATED)
STILL_CALLED = 5.0  # per cent of forget images, where no retrained model says what is usual
HALF_WAY = 0.5
TOO_FAR_APART = "the references differ too much to tell: name more retrained models"
RANDOM_HAS_MORE = "a random network, which knows nothing of the class, has more still"

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
    if theirs is None or (m.against_retrained and len(theirs.values) < 3):
        why = "it takes three retrained models or more" if m.against_retrained else "no retrained model is given"
        return Finding(m.name, NOT_EVALUATED, why, None, beats)
    if ours is None:
        return Finding(m.name, NOT_EVALUATED, "no value of this model", None, beats)
    interval = bounded(interval_of(m, theirs, confidence), m.unit)
    way = way_gone(m, ours, theirs, masked) if masked else None
    status, why = status_of(ours.mean, *interval, m.more_left), ""
    if status == INSIDE and cannot_tell(m, ours.mean, theirs, confidence):
        status, why = NOT_EVALUATED, TOO_FAR_APART
    random = m.readings.get(RANDOM)
    if status == MORE and random and m.more_left * (random.mean - ours.mean) > 0:
        why = RANDOM_HAS_MORE
    return Finding(m.name, status, why, interval, beats, way)


def interval_of(m: Measurement, retrained: Reading, confidence: float) -> tuple[float, float]:
    """Rule 1's interval of the retrained model."""
    centre = retrained.mean
    candidates = [(centre - m.resolution, centre + m.resolution), (retrained.low, retrained.high)]
    if len(retrained.values) > 1:
        candidates.append(prediction_interval(means_of(m, retrained), confidence))
    else:
        candidates.append(prediction_interval(retrained.flat, confidence))
    return min(low for low, _ in candidates), max(high for _, high in candidates)


def means_of(m: Measurement, retrained: Reading) -> list[float]:
    """Each reference's mean; of distances, which they share, spread as far as those of one more model would be."""
    means = retrained.by_model
    stretch = (len(means) - 1) / (len(means) - 2) if m.against_retrained and len(means) > 2 else 1.0
    return [retrained.mean + stretch * (mean - retrained.mean) for mean in means]


def shown_by(m: Measurement, retrained: Reading, confidence: float) -> tuple[float, float]:
    """What the references show themselves, without the room that the interval leaves for how little so few of them tell."""
    if len(retrained.values) == 1:
        return interval_of(m, retrained, confidence)
    means = means_of(m, retrained)
    return min(means) - m.resolution, max(means) + m.resolution


def cannot_tell(m: Measurement, value: float, retrained: Reading, confidence: float) -> bool:
    """Rule 1: whether the value is inside the interval for no better reason than that the references differ too much.

    The interval of two values reaches 15 times as far as they do: nearly everything is inside.
    """
    low, high = shown_by(m, retrained, confidence)
    if (m.more_left >= 0 and value > high) or (m.more_left <= 0 and value < low):
        return True
    reach = max(m.more_left * (end - retrained.mean) for end in (low, high))
    known = [m.readings[subject].mean for subject in (ORIGINAL, MASKED) if subject in m.readings]
    return any(m.resolution < m.more_left * (mean - retrained.mean) <= reach for mean in known)


def status_of(value: float, low: float, high: float, more_left: int) -> str:
    if low <= value <= high:
        return INSIDE
    if more_left == 0:
        return DIFFERS
    return MORE if (value > high) == (more_left > 0) else LESS


def beats_mask(family: Sequence[Measurement], confidence: float) -> bool | None:
    """Rule 2 on measures of one family; None where none of them tells a masked logit apart, or the pairs are too few."""
    ours: list[float] = []
    masked: list[float] = []
    for m in filter(tells_mask, family):
        ours += [m.more_left * value for value in m.readings[MODEL].flat]
        masked += [m.more_left * value for value in m.readings[MASKED].flat]
    if len(ours) != len(masked) or len(ours) < fewest_pairs(confidence):
        return None
    below = is_below(ours, masked, confidence)
    return None if below and not lower_than_mask(family) else below


def lower_than_mask(family: Sequence[Measurement]) -> bool:
    """Rule 2: whether some measure is lower than under the masked logit by more than its resolution."""
    return any(less_than_masked(m) > m.resolution for m in filter(tells_mask, family))


def less_than_masked(m: Measurement) -> float:
    """How much less of the class than under the masked logit is left, in the measure's unit."""
    return m.more_left * (m.readings[MASKED].mean - m.readings[MODEL].mean)


def tells_mask(m: Measurement) -> bool:
    """Whether more of the class is left under a masked logit than in a retrained model, or a random one where none is given.

    Where all have the same value, as with a probe that is always right, not to be below the masked logit proves nothing.
    """
    other = m.readings.get(RETRAINED) or m.readings.get(RANDOM)
    if not {MODEL, MASKED} <= set(m.readings) or m.more_left == 0:
        return False
    return other is None or m.more_left * (m.readings[MASKED].mean - other.mean) > m.resolution


def way_gone(m: Measurement, ours: Reading, theirs: Reading, masked: Reading) -> float | None:
    """(masked - ours) / (masked - retrained); None where the masked logit has no more of the class, by the resolution."""
    whole = masked.mean - theirs.mean
    return (masked.mean - ours.mean) / whole if m.more_left * whole > m.resolution else None


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
    lacking = [unknown(name, families[name], confidence) for name, beats in beaten.items() if beats is None]
    lacking += not_compared(findings, {name: families[name] for name, beats in beaten.items() if beats})
    evaluated = [f for f in findings.values() if f.status != NOT_EVALUATED]
    left = [
        f"more than in the retrained model: {measurements[f.name].title}" + (f" ({f.why})" if f.why else "")
        for f in evaluated
        if f.status == MORE
    ]
    if lacking:
        return UNDECIDED, [*lacking, *left]
    if left:
        return TRACES, left
    differing = [measurements[f.name].title for f in evaluated if f.status == DIFFERS]
    untold = [measurements[f.name].title for f in findings.values() if f.why == TOO_FAR_APART]
    return LIKE_RETRAINED, [
        f"{len(evaluated)} measures were evaluated, and none shows more of the class",
        *weaker(measurements.get("accuracy-retain-real") or measurements.get("accuracy-retain")),
        *(f"unlike the retrained model, which shows no knowledge of the class: {title}" for title in differing),
        *(f"not told, since the references differ too much: {title}" for title in untold),
    ]


def weaker(retain: Measurement | None) -> list[str]:
    """A reservation where the model is worse on the retain classes than the retrained ones, by more than the resolution."""
    if retain is None or not {MODEL, RETRAINED} <= set(retain.readings):
        return []
    ours, theirs = (retain.readings[subject].mean for subject in (MODEL, RETRAINED))
    if theirs - ours <= retain.resolution:
        return []
    return [
        f"but it knows less of the other classes too ({ours:.1f} % against {theirs:.1f} % retain accuracy), and a weaker model holds "
        "less of everything"
    ]


REPEATED_BY = {"the linear probe": "--draws", "relearning": "--repeats"}


def unknown(name: str, family: Sequence[Measurement], confidence: float) -> str:
    """Why it is not known whether the model beats the masked logit on the family, and the cure where more repeats are one."""
    if not family:
        return f"not evaluated: {name}"
    untold = f"not told from a masked logit by {name}"
    if not any({MODEL, MASKED} <= set(m.readings) for m in family):
        return f"{untold}: there is no masked logit to compare with"
    telling = list(filter(tells_mask, family))
    if not telling:
        other = "the retrained models have" if any(RETRAINED in m.readings for m in family) else "random networks have"
        return f"{untold}: {other} no less of the class there than the masked logit"
    unequal = sum(a != b for m in telling for a, b in zip(m.readings[MODEL].flat, m.readings[MASKED].flat, strict=True))
    if unequal < fewest_pairs(confidence):
        return (
            f"{untold}: {unequal} paired repeats that differ, and the signed-rank test takes {fewest_pairs(confidence)} or more: "
            f"raise {REPEATED_BY[name]}"
        )
    gap = max(map(less_than_masked, telling))
    return f"{untold}: less of the class is left there, but by {gap:.1f} at most, within what the measure can tell"


def not_compared(findings: Mapping[str, Finding], families: Mapping[str, Sequence[Measurement]]) -> list[str]:
    """Of forget accuracy and these families, which have no evaluated comparison with a retrained model, and why."""
    if all(f.status == NOT_EVALUATED and f.why != TOO_FAR_APART for f in findings.values()):
        return ["not evaluated: the comparison with a retrained model"]
    needed = {"forget accuracy": [f for name, f in findings.items() if name == "accuracy-forget"]}
    needed |= {name: [findings[m.name] for m in family if tells_mask(m)] for name, family in families.items()}
    return [
        f"not evaluated: {name}" + (f", since {found[0].why}" if found else "")
        for name, found in needed.items()
        if all(f.status == NOT_EVALUATED for f in found)
    ]


def is_relearning(name: str) -> bool:
    """From images of the forget class: a masked logit's rows are drawn anew there, so that the comparison is fair."""
    return name.startswith("relearn-") and name != "relearn-retain"
