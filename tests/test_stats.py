"""Numbers worked by hand, and simulations that check what an interval promises."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.stats import (
    Interval,
    cluster_bootstrap,
    icc,
    paired_cluster_bootstrap,
    pass_at_k,
    student,
    welch,
    wilson,
)


def test_an_interval_is_written_with_the_words_of_the_design() -> None:
    interval = Interval(mean=0.5, low=-math.inf, high=0.75, n_items=1, n_episodes=2)
    assert json.loads(json.dumps(interval.to_json(), allow_nan=False)) == {
        "mean": 0.5,
        "low": None,
        "high": 0.75,
        "n_items": 1,
        "n_episodes": 2,
    }


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # z² = 3.841459; centre 0.5 + 0 → (0.5 + 0.960365 ± 1.959964·√(0.125 + 0.240091)) / 2.920729
        #   = (1.460365 ± 1.184265)/2.920729
        (1, 2, 0.094531, 0.905469),
        # p = 0.8: (0.8 + 0.192073 ± 1.959964·√(0.016 + 0.009604)) / 1.384146 = (0.992073 ± 0.313617)/1.384146
        (8, 10, 0.490160, 0.943318),
        # p = 0: the upper bound is z²/n / (1 + z²/n) = 0.384146/1.384146
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
    ],
)
def test_wilson_by_hand(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert interval.mean == successes / n
    assert (interval.low, interval.high) == (pytest.approx(low, abs=3e-6), pytest.approx(high, abs=3e-6))
    assert (interval.n_items, interval.n_episodes) == (n, n)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(successes, n)


def test_bootstrap_of_two_items_by_hand() -> None:
    # Item means 0 and 1. Of 4 draws of two items, means are 0, ½, ½, 1; expanded percentiles at n = 2 reach the ends.
    interval = cluster_bootstrap([[0.0], [1.0, 1.0]], seed=3)
    assert interval == Interval(mean=0.5, low=0.0, high=1.0, n_items=2, n_episodes=3)


def test_bootstrap_matches_the_exact_distribution_of_three_items() -> None:
    # Item means 0, 1, 2. Expanded percentiles at n = 3: √1.5 · t(0.975, 2) = 1.2247 · 4.3027 = 5.27 → tail 7e-8,
    # so the ends of the 27 equally likely draws: (0,0,0) and (2,2,2).
    interval = cluster_bootstrap([[0.0], [1.0], [2.0]], seed=0)
    assert (interval.mean, interval.low, interval.high) == (1.0, 0.0, 2.0)


def test_every_item_counts_once_and_empty_items_not_at_all() -> None:
    # ((0+1)/2 + 1 + 0) / 3 = 0.5; the item without results is no item.
    interval = cluster_bootstrap([[0.0, 1.0], [1.0], [], [0.0, 0.0]])
    assert (interval.mean, interval.n_items, interval.n_episodes) == (0.5, 3, 5)


def test_pairs_need_results_on_both_sides() -> None:
    # (1 − 0.5), (1 − 1): mean 0.25; the third item has no result before. Episodes: 2+1 and 1+1.
    interval = paired_cluster_bootstrap([[0.0, 1.0], [1.0], []], [[1.0], [1.0], [1.0]])
    assert (interval.mean, interval.n_items, interval.n_episodes) == (0.25, 2, 5)


def test_a_constant_gain_is_certain_however_hard_the_items_are() -> None:
    before = [[0.0], [0.4], [0.9]]
    after = [[0.25], [0.65], [1.15]]
    interval = paired_cluster_bootstrap(before, after)
    assert (interval.low, interval.high) == (pytest.approx(0.25), pytest.approx(0.25))


def test_one_item_says_nothing_about_the_spread() -> None:
    interval = cluster_bootstrap([[0.25, 0.75]])
    assert (interval.mean, interval.low, interval.high) == (0.5, -math.inf, math.inf)


def test_clusters_are_drawn_whole() -> None:
    # Two clusters {0, 0} and {1, 1, 1}: draws give 0, 3/5 (twice) and 1; as five items the interval would be narrower.
    values = [[0.0], [0.0], [1.0], [1.0], [1.0]]
    together = cluster_bootstrap(values, clusters=["a", "a", "b", "b", "b"])
    assert (together.mean, together.low, together.high) == (0.6, 0.0, 1.0)
    assert together.n_items == 5


def test_the_same_seed_gives_the_same_interval() -> None:
    # 300 items: the 10,000 draws are made in two lots.
    values = [[float(index % 7)] for index in range(300)]
    first = cluster_bootstrap(values, seed=5)
    assert first == cluster_bootstrap(values, seed=5)
    assert first != cluster_bootstrap(values, seed=6)


@pytest.mark.parametrize("values", [[], [[]], [[math.nan]], [[math.inf], [1.0]]])
def test_no_interval_without_numbers(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"at least one item|finite"):
        cluster_bootstrap(values)


def test_pairs_must_be_the_same_items() -> None:
    with pytest.raises(ValueError, match="same items, got 1 and 2"):
        paired_cluster_bootstrap([[1.0]], [[1.0], [0.0]])
    with pytest.raises(ValueError, match="one cluster per item, got 1 for 2"):
        cluster_bootstrap([[1.0], [0.0]], clusters=["a"])


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (5, 2, 2, 0.7),  # 1 − C(3,2)/C(5,2) = 1 − 3/10
        (4, 1, 1, 0.25),
        (4, 1, 4, 1.0),  # all four drawn: the one success is among them
        (3, 0, 2, 0.0),
        (200, 1, 100, 0.5),  # 1 − C(199,100)/C(200,100) = 1 − 100/200
    ],
)
def test_pass_at_k_by_hand(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_a_chance_and_grows_with_c(case: tuple[int, int, int]) -> None:
    n, c, k = case
    assert 0.0 <= pass_at_k(n, c, k) <= 1.0
    if c < n:
        assert pass_at_k(n, c, k) <= pass_at_k(n, c + 1, k)


def test_pass_at_k_refuses_more_draws_than_episodes() -> None:
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(2, 1, 3)


def test_icc_by_hand() -> None:
    # Means 1.5, 4, 6.5 around 4: MSB = 2·(6.25 + 0 + 6.25)/2 = 12.5; MSW = (0.5 + 2 + 0.5)/3 = 1; k₀ = 2.
    assert icc([[1, 2], [3, 5], [6, 7]]) == pytest.approx(11.5 / 13.5)
    # Unequal K: MSB = 3·0.5625 + 5.0625 = 6.75; MSW = 2/2 = 1; k₀ = (4 − 10/4)/1 = 1.5 → 5.75/7.25.
    assert icc([[1, 2, 3], [5]]) == pytest.approx(5.75 / 7.25)
    # All the spread within items: MSB = 0, MSW = 0.5 → −0.5/0.5.
    assert icc([[0, 1], [1, 0]]) == pytest.approx(-1.0)
    assert icc([[1, 1], [1, 1]]) == 0.0


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_icc_needs_two_items_and_a_repeat(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="two items and an item with two results"):
        icc(values)


@pytest.mark.parametrize("n_items", [8, 40])
def test_95_percent_intervals_cover_the_truth_95_percent_of_the_time(n_items: int) -> None:
    # Item difficulty uniform, two episodes each: the true success rate is ½, the true gain 0.2 (0.5·(1+0.4) − 0.5).
    # 600 simulations: the standard error of a coverage of 0.95 is 0.009; ±0.027 is three of them.
    rng = np.random.default_rng(11)
    covered_mean = covered_gain = 0
    for simulation in range(600):
        difficulty = rng.random(n_items)
        before = (rng.random((n_items, 2)) < difficulty[:, None]).astype(float)
        after = (rng.random((n_items, 2)) < (difficulty + 0.4 * (1 - difficulty))[:, None]).astype(float)
        mean = cluster_bootstrap(before.tolist(), seed=simulation, n_boot=800)
        gain = paired_cluster_bootstrap(before.tolist(), after.tolist(), seed=simulation, n_boot=800)
        covered_mean += mean.low <= 0.5 <= mean.high
        covered_gain += gain.low <= 0.2 <= gain.high
    assert covered_mean / 600 == pytest.approx(0.95, abs=0.027)
    assert covered_gain / 600 == pytest.approx(0.95, abs=0.027)


def test_treating_episodes_as_items_would_cover_less() -> None:
    # Why items are drawn: with eight perfectly correlated episodes an item, the naive interval is √8 times too narrow.
    rng = np.random.default_rng(2)
    covered_items = covered_episodes = 0
    for simulation in range(200):
        values = [[float(rng.random() < 0.5)] * 8 for _ in range(30)]
        items = cluster_bootstrap(values, seed=simulation, n_boot=400)
        episodes = cluster_bootstrap([[value] for row in values for value in row], seed=simulation, n_boot=400)
        covered_items += items.low <= 0.5 <= items.high
        covered_episodes += episodes.low <= 0.5 <= episodes.high
    assert covered_items >= 180
    assert covered_episodes <= 140


def test_student_and_welch_by_hand() -> None:
    # s² of 1 … 4 is 5/3, its share 5/12; t with 3 degrees of freedom is 3.182: 2.5 ± 3.182 · 0.6455.
    alone = student([1, 2, 3, 4])
    assert (alone.mean, alone.n_items, alone.n_episodes) == (2.5, 1, 4)
    assert alone.high - alone.mean == pytest.approx(2.054, rel=0.01)
    # s² of 0, 0, 2, 2 is 4/3, its share 1/3: −1.5 ± 3.182 · √(5/12 + 1/3).
    apart = welch([1, 2, 3, 4], [0, 0, 2, 2])
    assert (apart.mean, apart.n_items, apart.n_episodes) == (-1.5, 1, 8)
    assert apart.high - apart.mean == pytest.approx(3.182 * math.sqrt(5 / 12 + 1 / 3), rel=0.01)


def test_a_single_result_says_nothing_about_the_spread() -> None:
    for interval in (student([1.0]), welch([1.0], [1.0, 2.0]), welch([0.0, 1.0], [1.0])):
        assert (interval.low, interval.high) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="both sides"):
        welch([], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        student([])


@pytest.mark.parametrize("n", [4, 8, 16])
def test_welch_holds_its_level_for_rewards_of_0_and_1(n: int) -> None:
    # The same chance on both sides: a difference is claimed in about 5 % of the draws (2,000 draws: ± 1 %), a side
    # without spread included.
    rng = np.random.default_rng(0)
    for chance in (0.2, 0.5, 0.9):
        draws = rng.random((2000, 2, n)) < chance
        found = (welch(before.astype(float), after.astype(float)) for before, after in draws)
        claimed = sum(interval.low > 0 or interval.high < 0 for interval in found)
        assert claimed / 2000 < 0.07
