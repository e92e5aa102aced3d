import pytest

from agentrft.losses import DrGrpoLoss, GrpoLoss, PolicyGradientLoss, RlooLoss, row_divisors


def test_divisors_by_hand():
    tokens_R = [2, 6]
    assert row_divisors(PolicyGradientLoss(), tokens_R) == [8, 8]
    assert row_divisors(GrpoLoss(), tokens_R) == [4, 12]
    assert row_divisors(RlooLoss(), tokens_R) == [2, 2]
    assert row_divisors(DrGrpoLoss(row_tokens=10), tokens_R) == [20, 20]


def test_the_token_mean_is_what_it_was_to_the_bit():
    # rows_of divided by the int itself.
    tokens_R = [3, 7, 11, 20]
    assert [0.1 / d for d in row_divisors(PolicyGradientLoss(), tokens_R)] == [0.1 / 41] * 4


@pytest.mark.parametrize("loss", [PolicyGradientLoss(), GrpoLoss(), RlooLoss(), DrGrpoLoss()])
def test_rows_without_tokens_divide_by_something(loss):
    assert row_divisors(loss, []) == []
    assert all(divisor > 0 for divisor in row_divisors(loss, [0, 0]))
