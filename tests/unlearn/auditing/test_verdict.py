"""The rules of the verdict, on numbers that a person can follow."""

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from unlearn.auditing.judgement import verdict
from unlearn.auditing.judgement.controls import as_if, controls, self_check, without
from unlearn.auditing.judgement.verdict import DIFFERS, INSIDE, LESS, MORE, NOT_EVALUATED, judge, judge_one
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, RANDOM, RETRAINED, Measurement, Reading

NOISE = (-1.0, -0.5, 0.0, 0.5, 1.0)


def reading(*means: float) -> Reading:
    """A reading of models with these means, five repeats each."""
    return Reading.of([[mean + noise for noise in NOISE] for mean in means], 0.95)


def measurement(
    name: str, ours: float, retrained: Sequence[float] = (50, 52, 48), masked: float = 95, **changes: object
) -> Measurement:
    readings = {ORIGINAL: reading(95), MASKED: reading(masked), MODEL: reading(ours)}
    if retrained:
        readings[RETRAINED] = reading(*retrained)
    family = name.split("-")[0]
    facts = {"family": family, "title": name, "unit": "", "more_left": 1, "resolution": 5.0, "source": "real"}
    facts["against_mask"] = family in ("probe", "relearn") and name != "relearn-retain"
    facts["repeated_by"] = {"probe": "--draws", "relearn": "--repeats"}.get(family, "")
    return Measurement(name=name, readings=readings, **{**facts, **changes})  # type: ignore[arg-type]


def audit_of(accuracy: float = 0, probe: float = 50, relearn: float = 50, **others: float) -> list[Measurement]:
    found = [
        measurement("accuracy-forget", accuracy, (0, 0, 0), 0),
        measurement("probe-5", probe),
        measurement("relearn-20", relearn),
        measurement("relearn-retain", 0, (0, 0, 0), 0),
    ]
    return found + [measurement(name.replace("_", "-"), value) for name, value in others.items()]


@pytest.mark.parametrize(
    ("value", "more_left", "status"),
    [(50, 1, INSIDE), (80, 1, MORE), (20, 1, LESS), (80, -1, LESS), (20, -1, MORE), (80, 0, DIFFERS), (20, 0, DIFFERS)],
)
def test_the_side_decides_what_being_outside_means(value: float, more_left: int, status: str) -> None:
    assert judge_one(measurement("m", value, more_left=more_left), 0.95).status == status


def test_the_interval_covers_the_place_of_one_more_retrained_model() -> None:
    m = measurement("m", 50, resolution=0.1)
    low, high = verdict.interval_of(m, reading(48, 50, 52), 0.95)
    assert (low, high) == pytest.approx((50 - 4.3027 * 2 * (4 / 3) ** 0.5, 50 + 4.3027 * 2 * (4 / 3) ** 0.5), abs=1e-2)
    assert verdict.interval_of(measurement("m", 50), reading(50, 50, 50), 0.95) == pytest.approx((45, 55))


def test_distances_between_references_spread_less_than_one_more_models_would() -> None:
    plain, distances = (measurement("m", 50, resolution=0.1, against_retrained=shared) for shared in (False, True))
    low, high = verdict.interval_of(plain, reading(48, 50, 52), 0.95)
    wider = verdict.interval_of(distances, reading(49, 50, 51), 0.95)  # three pairs: half of the spread
    assert wider == pytest.approx((low, high))


def test_without_enough_references_a_measure_is_not_evaluated_and_says_why() -> None:
    finding = judge_one(measurement("m", 50, ()), 0.95)
    assert (finding.status, finding.why) == (NOT_EVALUATED, "no retrained model is given")
    finding = judge_one(measurement("m", 50, (), against_retrained=True), 0.95)
    assert finding.why == "it needs three retrained models or more"
    finding = judge_one(
        measurement("m", 50, (50, 50), against_retrained=True), 0.95
    )  # both references have the same one distance
    assert (finding.status, finding.why) == (NOT_EVALUATED, "it needs three retrained models or more")


@pytest.mark.parametrize(
    ("values", "conclusion"),
    [
        ({}, verdict.LIKE_RETRAINED),
        ({"accuracy": 40}, verdict.NOT_UNLEARNED),
        ({"probe": 95, "relearn": 95}, verdict.SUPPRESSION),
        ({"probe": 95}, verdict.SUPPRESSION),
        ({"relearn": 95}, verdict.SUPPRESSION),
        ({"probe": 89, "relearn": 88}, verdict.SUPPRESSION),  # lower, but not half of the way to retrained
        ({"probe": 94.5}, verdict.UNDECIDED),  # lower, but by less than the resolution
        ({"probe": 94.5, "relearn": 90}, verdict.SUPPRESSION),
        ({"probe": 89, "relearn": 51}, verdict.TRACES),
        ({"resurrection": 99}, verdict.TRACES),
        ({"resurrection": 1}, verdict.LIKE_RETRAINED),
    ],
)
def test_the_conclusion_is_the_first_that_holds(values: dict[str, float], conclusion: str) -> None:
    found = judge(audit_of(**values), 0.95)
    assert found.conclusion == conclusion
    assert found.reasons


