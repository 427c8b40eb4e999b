import math

import pytest

from unlearn.auditing.record import intervals


def test_a_mean_of_two_values_has_the_textbook_interval() -> None:
    low, high = intervals.mean_interval([1.0, 3.0], 0.95)  # t(1) = 12.706, s = √2
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)


def test_one_more_value_lies_in_a_wider_interval_than_the_mean() -> None:
    values = [1.0, 2.0, 3.0]
    mean_low, mean_high = intervals.mean_interval(values, 0.95)
    low, high = intervals.prediction_interval(values, 0.95)
    assert (high - low) / (mean_high - mean_low) == pytest.approx(math.sqrt(3 + 1))


def test_a_share_of_none_has_an_upper_bound() -> None:
    low, high = intervals.share_interval(0, 100, 0.95)  # Wilson: z² / (n + z²)
    assert low == pytest.approx(0)
    assert high == pytest.approx(100 * 3.8415 / 103.8415, abs=1e-3)
    with pytest.raises(ValueError, match="not a share"):
        intervals.share_interval(5, 4, 0.95)


def test_five_lower_pairs_are_enough_and_four_are_not() -> None:
    second = [5.0, 6.0, 7.0, 8.0, 9.0]
    assert intervals.is_below([4.0, 4.0, 4.0, 4.0, 4.0], second, 0.95)
    assert not intervals.is_below([4.0, 4.0, 4.0, 4.0], second[:4], 0.95)
    assert not intervals.is_below(second, second, 0.95)
    assert not intervals.is_below(second, [1.0, 1.0, 1.0, 1.0, 1.0], 0.95)


def test_the_number_of_pairs_that_the_signed_rank_test_needs() -> None:
    assert [intervals.fewest_pairs(c) for c in (0.5, 0.9, 0.95, 0.99)] == [2, 4, 5, 7]


def test_percentages_stay_within_their_bounds() -> None:
    assert intervals.bounded((-3.0, 104.0), "%") == (0.0, 100.0)
    assert intervals.bounded((-3.0, 104.0), "") == (-3.0, 104.0)


def test_the_prediction_interval_ends_where_the_one_sided_p_value_is_half_its_level() -> None:
    others = [1.0, 2.0, 4.0]
    low, high = intervals.prediction_interval(others, 0.95)
    assert intervals.excess_p_value(high, others, 1) == pytest.approx(0.025)
    assert intervals.excess_p_value(low, others, -1) == pytest.approx(0.025)
    assert intervals.excess_p_value(high, others, -1) == pytest.approx(0.975)
    assert intervals.excess_p_value(2.0, [1.0, 1.0], 1) == 0
    assert intervals.excess_p_value(1.0, [1.0, 1.0], 1) == 1


def test_holm_compares_each_p_value_with_its_own_level_and_stops_at_the_first_failure() -> None:
    assert intervals.holm([0.01, 0.04, 0.02], 0.06) == [True, True, True]  # against 0.02, 0.06 and 0.03
    assert intervals.holm([0.01, 0.04, 0.035], 0.06) == [True, False, False]
    assert intervals.holm([], 0.05) == []
