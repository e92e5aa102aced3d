import pytest

from agentrft.losses import scaled_credit

TOKENS = [[1, 1, 1, 1]]


def test_group_std_by_hand():
    # 1 of 4 right: mean 0.25, credit 0.75 and −0.25; σ² = (0.5625 + 3·0.0625)/3 = 0.25, σ = 0.5
    [advantages] = scaled_credit("group_std", [[1.0, 0.0, 0.0, 0.0]], [[0.75, -0.25, -0.25, -0.25]], TOKENS)
    assert advantages == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])


def test_maxrl_by_hand():
    # Credit / mean reward 0.25; a group without any reward has no direction.
    advantages = scaled_credit(
        "group_mean",
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]],
        [[0.75, -0.25, -0.25, -0.25], [0.0] * 4, [-0.75, 0.25, 0.25, 0.25]],
        TOKENS * 3,
    )
    assert advantages == [[3.0, -1.0, -1.0, -1.0], [0.0] * 4, [0.0] * 4]


def test_maxrl_is_the_mean_of_the_right_less_the_mean_of_all():
    # (1/G) Σ A_i g_i = mean of g over the right ones − mean of g over all: the estimator of arXiv:2602.02710.
    rewards, directions = [1.0, 0.0, 1.0, 0.0, 0.0], [0.3, -1.2, 2.0, 0.7, 5.0]
    [advantages] = scaled_credit("group_mean", [rewards], [[r - 0.4 for r in rewards]], [[1] * 5])
    ours = sum(a * g for a, g in zip(advantages, directions, strict=True)) / 5
    assert ours == pytest.approx((0.3 + 2.0) / 2 - (0.3 - 1.2 + 2.0 + 0.7 + 5.0) / 5)


def test_batch_by_hand():
    # Credit ±1 on 3 tokens and 1 token: mean (3 − 1)/4 = 0.5, variance (3·0.25 + 2.25)/4 = 0.75
    [advantages] = scaled_credit("batch", [[2.0, 0.0]], [[1.0, -1.0]], [[3, 1]])
    assert advantages == pytest.approx([0.5 / 0.75**0.5, -1.5 / 0.75**0.5])
    assert 3 * advantages[0] + advantages[1] == pytest.approx(0)


def test_batch_spans_groups_and_leaves_out_who_has_no_reward():
    # Tokens 1, 1, 2: mean (1 − 1 + 0)/4 = 0, variance (1 + 1)/4 = 0.5
    advantages = scaled_credit("batch", [[2.0, 0.0, None], [0.5]], [[1.0, -1.0, 0.0], [0.0]], [[1, 1, 99], [2]])
    assert advantages[0] == pytest.approx([2**0.5, -(2**0.5), 0.0])
    assert advantages[1] == [0.0]


@pytest.mark.parametrize("scale", ["none", "group_std", "group_mean", "batch"])
@pytest.mark.parametrize("reward", [0.0, 0.1, -0.3, 1e300, None])
def test_nothing_to_compare_gives_nothing(scale, reward):
    # Three times 0.1 has the mean 0.1 + 1.4·10⁻¹⁷: what is left of it stays small.
    mean = 0.0 if reward is None else (reward + reward + reward) / 3
    credit = [0.0 if reward is None else reward - mean] * 3
    [advantages] = scaled_credit(scale, [[reward] * 3], [credit], [[1, 2, 3]])
    largest = abs(reward or 1.0)
    assert all(abs(value) <= 1e-9 * largest for value in advantages)


@pytest.mark.parametrize("scale", ["none", "group_std", "group_mean", "batch"])
def test_no_groups_and_no_tokens(scale):
    assert scaled_credit(scale, [], [], []) == []
    assert scaled_credit(scale, [[]], [[]], [[]]) == [[]]
    assert scaled_credit(scale, [[1.0, 1.0]], [[0.0, 0.0]], [[0, 0]]) == [[0.0, 0.0]]


def test_the_run_wide_scale_lives_elsewhere():
    with pytest.raises(ValueError, match="RewardScale"):
        scaled_credit("run", [], [], [])


@pytest.mark.parametrize("scale", ["group_std", "group_mean", "batch"])
def test_huge_rewards_do_not_overflow(scale):
    # 10²⁰⁰ squared is no float; scaled they are what 1 and 0 are.
    huge = scaled_credit(scale, [[1e200, 0.0]], [[5e199, -5e199]], [[1, 1]])[0]
    assert huge == pytest.approx(scaled_credit(scale, [[1.0, 0.0]], [[0.5, -0.5]], [[1, 1]])[0], rel=1e-3)