def test_equal_repeats_do_not_count_as_pairs() -> None:
    def but_one_equal(m: Measurement) -> Measurement:
        values = [[50.0, 50, 50, 50, 95]]
        masked = Reading.of([[95.0] * 5], 0.95)
        return dataclasses.replace(m, readings={**m.readings, MODEL: Reading.of(values, 0.95), MASKED: masked})

    found = judge([but_one_equal(m) if m.name == "relearn-20" else m for m in audit_of()], 0.95)
    assert found.conclusion == verdict.UNDECIDED
    assert "only 4 of its paired repeats differ" in found.reasons[0]


def test_the_reasons_say_if_a_random_network_has_even_more() -> None:
    m = measurement("resurrection", 80)
    random = dataclasses.replace(m, readings={**m.readings, RANDOM: reading(90)})
    assert judge_one(m, 0.95).why == ""
    assert judge_one(random, 0.95).why == verdict.RANDOM_HAS_MORE
    reason = judge([*audit_of(), random], 0.95).reasons[0]
    assert (
        reason
        == f"more than in the retrained models: resurrection, 80 against at most 59.9 ({verdict.RANDOM_HAS_MORE})"
    )


def test_undecided_still_names_what_has_more_left() -> None:
    found = judge(audit_of(probe=94.5, resurrection=99), 0.95)
    assert found.conclusion == verdict.UNDECIDED
    assert [reason.split(":")[0] for reason in found.reasons] == [
        "the linear probe cannot distinguish this model from a masked logit",
        "more than in the retrained models",
        "more than in the retrained models",
    ]


@pytest.mark.parametrize(("ours", "weaker"), [(57, True), (48, False)])
def test_like_retrained_says_if_the_model_is_weaker_on_the_other_classes(ours: float, weaker: bool) -> None:
    retain = measurement("accuracy-retain", ours, (84, 84, 84) if weaker else (48, 48, 48), quality=True)
    found = judge([*audit_of(), retain], 0.95)
    assert found.conclusion == verdict.LIKE_RETRAINED
    assert any("57.0 % against 84.0 % retain accuracy" in reason for reason in found.reasons) == weaker


@pytest.mark.parametrize(("ours", "harder"), [(9, True), (80, False)])
def test_like_retrained_says_if_no_class_can_be_drawn_from_the_model(ours: float, harder: bool) -> None:
    of_retain = measurement("resurrection-retain", ours, (84, 84, 84), quality=True)
    found = judge([*audit_of(), of_retain], 0.95)
    assert found.conclusion == verdict.LIKE_RETRAINED
    assert any("(9.0 % against 84.0 % are recognised)" in reason for reason in found.reasons) == harder


def test_too_few_repeats_leave_it_undecided() -> None:
    def few(m: Measurement) -> Measurement:
        readings = {s: Reading.of([values[:2] for values in r.values], 0.95) for s, r in m.readings.items()}
        return dataclasses.replace(m, readings=readings)

    found = judge([few(m) if m.name == "probe-5" else m for m in audit_of()], 0.95)
    assert found.conclusion == verdict.UNDECIDED
    assert found.reasons == [
        "the linear probe cannot distinguish this model from a masked logit: only 2 of its paired repeats differ, and "
        "the signed-rank test needs 5: raise --draws"
    ]


@pytest.mark.parametrize(
    ("value", "retrained", "masked", "status"),
    [
        (97.5, (67, 74), 99.4, NOT_EVALUATED),  # the interval is [15, 126]: everything would be inside
        (40, (0, 4), 95, NOT_EVALUATED),
        (70, (67, 74), 99.4, INSIDE),  # no farther off than they are themselves
        (40, (67, 74), 99.4, INSIDE),
        (97.5, (67, 99), 99.4, NOT_EVALUATED),  # one reference is no better than a masked logit
        (97.5, (97, 99), 99.4, INSIDE),  # no reference is better than a masked logit
        (97.5, (67, 68), 99.4, MORE),
        (97.5, (67,), 99.4, MORE),
    ],
)
def test_two_references_show_only_what_lies_between_them(
    value: float, retrained: Sequence[float], masked: float, status: str
) -> None:
    finding = judge_one(measurement("m", value, retrained, masked), 0.95)
    assert (finding.status, finding.why) == (status, verdict.TOO_FAR_APART if status == NOT_EVALUATED else "")


