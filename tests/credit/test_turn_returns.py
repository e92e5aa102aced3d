import pytest

from agentrft.credit import METHODS, check_turn_rewards
from agentrft.credit.discrimination import within_item_correlation
from agentrft.errors import UserError

turn_returns = METHODS["turn_returns"]


def test_turn_returns_by_hand(group):
    # Returns: member 0: turn rewards 0.5, 0 and reward 1 → 1.5, 1. Member 1: 0, 0 → 0, 0. Member 2: 0.25, 0, and 0.5
    # → 0.75, 0.5. Each against the mean of the other two at the same turn:
    # 1.5 − 0.375, 1 − 0.25; 0 − 1.125, 0 − 0.75; 0.75 − 0.75, 0.5 − 0.5
    view = group([1.0, 0.0, 0.5], ["ab", "ab", "ab"], turn_rewards_G=[[0.5, 0.0], [0.0, 0.0], [0.25, 0.0]])
    credited = turn_returns([view], gamma=1.0)
    assert credited.credit_I_G_K == [[[1.125, 0.75], [-1.125, -0.75], [0.0, 0.0]]]
    # of the first: outcome 1 − 0.25, turn rewards 0.5 − 0.125
    assert credited.parts_I_G_K[0][0][0] == {"trajectory": 0.75, "turn_return": 0.375}
    # the scale is of reward and turn rewards together: 1.5, 0, 0.75 around 0.75
    assert credited.basis_I_G == [[0.75, -0.75, 0.0]]


def test_discounting_is_per_turn(group):
    # γ = 1/2: member 0: 0.5 + 1/2 · 1 = 1, and 1; member 1: 0.
    view = group([1.0, 0.0], ["ab", "ab"], turn_rewards_G=[[0.5, 0.0], [0.0, 0.0]])
    assert turn_returns([view], gamma=0.5).credit_I_G_K == [[[1.0, 1.0], [-1.0, -1.0]]]


def test_where_few_came_that_far_the_ends_of_all_others_are_compared(group):
    # At turn 1 only member 1 is there beside member 0: fewer than 2, so both others, each at its last turn by then:
    # returns 0.5 (member 1, turn 1) and 0.25 (member 2, turn 0). 1 − 0.375
    view = group([1.0, 0.5, 0.25], ["ab", "ab", "a"])
    assert turn_returns([view], gamma=1.0).credit_I_G_K[0][0] == [0.625, 0.625]


def of_16(group, turn_rewards, rewards):
    """16 equal groups of 4: 64 episodes of one turn."""
    return [group(rewards, ["a"] * 4, turn_rewards_G=[[reward] for reward in turn_rewards])] * 16


def test_turn_rewards_that_go_with_success_pass(group):
    # Centred, turns 1/2, 1/2, −1/2, −1/2 and rewards 1/2, 0, 0, −1/2: Σ of products 1/2, of squares 1 and 1/2, so
    # r = 1/2 / √(1 · 1/2) = √(1/2)
    assert check_turn_rewards(of_16(group, [1, 1, 0, 0], [1, 0.5, 0.5, 0]), force=False) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("turn_rewards", "rewards", "figure"),
    [
        ([0, 0, 1, 1], [1, 0.5, 0.5, 0], "correlation with the reward is -0.71, expected above 0"),
        ([1, 0, 1, 0], [1, 1, 0, 0], "correlation with the reward is +0.00, expected above 0"),
        ([0.3, 0.3, 0.3, 0.3], [1, 1, 0, 0], "never differ"),
        ([1, 0, 1, 0], [0.7, 0.7, 0.7, 0.7], "never differ"),
    ],
)
def test_turn_rewards_that_do_not_are_refused_with_the_figure_unless_forced(group, turn_rewards, rewards, figure):
    groups = of_16(group, turn_rewards, rewards)
    with pytest.raises(UserError, match=r"training\.credit\.force: true") as caught:
        check_turn_rewards(groups, force=False)
    assert figure in caught.value.message
    assert "64 episodes" in caught.value.message
    assert (caught.value.param, caught.value.code) == ("training.credit", "invalid_credit")
    assert check_turn_rewards(groups, force=True) == within_item_correlation(groups)


def test_too_few_episodes_prove_nothing(group):
    with pytest.raises(UserError, match="only 60 graded episodes can be compared, expected at least 64"):
        check_turn_rewards(of_16(group, [1, 1, 0, 0], [1, 0.5, 0.5, 0])[:15], force=False)
    ungraded = [group([1.0, None, None, None], ["a"] * 4)] * 100
    with pytest.raises(UserError, match="only 0 graded episodes"):
        check_turn_rewards(ungraded, force=False)


def test_easy_items_with_many_turn_rewards_do_not_count(group):
    # Within either item it is −1; between them it would be positive.
    easy = group([1.0, 0.9], ["a", "a"], turn_rewards_G=[[5.0], [6.0]])
    hard = group([0.1, 0.0], ["a", "a"], turn_rewards_G=[[0.0], [1.0]])
    assert within_item_correlation([easy, hard]) == pytest.approx(-1.0)
