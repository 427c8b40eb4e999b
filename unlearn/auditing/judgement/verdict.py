"""The verdict: stated rules over all measurements, never one number and never one flag.

Rule 1. Each measure's value for this model is compared with the retrained models' interval. It is one of:
        inside            no farther off than the retrained models are themselves: between their lowest and highest
                          means, plus the measure's resolution on either side; or on the harmless side, within the
                          interval
        more left         outside of the interval, on the side where more of the class is left
        less than retrained   outside, on the other side: no leak, but not what retraining gives (over-unlearning)
        differs           outside, for a measure that shows that models differ but not knowledge of the class
        not evaluated     there is no retrained model, or one of the two has no value; or the references differ too much
                          for a comparison. They do if the value lies between what they show and the interval's end, or
                          if what they show includes the original's or the masked logit's mean although that mean is
                          farther from theirs than the resolution
        The interval covers all of the following: the place of one more retrained model (t prediction interval over the
        references' means, with two references or more); the place of one more repeat (with one reference, over its
        repeats, which stand in for the spread between retrainings); the sampling error of the mean; and the
        resolution on either side. With more references, less is left between what they show and the interval's end.
        A distance to the retrained models needs three references: two have only one distance and no spread. Each of
        three references takes part in two of the three distances, so their means spread less than the mean of one more
        model would. They are therefore spread by the factor (n-1) / (n-2).
        If a random network, which knows nothing of the class, or the public weights that the student started from,
        which never saw the images, have even more left than this model, the reasons say so.
Rule 2. A model beats the masked logit on a family of measures if its values are lower than the masked logit's by a
        signed-rank test over the repeats, which share samples and seeds, and if on one of the measures they are lower
        by more than the resolution. With fewer than five pairs, or a smaller difference, it is not known. A measure
        takes part only if the masked logit has more of the class left than the retrained models (or than random models
        if there are none) by more than the resolution: otherwise it cannot tell the two apart. If no measure takes
        part, it is not known. The families are the linear probes, and relearning from images of the forget classes. The
        model beats the masked logit altogether if it does so on both families and, given a retrained model, has gone at
        least half of the way from the masked logit to the retrained model on one of the measures that take part.
Rule 3. The conclusion is the first that holds:
        not unlearned            the forget accuracy is 'more left', or not evaluated, above 5 %, and above the masked
                                 logit's and the retrained models' mean by more than the resolution (of a range, every
                                 model hits some near the borders). With several forget classes it is the accuracy of
                                 the class that is called most often
        output suppression only  the model does not beat the masked logit altogether
        undecided                it is not known for the probe or for relearning whether it does; or forget accuracy, or
                                 all probes or curves that take part in rule 2, have no evaluated comparison with a
                                 retrained model; or --measures left measures out
        traces left              some measure is 'more left'
        like retrained           every evaluated measure is inside the interval or on its harmless side. If the model is
                                 worse on the retain classes than the retrained models, or if less can be drawn from it
                                 of these classes, the reasons say so
Many comparisons. Each interval has 95 % coverage by itself, so with a dozen measures even a retrained model lies
        outside of one now and then. The statuses and conclusions are not corrected for this: a correction would need
        intervals several times as wide, and would let real traces pass. Instead 'traces left' states how many measures
        are outside, by how much, and how many of them remain outside after Holm's correction (1979) for the number of
        measures. If only one is outside and it does not remain, chance can explain it, and the sentence says so. (With
        three references the correction is strict: several measures that are outside together are evidence although none
        remains.)
The same rules judge models whose answer is known: the original is not unlearned, a masked logit is output suppression
only, and each retrained model, judged by the others, is like retrained. If one of them gets another name, except
'undecided', the audit itself has failed and says so beside its conclusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn.auditing.record.intervals import bounded, excess_p_value, fewest_pairs, holm, is_below, prediction_interval
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, PUBLIC, RANDOM, RETRAINED, Measurement, Reading

INSIDE, MORE, LESS, DIFFERS, NOT_EVALUATED = "inside", "more left", "less than retrained", "differs", "not evaluated"
STILL_CALLED = 5.0  # % of forget images, if no retrained model shows what is usual
HALF_WAY = 0.5
TOO_FAR_APART = "the references differ too much for a comparison: name more retrained models with --reference"
RANDOM_HAS_MORE = "a random network, which knows nothing of the class, has even more"
PUBLIC_HAS_MORE = "the public weights, which never saw these images, have even more"
LEFT_OUT = "--measures left measures out, and such a look can accuse a model but never acquit it"
OF_FEATURES = ("probe", "relearn")  # families that do not depend on the answers of a random last layer

NOT_UNLEARNED, SUPPRESSION, UNDECIDED, TRACES, LIKE_RETRAINED = (
    "not unlearned",
    "output suppression only",
    "undecided",
    "traces left",
    "like retrained",
)
SENTENCES = {
    NOT_UNLEARNED: "The model still calls images by the forgotten class: it is not unlearned.",
    SUPPRESSION: "Output suppression only: the model no longer calls images by the class, but it holds no less of the "
    "class than a model whose logit was masked. It is not unlearned.",
    UNDECIDED: "Undecided: these inputs cannot distinguish the model from a masked one, or do not allow a comparison "
    "with retraining.",
    TRACES: "More of the class is left than in a retrained model, though less than under a masked logit.",
    LIKE_RETRAINED: "On every measure that was evaluated, no more of the class is left than in a model that was "
    "retrained without it.",
}
PERHAPS_CHANCE = (
    "On one measure more of the class is left than in a retrained model, though less than under a masked logit. Among "
    "this many measures, one such difference may be chance."
)
FAMILIES = {"probe": "the linear probe", "relearn": "relearning"}  # rule 2


@dataclass(frozen=True)
class Finding:
    """One measure's status, and where this model stands between the masked logit and the retrained model.

    Args:
        beats_mask: None if it is not known.
        way: 0 at the masked logit, 1 at the retrained model.
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