def test_references_that_differ_too_much_leave_it_undecided_and_say_so() -> None:
    measurements = [m if m.name != "probe-5" else measurement("probe-5", 85, (67, 74), 99.4) for m in audit_of()]
    found = judge(measurements, 0.95)
    reason = f"not evaluated: the linear probe, because {verdict.TOO_FAR_APART}"
    assert (found.conclusion, found.reasons) == (verdict.UNDECIDED, [reason])


def test_like_retrained_names_what_could_not_be_compared() -> None:
    found = judge([*audit_of(), measurement("transplant-stitched", 40, (0, 4))], 0.95)
    assert found.conclusion == verdict.LIKE_RETRAINED
    assert found.reasons[1:] == ["not evaluated, because the references differ too much: transplant-stitched"]


def test_references_that_differ_do_not_excuse_a_model_that_calls_the_class() -> None:
    measurements = [m for m in audit_of() if m.name != "accuracy-forget"]
    found = judge([measurement("accuracy-forget", 40, (0, 5), 0), *measurements], 0.95)
    assert found.conclusion == verdict.NOT_UNLEARNED


def test_a_model_that_hits_no_more_of_a_range_than_a_clipped_output_is_not_called_out() -> None:
    measurements = [m for m in audit_of() if m.name != "accuracy-forget"]
    hits = {"family": "accuracy", "resolution": 1.0}
    for ours, called in ((12.5, False), (13.7, True)):  # inside the interval, but farther off than the references
        judged = measurement("hits-forget", ours, (8, 9, 11), 12.6, **hits)
        assert judge_one(judged, 0.95).status == NOT_EVALUATED
        assert (judge([judged, *measurements], 0.95).conclusion == verdict.NOT_UNLEARNED) == called


def test_a_measure_that_cannot_tell_a_mask_from_retraining_takes_no_part() -> None:
    saturated = measurement("probe-5", 99, (99, 99, 99), 99)
    found = judge([m if m.name != "probe-5" else saturated for m in audit_of()], 0.95)
    why = "there the retrained models have no less of the class than the masked logit"
    assert (found.conclusion, found.reasons) == (
        verdict.UNDECIDED,
        [f"the linear probe cannot distinguish this model from a masked logit: {why}"],
    )
    assert judge_one(saturated, 0.95).way is None
    assert (
        judge([*audit_of(), dataclasses.replace(saturated, name="probe-1")], 0.95).conclusion == verdict.LIKE_RETRAINED
    )


def test_a_saturated_probe_does_not_replace_one_that_could_not_be_compared() -> None:
    saturated = measurement("probe-1", 99, (99, 99, 99), 99)
    too_far_apart = measurement("probe-5", 70, (50, 62))
    found = judge([*(m for m in audit_of() if m.name != "probe-5"), saturated, too_far_apart], 0.95)
    assert found.conclusion == verdict.UNDECIDED
    assert any("linear probe, because the references differ" in reason for reason in found.reasons)


def test_without_a_reference_random_networks_show_whether_a_measure_can_tell_a_mask() -> None:
    def beside_random(random: float) -> bool | None:
        m = measurement("relearn-5", 0, (), 0)
        return verdict.beats_mask([dataclasses.replace(m, readings={**m.readings, RANDOM: reading(random)})], 0.95)

    assert beside_random(0) is None
    assert beside_random(-50) is False


def test_a_quality_measure_has_no_part_in_the_verdict() -> None:
    measurements = [*audit_of(), measurement("accuracy-retain", 10, quality=True)]
    found = judge(measurements, 0.95)
    assert found.conclusion == verdict.LIKE_RETRAINED
    assert "accuracy-retain" not in {f.name for f in found.findings}


def test_without_probe_or_relearning_it_is_undecided() -> None:
    found = judge([m for m in audit_of() if not m.name.startswith("probe")], 0.95)
    assert (found.conclusion, found.reasons) == (verdict.UNDECIDED, ["not evaluated: the linear probe"])


def test_without_a_retrained_model_masking_is_still_called_out() -> None:
    def bare(ours: float) -> list[Measurement]:
        return [
            measurement("accuracy-forget", 0, (), 0),
            measurement("probe-5", ours, ()),
            measurement("relearn-5", ours, ()),
        ]

    assert judge(bare(95), 0.95).conclusion == verdict.SUPPRESSION
    assert judge(bare(50), 0.95).reasons == ["not evaluated: the comparison with a retrained model"]


