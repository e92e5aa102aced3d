import pytest

from agentrft.credit import CREDIT

BOTH = pytest.mark.parametrize("credit", CREDIT.values(), ids=CREDIT.keys())


def test_group_mean_by_hand():
    # mean of 1, 0.5, 0 is 0.5
    assert CREDIT["group_mean"]([1.0, 0.5, 0.0]) == [0.5, 0.0, -0.5]


def test_leave_one_out_by_hand():
    # 1 − (0.5 + 0)/2, 0.5 − (1 + 0)/2, 0 − (1 + 0.5)/2
    assert CREDIT["leave_one_out"]([1.0, 0.5, 0.0]) == [0.75, 0.0, -0.75]


def test_leave_one_out_is_group_mean_times_g_over_g_minus_1():
    rewards = [0.3, 0.9, 0.1, 0.45]
    expected = [4 / 3 * credit for credit in CREDIT["group_mean"](rewards)]
    assert CREDIT["leave_one_out"](rewards) == pytest.approx(expected)


@BOTH
def test_a_constant_group_gets_nothing(credit):
    assert credit([0.25] * 8) == [0.0] * 8


@BOTH
def test_a_group_of_one_gets_nothing(credit):
    assert credit([0.7]) == [0.0]
    assert credit([None, 0.7, None]) == [0.0, 0.0, 0.0]
    assert credit([]) == []


@BOTH
def test_a_missing_reward_is_in_no_baseline_and_gets_nothing(credit):
    with_gap, without = credit([1.0, None, 0.0]), credit([1.0, 0.0])
    assert with_gap == [without[0], 0.0, without[1]]


@BOTH
def test_credit_sums_to_zero(credit):
    assert sum(credit([0.3, None, 0.9, 0.1])) == pytest.approx(0.0)