def judge(measurements: Sequence[Measurement], confidence: float, partial: bool = False) -> Verdict:
    """The verdict on this model.

    Args:
        partial: whether the person left out measures.
    """
    judged = [m for m in measurements if not m.quality]
    findings = {m.name: judge_one(m, confidence) for m in judged}
    reservations = [*weaker(measurements), *harder_to_invert(measurements)]
    conclusion, sentence, reasons = conclusion_of(judged, findings, reservations, confidence, partial)
    return Verdict(conclusion, sentence, list(findings.values()), reasons)


def judge_one(m: Measurement, confidence: float) -> Finding:
    """Rules 1 and 2 on one measure."""
    ours, theirs, masked = (m.readings.get(subject) for subject in (MODEL, RETRAINED, MASKED))
    beats = beats_mask([m], confidence)
    if theirs is None or (m.against_retrained and len(theirs.values) < 3):
        why = "it needs three retrained models or more" if m.against_retrained else "no retrained model is given"
        return Finding(m.name, NOT_EVALUATED, why, None, beats)
    if ours is None:
        return Finding(m.name, NOT_EVALUATED, "this model has no value", None, beats)
    interval = bounded(interval_of(m, theirs, confidence), m.unit)
    way = way_gone(m, ours, theirs, masked) if masked else None
    status, why = status_of(ours.mean, *interval, m.more_left), ""
    if status == INSIDE and cannot_tell(m, ours.mean, theirs, confidence):
        status, why = NOT_EVALUATED, TOO_FAR_APART
    public, random = m.readings.get(PUBLIC), m.readings.get(RANDOM)
    if status == MORE and public and m.family in OF_FEATURES and m.more_left * (public.mean - ours.mean) > 0:
        why = PUBLIC_HAS_MORE
    if status == MORE and random and m.more_left * (random.mean - ours.mean) > 0:
        why = RANDOM_HAS_MORE
    return Finding(m.name, status, why, interval, beats, way)