def distances(ours: float, pairs: Mapping[tuple[int, int], float], references: int) -> Measurement:
    """A distance to the retrained models, and theirs to each other."""
    others = [[b for b in range(references) if b != a] for a in range(references)]
    theirs = [[pairs[min(a, b), max(a, b)] for b in others[a]] for a in range(references)]
    m = measurement("js-retrained", 0, family="divergence", more_left=0, resolution=0.1, against_retrained=True)
    readings = {MODEL: Reading.of([[ours] * references], 0.95), RETRAINED: Reading.of(theirs, 0.95)}
    return dataclasses.replace(m, readings=readings)


def test_the_distances_of_the_others_leave_out_the_reference_that_is_judged() -> None:
    near = {pair: 10.0 for pair in ((0, 1), (0, 2), (1, 2))}
    far = {(0, 3): 90.0, (1, 3): 90.0, (2, 3): 90.0}
    m = distances(10, near | far, 4)
    assert without(m.readings[RETRAINED].values, 3, True) == ((10.0, 10.0),) * 3
    assert without(m.readings[RETRAINED].values, 0, True) == ((10.0, 90.0), (10.0, 90.0), (90.0, 90.0))
    fourth = controls([*audit_of(), m], 0.95)[-1]
    assert fourth["subject"] == "retrained 4 of 4"
    assert (
        judge_one(as_if(m, Reading.of([[90.0] * 3], 0.95), Reading.of([[10.0] * 2] * 3, 0.95)), 0.95).status == DIFFERS
    )


def test_only_the_fields_of_a_measurement_decide_and_not_its_name() -> None:
    renamed = [dataclasses.replace(m, name=f"measure-{number}") for number, m in enumerate(audit_of(probe=95))]
    found = judge(renamed, 0.95)
    assert (found.conclusion, found.reasons) == (
        verdict.SUPPRESSION,
        ["it does not beat the masked logit on the linear probe"],
    )


def several(values: Mapping[str, float]) -> list[Measurement]:
    """An audit of a model that is like retrained, but for these measures of membership."""
    names = [f"membership-{number}" for number in range(9)]
    return audit_of() + [measurement(name, values.get(name, 50), (50, 52, 48), 50) for name in names]


def test_a_difference_that_chance_explains_among_many_measures_is_said_to_be_one() -> None:
    found = judge(several({"membership-3": 62}), 0.95)  # the interval ends at 59.9
    assert (found.conclusion, found.sentence) == (verdict.TRACES, verdict.PERHAPS_CHANCE)
    assert found.reasons[0] == "more than in the retrained models: membership-3, 62 against at most 59.9"
    assert found.reasons[1].startswith(
        "1 of 13 comparisons is outside of the interval, and none after Holm's correction"
    )


def test_several_differences_are_not_put_down_to_chance() -> None:
    found = judge(several({"membership-3": 62, "membership-5": 62}), 0.95)
    assert (found.conclusion, found.sentence) == (verdict.TRACES, verdict.SENTENCES[verdict.TRACES])
    assert found.reasons[2].endswith(
        "2 of 13 comparisons are outside of the interval, and none after Holm's correction for 13 comparisons"
    )


def test_a_difference_that_chance_does_not_explain_is_a_trace() -> None:
    found = judge(several({"membership-3": 90, "membership-5": 62}), 0.95)
    assert (found.conclusion, found.sentence) == (verdict.TRACES, verdict.SENTENCES[verdict.TRACES])
    assert found.reasons[2] == (
        "2 of 13 comparisons are outside of the interval, and 1 after Holm's correction for 13 comparisons"
    )


def test_the_rules_give_the_known_models_their_names() -> None:
    pairs = {pair: 10.0 for pair in ((0, 1), (0, 2), (1, 2))}
    measurements = [*audit_of(), distances(10, pairs, 3)]
    known = {c["subject"]: c["conclusion"] for c in controls(measurements, 0.95)}
    assert known.pop(ORIGINAL) == verdict.NOT_UNLEARNED
    assert known.pop(MASKED) == verdict.SUPPRESSION
    assert known == {f"retrained {n} of 3": verdict.LIKE_RETRAINED for n in (1, 2, 3)}


def test_a_known_model_with_a_wrong_name_is_a_failure_of_the_audit_itself() -> None:
    fine = controls(audit_of(), 0.95)
    assert self_check(fine) is None
    assert self_check([{**c, "conclusion": verdict.UNDECIDED} for c in fine]) is None
    for number, expected in enumerate((verdict.NOT_UNLEARNED, verdict.SUPPRESSION, verdict.LIKE_RETRAINED)):
        wrong = [{**c, "conclusion": verdict.TRACES} if n == number else c for n, c in enumerate(fine)]
        line = self_check(wrong)
        assert line is not None
        assert f"{fine[number]['subject']} is called 'traces left' instead of '{expected}'" in line
