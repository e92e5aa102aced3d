import random

import pytest

from agentrft.credit import CREDIT, RewardScale


def test_the_first_step_sets_the_scale_and_later_ones_move_it_by_a_twentieth():
    # centred ±0.5 → RMS 0.5; then ±0.1 → 0.95·0.5 + 0.05·0.1 = 0.48
    first = RewardScale().updated([[1.0, 0.0]], [[0.5, -0.5]])
    second = first.updated([[0.6, 0.4]], [[0.1, -0.1]])
    assert first.rms == 0.5
    assert second.rms == pytest.approx(0.48)
    assert (second.lowest, second.highest, second.steps) == (0.0, 1.0, 2)
    # 0.1 / 0.48
    assert second.advantages([0.1, 0.0]) == pytest.approx([0.2083333, 0.0])


def test_members_without_a_reward_do_not_shrink_the_scale():
    assert RewardScale().updated([[1.0, None, 0.0]], [[0.5, 0.0, -0.5]]).rms == 0.5


def test_noise_is_not_blown_up_beyond_a_thousandth_of_the_range():
    scale = RewardScale(rms=1e-9, lowest=0.0, highest=2.0, steps=5)
    # divisor is 10⁻³ · 2, not 10⁻⁹
    assert scale.advantages([1e-4]) == pytest.approx([0.05])


def test_without_groups_nothing_changes_and_nothing_is_credited():
    assert RewardScale().updated([], []) == RewardScale()
    assert RewardScale().advantages([0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("name", CREDIT)
def test_an_affine_change_of_rewards_leaves_advantages_as_they_are(name):
    def advantages(a: float, b: float) -> list[float]:
        rng, scale, last = random.Random(0), RewardScale(), []
        for _ in range(10):
            rewards_I_G = [[a * rng.random() + b for _ in range(4)] for _ in range(3)]
            credit_I_G = [CREDIT[name](rewards_G) for rewards_G in rewards_I_G]
            scale = scale.updated(rewards_I_G, credit_I_G)
            last = [advantage for credit_G in credit_I_G for advantage in scale.advantages(credit_G)]
        return last

    assert advantages(1.0, 0.0) == pytest.approx(advantages(250.0, -40.0))
    # The scale makes them of order one: the RMS of uniform draws around their mean is well inside [0.5, 2].
    assert 0.5 < (sum(a * a for a in advantages(1.0, 0.0)) / 12) ** 0.5 < 2.0