def interval_of(m: Measurement, retrained: Reading, confidence: float) -> tuple[float, float]:
    """Rule 1's interval of the retrained models."""
    centre = retrained.mean
    candidates = [
        (centre - m.resolution, centre + m.resolution),
        (retrained.low, retrained.high),
        prediction_interval(spread_of(m, retrained), confidence),
    ]
    return min(low for low, _ in candidates), max(high for _, high in candidates)


def spread_of(m: Measurement, retrained: Reading) -> list[float]:
    """The values that show how much retrainings differ: each reference's mean, or the repeats of a single one.

    The means of distances, which the references share, are spread as far as the mean of one more model would be.
    """
    if len(retrained.values) == 1:
        return list(retrained.flat)
    means = retrained.by_model
    stretch = (len(means) - 1) / (len(means) - 2) if m.against_retrained and len(means) > 2 else 1.0
    return [retrained.mean + stretch * (mean - retrained.mean) for mean in means]


def shown_by(m: Measurement, retrained: Reading, confidence: float) -> tuple[float, float]:
    """What the references show themselves, without the interval's allowance for how few they are."""
    if len(retrained.values) == 1:
        return interval_of(m, retrained, confidence)
    means = spread_of(m, retrained)
    return min(means) - m.resolution, max(means) + m.resolution


def cannot_tell(m: Measurement, value: float, retrained: Reading, confidence: float) -> bool:
    """Rule 1: whether the value is inside the interval only because the references differ too much.

    The interval of two values reaches 15 times as far as they do, so nearly everything is inside it.
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
    """Rule 2 on the measures of one family; None if it is not known."""
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
    """How much less of the class is left than under the masked logit, in the measure's unit."""
    return m.more_left * (m.readings[MASKED].mean - m.readings[MODEL].mean)


def tells_mask(m: Measurement) -> bool:
    """Rule 2: whether the measure can tell a masked logit from a retrained model, or from a random one if there is
    none.

    If all have the same value, as on a probe that is always right, then not being below the masked logit proves
    nothing.
    """
    other = m.readings.get(RETRAINED) or m.readings.get(RANDOM)
    if not {MODEL, MASKED} <= set(m.readings) or m.more_left == 0:
        return False
    return other is None or m.more_left * (m.readings[MASKED].mean - other.mean) > m.resolution


def way_gone(m: Measurement, ours: Reading, theirs: Reading, masked: Reading) -> float | None:
    """(masked - ours) / (masked - retrained); None if the masked logit does not have more of the class, by the
    resolution.
    """
    whole = masked.mean - theirs.mean
    return (masked.mean - ours.mean) / whole if m.more_left * whole > m.resolution else None


