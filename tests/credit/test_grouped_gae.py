import pytest

from agentrft.credit import METHODS

grouped_gae = METHODS["grouped_gae"]


def test_grouped_gae_by_hand(group):
    # Two members, a → b, rewards 1 and 0. For member 0 the values are member 1's returns: V(a) = V(b) = 0.
    # δ_1 = 1 − 0 = 1, δ_0 = 0 + 0 − 0 = 0; A_1 = 1, A_0 = 0 + λ · 1 = 1/2.
    # For member 1 V = 1: δ_1 = 0 − 1 = −1, δ_0 = 0 + 1 − 1 = 0; A_1 = −1, A_0 = −1/2.
    credited = grouped_gae([group([1.0, 0.0], ["ab", "ab"])], gamma=1.0, lam=0.5)
    assert credited.credit_I_G_K == [[[0.5, 1.0], [-0.5, -1.0]]]
    assert credited.parts_I_G_K[0][0][0] == {"trajectory": 1.0, "step": -0.5}


def test_discount_by_hand(group):
    # γ = 1/2, λ = 0: for member 0 V(a) = V(b) = 0: A_1 = 1, A_0 = 0. For member 1 V(b) = 1 and V(a) = 1/2:
    # A_1 = 0 − 1, A_0 = 0 + 1/2 · 1 − 1/2 = 0.
    credited = grouped_gae([group([1.0, 0.0], ["ab", "ab"])], gamma=0.5, lam=0.0)
    assert credited.credit_I_G_K == [[[0.0, 1.0], [0.0, -1.0]]]


def test_a_state_that_nobody_else_knows_is_skipped_over(group):
    # For member 0 V(a) = V(b) = 0, and x has no value. At b: 1 − 0. At x the λ-return mixes V(b) = 0 with 1, so 1/2,
    # against the others' mean 0. At a the next state has no value, so its λ-return, 1/2, counts in full.
    credited = grouped_gae([group([1.0, 0.0], ["axb", "ab"])], gamma=1.0, lam=0.5)
    assert credited.credit_I_G_K[0][0] == [0.5, 0.5, 1.0]


def test_without_states_it_is_leave_one_out(group):
    view = group([1.0, 0.5, 0.0], ["??", "?", "???"])
    credited = grouped_gae([view], gamma=1.0, lam=0.0)
    assert credited.credit_I_G_K == METHODS["leave_one_out"]([view]).credit_I_G_K == [[[0.75] * 2, [0.0], [-0.75] * 3]]


def test_turn_rewards_are_in_the_deltas(group):
    # As in the first test, with 0.2 for member 0's turn 0: δ_0 = 0.2, A_0 = 0.2 + 0.5.
    view = group([1.0, 0.0], ["ab", "ab"], turn_rewards_G=[[0.2, 0.0], [0.0, 0.0]])
    assert grouped_gae([view], gamma=1.0, lam=0.5).credit_I_G_K[0][0] == pytest.approx([0.7, 1.0])