def conclusion_of(
    judged: Sequence[Measurement],
    findings: Mapping[str, Finding],
    reservations: Sequence[str],
    confidence: float,
    partial: bool,
) -> tuple[str, str, list[str]]:
    """Rule 3: the conclusion, its sentence, and the reasons.

    Args:
        judged: the measurements that take part in the verdict.
        findings: their findings, by the measurement's name.
        reservations: what the retain classes say against a conclusion that nothing is left.
        partial: whether the person left out measures.
    """
    if called := still_called(judged, findings):
        return NOT_UNLEARNED, SENTENCES[NOT_UNLEARNED], called
    families = {name: [m for m in judged if m.family == name and m.against_mask] for name in FAMILIES}
    beaten = {name: beats_mask(family, confidence) if family else None for name, family in families.items()}
    if not_beaten := [FAMILIES[name] for name, beats in beaten.items() if beats is False]:
        reasons = [f"it does not beat the masked logit on {name}" for name in not_beaten]
        return SUPPRESSION, SENTENCES[SUPPRESSION], reasons
    ways = [findings[m.name].way for family in families.values() for m in family]
    gone = [way for way in ways if way is not None]
    if gone and max(gone) < HALF_WAY:
        reason = "it has not gone half of the way from the masked logit to the retrained model on any probe or curve"
        return SUPPRESSION, SENTENCES[SUPPRESSION], [reason]
    lacking = [LEFT_OUT] if partial else []
    lacking += [unknown(FAMILIES[name], families[name], confidence) for name, beats in beaten.items() if beats is None]
    compared = {FAMILIES[name]: families[name] for name, beats in beaten.items() if beats}
    lacking += not_compared(judged, findings, compared)
    evaluated = [m for m in judged if findings[m.name].status != NOT_EVALUATED]
    more = [m for m in evaluated if findings[m.name].status == MORE]
    left = [more_than_retrained(m, findings[m.name]) for m in more]
    if lacking:
        return UNDECIDED, SENTENCES[UNDECIDED], [*lacking, *left]
    if more:
        comparisons = [m for m in evaluated if m.more_left != 0]
        remaining = after_correction(comparisons, more, confidence)
        sentence = PERHAPS_CHANCE if len(more) == 1 and not remaining else SENTENCES[TRACES]
        return TRACES, sentence, [*left, corrected(len(more), len(comparisons), remaining)]
    differing = [m.title for m in evaluated if findings[m.name].status == DIFFERS]
    unclear = [m.title for m in judged if findings[m.name].why == TOO_FAR_APART]
    reasons = [
        f"{len(evaluated)} measures were evaluated, and none shows more of the class",
        *reservations,
        *(
            f"it differs from the retrained model, which does not show knowledge of the class: {title}"
            for title in differing
        ),
        *(f"not evaluated, because the references differ too much: {title}" for title in unclear),
    ]
    return LIKE_RETRAINED, SENTENCES[LIKE_RETRAINED], reasons


def forget_accuracies(judged: Sequence[Measurement]) -> list[Measurement]:
    """Of the accuracy family only the forget accuracy is judged: of the worst class if there are several."""
    return [m for m in judged if m.family == "accuracy"]


def retain_accuracy(measurements: Sequence[Measurement]) -> Measurement | None:
    """The retain accuracy, on real images if it was measured on them."""
    by_name = {m.name: m for m in measurements}
    names = ("accuracy-retain-real", "accuracy-retain", "hits-retain")
    return next((by_name[name] for name in names if name in by_name), None)


def still_called(judged: Sequence[Measurement], findings: Mapping[str, Finding]) -> list[str]:
    """Rule 3: the reasons for which the model is not unlearned."""
    reasons = []
    for m in forget_accuracies(judged):
        status, called = findings[m.name].status, m.readings[MODEL].mean
        harmless = [m.readings[subject].mean + m.resolution for subject in (MASKED, RETRAINED) if subject in m.readings]
        if status == MORE or (status == NOT_EVALUATED and called > max(STILL_CALLED, *harmless)):
            reasons.append(f"it still calls images of the class by its name: {m.title} {called:.1f} %")
    return reasons


def more_than_retrained(m: Measurement, finding: Finding) -> str:
    """The measure's value, and the end of the interval that it is outside of."""
    assert finding.interval is not None
    side, end = ("at most", finding.interval[1]) if m.more_left > 0 else ("at least", finding.interval[0])
    value = with_unit(m.readings[MODEL].mean, m.unit)
    why = f" ({finding.why})" if finding.why else ""
    return f"more than in the retrained models: {m.title}, {value} against {side} {with_unit(end, m.unit)}{why}"


def with_unit(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}" if unit in ("%", "points") else f"{value:.3g} {unit}".rstrip()


def after_correction(comparisons: Sequence[Measurement], more: Sequence[Measurement], confidence: float) -> int:
    """How many of the measures with more left remain outside after Holm's correction for the number of comparisons.

    The level is that of one side of the interval. A measure inside its interval has the p-value 1 here, because the
    spread, the resolution or the sampling error explains its value. So has a measure with a single value of the
    references.
    """
    p_values = [1.0] * (len(comparisons) - len(more))
    for m in more:
        others = spread_of(m, m.readings[RETRAINED])
        p_values.append(excess_p_value(m.readings[MODEL].mean, others, m.more_left) if len(others) > 1 else 1.0)
    return sum(holm(p_values, (1 - confidence) / 2))


def corrected(outside: int, compared: int, remaining: int) -> str:
    """The reason that puts the measures with more left into proportion."""
    line = (
        f"{outside} of {compared} comparisons {'is' if outside == 1 else 'are'} outside of the interval, and "
        f"{remaining or 'none'} after Holm's correction for {compared} comparisons"
    )
    if outside == 1 and not remaining:
        line += ": chance may explain it, and more retrained models (--reference) would settle it"
    return line


def weaker(measurements: Sequence[Measurement]) -> list[str]:
    """A reservation if the model is worse on the retain classes than the retrained models."""
    values = behind_retrained(retain_accuracy(measurements))
    if values is None:
        return []
    ours, theirs = values
    return [
        f"but it is worse on the other classes too ({ours:.1f} % against {theirs:.1f} % retain accuracy), and a weaker "
        "model holds less of everything"
    ]


def harder_to_invert(measurements: Sequence[Measurement]) -> list[str]:
    """A reservation if fewer of the images drawn from the model show their retain classes than of the retrained
    models'.
    """
    values = behind_retrained(next((m for m in measurements if m.name == "resurrection-retain"), None))
    if values is None:
        return []
    ours, theirs = values
    return [
        f"but images of the other classes cannot be drawn from it as well ({ours:.1f} % against {theirs:.1f} % are "
        "recognised), so a failed resurrection says less of it"
    ]


def behind_retrained(m: Measurement | None) -> tuple[float, float] | None:
    """The means of this model and of the retrained ones, if this model's is lower by more than the resolution."""
    if m is None or not {MODEL, RETRAINED} <= set(m.readings):
        return None
    ours, theirs = (m.readings[subject].mean for subject in (MODEL, RETRAINED))
    return (ours, theirs) if theirs - ours > m.resolution else None


def unknown(name: str, family: Sequence[Measurement], confidence: float) -> str:
    """Why it is not known whether the model beats the masked logit on the family, and the cure if more repeats are
    one.
    """
    if not family:
        return f"not evaluated: {name}"
    sentence = f"{name} cannot distinguish this model from a masked logit"
    if not any({MODEL, MASKED} <= set(m.readings) for m in family):
        return f"{sentence}: there is no masked logit to compare with"
    telling = list(filter(tells_mask, family))
    if not telling:
        other = "the retrained models have" if any(RETRAINED in m.readings for m in family) else "random networks have"
        return f"{sentence}: there {other} no less of the class than the masked logit"
    unequal = sum(a != b for m in telling for a, b in zip(m.readings[MODEL].flat, m.readings[MASKED].flat, strict=True))
    needed = fewest_pairs(confidence)
    if unequal < needed:
        options = sorted({m.repeated_by for m in telling if m.repeated_by})
        cure = f": raise {' and '.join(options)}" if options else ""
        return f"{sentence}: only {unequal} of its paired repeats differ, and the signed-rank test needs {needed}{cure}"
    gap = max(map(less_than_masked, telling))
    within = f"by {gap:.1f} at most, which is within the measure's resolution"
    return f"{sentence}: this model has less of the class, but {within}"


def not_compared(
    judged: Sequence[Measurement], findings: Mapping[str, Finding], families: Mapping[str, Sequence[Measurement]]
) -> list[str]:
    """Rule 3: which of forget accuracy and these families have no evaluated comparison with a retrained model, and
    why.
    """
    if all(f.status == NOT_EVALUATED and f.why != TOO_FAR_APART for f in findings.values()):
        return ["not evaluated: the comparison with a retrained model"]
    needed = {"forget accuracy": [findings[m.name] for m in forget_accuracies(judged)]}
    needed |= {name: [findings[m.name] for m in family if tells_mask(m)] for name, family in families.items()}
    reasons = []
    for name, found in needed.items():
        if all(f.status == NOT_EVALUATED for f in found):
            reasons.append(f"not evaluated: {name}" + (f", because {found[0].why}" if found else ""))
    return reasons
