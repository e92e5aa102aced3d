"""Estimates with honest intervals: the only place where "is it better?" is computed. numpy only, deterministic by seed.

Values come as `values_I_K`: one list per item with that item's K episode results; K may differ between items (faults
are left out) and an item without results is skipped. Every item counts once, however many episodes it has: a mean is
the mean of item means. Episodes of one item are not independent, so items, or clusters of items that share a source,
are what the bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Of every interval in agentrft."""

_DRAWS_AT_ONCE = 2_000_000
"""Bounds the bootstrap's memory to about 32 MB whatever the number of items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % confidence interval, in the unit of the values."""

    mean: float
    low: float
    """−inf when a single cluster says nothing about the spread."""
    high: float
    """inf when a single cluster says nothing about the spread."""
    n_items: int
    """Items with at least one result (in a comparison: on both sides)."""
    n_episodes: int
    """Results used (in a comparison: of both sides together)."""

    def to_json(self) -> dict[str, Any]:
        """`{mean, low, high, n_items, n_episodes}`; an infinite bound is null, because JSON has no infinity."""
        low, high = (bound if math.isfinite(bound) else None for bound in (self.low, self.high))
        return {
            "mean": self.mean,
            "low": low,
            "high": high,
            "n_items": self.n_items,
            "n_episodes": self.n_episodes,
        }


def wilson(successes: int, n: int) -> Interval:
    """The share successes / n with Wilson's score interval.

    With p = successes / n and z = 1.96: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). Holds its level for
    small n and near 0 and 1, where p ± z·SE does not. Assumes independent trials: one episode per item; several
    episodes per item need `cluster_bootstrap`. Raises ValueError unless 0 ≤ successes ≤ n and n ≥ 1.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22; recommended by Brown, Cai and DasGupta 2001, Stat. Science 16.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got successes={successes} n={n}")
    low, high = _wilson_bounds(successes / n, n)
    return Interval(mean=successes / n, low=low, high=high, n_items=n, n_episodes=n)


def clustered_wilson(values_I_K: Sequence[Sequence[float]]) -> Interval:
    """The mean of shares (each value in [0, 1]) over items, with Wilson's interval for that many independent trials.

    Episodes of one item are worth less than independent ones. How many independent trials they are worth follows from
    how far item means differ: n = p(1 − p) / (s²/I), at least I (nothing new after an item's first episode), at most
    the number of episodes; times (z/t)² with I − 1 degrees of freedom, because s² is itself an estimate. Keeps its
    level near 0 and 1, where a bootstrap has nothing to draw. Raises ValueError where there is no value, or one lies
    outside [0, 1].
    Source: the effective sample size of Korn and Graubard 1998, Survey Methodology 24, in Wilson's interval.
    """
    means_I = np.array([_mean(values_K) for values_K in values_I_K if len(values_K)])
    n_items, n_episodes = len(means_I), sum(map(len, values_I_K))
    if not n_items or means_I.min() < 0 or means_I.max() > 1:
        raise ValueError(f"clustered_wilson needs shares in [0, 1] of at least one item, got {list(means_I)}")
    p = float(means_I.mean())
    if n_items == 1:
        return Interval(mean=p, low=0.0, high=1.0, n_items=1, n_episodes=n_episodes)
    spread = float(means_I.var(ddof=1)) / n_items
    worth = float(n_items) if spread == 0 else min(max(p * (1 - p) / spread, n_items), n_episodes)
    z, t = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2), _t_quantile(0.5 + CONFIDENCE / 2, n_items - 1)
    low, high = _wilson_bounds(p, worth * (z / t) ** 2)
    return Interval(mean=p, low=low, high=high, n_items=n_items, n_episodes=n_episodes)


def _wilson_bounds(p: float, n: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact bound is 0 or 1; rounding must not push it past.
    return (0.0 if p == 0 else (centre - half) / scale), (1.0 if p == 1 else (centre + half) / scale)


def cluster_bootstrap(
    values_I_K: Sequence[Sequence[float]],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    n_boot: int = 10_000,
) -> Interval:
    """The mean over items with a clustered bootstrap interval.

    Draws whole items (or whole clusters: `clusters` names each item's) with replacement, `n_boot` times, and takes
    expanded percentiles (see `_percentile_levels`). Raises ValueError when there is no value or a value is not finite.
    Source: Davison and Hinkley 1997, §2.4 and §3.8.
    """
    kept = [index for index, values_K in enumerate(values_I_K) if len(values_K)]
    means_I = np.array([_mean(values_I_K[index]) for index in kept])
    n_episodes = sum(len(values_I_K[index]) for index in kept)
    return _bootstrap(means_I, _kept_clusters(clusters, kept, len(values_I_K)), n_episodes, seed, n_boot)


def paired_cluster_bootstrap(
    before_I_K: Sequence[Sequence[float]],
    after_I_K: Sequence[Sequence[float]],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    n_boot: int = 10_000,
) -> Interval:
    """The mean over items of (after − before) with a clustered bootstrap interval.

    Both sides list the same items in the same order; an item is used when both sides have a result for it. The
    differences are drawn as in `cluster_bootstrap`, so that what an item's difficulty adds to both sides cancels.
    Raises ValueError when the sides differ in length, no item has results on both, or a value is not finite.
    """
    if len(before_I_K) != len(after_I_K):
        raise ValueError(f"a paired comparison needs the same items, got {len(before_I_K)} and {len(after_I_K)}")
    pairs = list(zip(before_I_K, after_I_K, strict=True))
    kept = [index for index, (before_K, after_K) in enumerate(pairs) if len(before_K) and len(after_K)]
    differences_I = np.array([_mean(after_I_K[index]) - _mean(before_I_K[index]) for index in kept])
    n_episodes = sum(len(before_I_K[index]) + len(after_I_K[index]) for index in kept)
    return _bootstrap(differences_I, _kept_clusters(clusters, kept, len(pairs)), n_episodes, seed, n_boot)


def student(values: Sequence[float]) -> Interval:
    """The mean of independent results of one item, with Student's interval: episodes that go on from one state.

    It says nothing of other items. Raises ValueError when there is no value or one is not finite.
    Source: Student 1908, Biometrika 6.
    """
    if not len(values):
        raise ValueError("an interval needs at least one result, got none")
    return _of_one_item(_mean(values), _squared_error(values), len(values) - 1, len(values))


def welch(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Mean of `after` less mean of `before`, independent results of one item, with Welch's interval.

    The standard error is √(s₁²/n₁ + s₂²/n₂); the degrees of freedom are those of the smaller side, because with
    Satterthwaite's 8 rewards of 0 and 1 a side claim a difference in 7.6 % of the cases where there is none. A side
    whose results are all alike adds no width, so with very few results a difference looks surer than it is: 4 a side
    are the fewest where two such sides are told apart by a permutation test (p = 2/70). Raises ValueError when a side
    has no value, or one is not finite.
    Source: Welch 1938, Biometrika 29.
    """
    if not len(before) or not len(after):
        raise ValueError(f"a difference needs results on both sides, got {len(before)} and {len(after)}")
    squared_error = _squared_error(before) + _squared_error(after)
    dof = min(len(before), len(after)) - 1
    return _of_one_item(_mean(after) - _mean(before), squared_error, dof, len(before) + len(after))


def _squared_error(values: Sequence[float]) -> float:
    """Of their mean; 0 for a single value, which says nothing of the spread."""
    return float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0


def _of_one_item(mean: float, squared_error: float, dof: int, n: int) -> Interval:
    half = _t_quantile(0.5 + CONFIDENCE / 2, dof) * math.sqrt(squared_error) if dof else math.inf
    return Interval(mean=mean, low=mean - half, high=mean + half, n_items=1, n_episodes=n)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased chance that at least one of k episodes succeeds, from c successes in n episodes of one item.

    1 − C(n−c, k) / C(n, k). Average it over items. Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, got n={n} c={c} k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def icc(values_I_K: Sequence[Sequence[float]]) -> float:
    """The intraclass correlation ICC(1): the share of the variance that lies between items rather than within them.

    (MSB − MSW) / (MSB + (k₀ − 1)·MSW) of a one-way analysis of variance, with k₀ = (N − Σk²/N) / (I − 1) for unequal
    K. At most 1; slightly below 0 when items differ less than chance would have it; 0 when nothing varies at all.
    Raises ValueError with fewer than two items, or when no item has two results.
    Source: Shrout and Fleiss 1979, Psychol. Bull. 86; k₀ as in Donner 1986, Int. Stat. Rev. 54.
    """
    groups = [np.asarray(values_K, dtype=np.float64) for values_K in values_I_K if len(values_K)]
    sizes_I = np.array([len(group) for group in groups])
    n_items, n_values = len(groups), int(sizes_I.sum())
    if n_items < 2 or n_values == n_items:
        raise ValueError(f"icc needs two items and an item with two results, got {n_items} items, {n_values} results")
    grand_mean = np.concatenate(groups).mean()
    means_I = np.array([group.mean() for group in groups])
    between = float((sizes_I * (means_I - grand_mean) ** 2).sum()) / (n_items - 1)
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups)) / (n_values - n_items)
    k0 = (n_values - float((sizes_I**2).sum()) / n_values) / (n_items - 1)
    total = between + (k0 - 1) * within
    return (between - within) / total if total > 0 else 0.0


def _mean(values_K: Sequence[float]) -> float:
    mean = math.fsum(values_K) / len(values_K)
    if not math.isfinite(mean):
        raise ValueError(f"statistics need finite values, got {list(values_K)}; leave results without a number out")
    return mean


def _kept_clusters(clusters: Sequence[Hashable] | None, kept: Sequence[int], n_items: int) -> NDArray[np.int64]:
    """Cluster numbers 0 … C−1 of the kept items; every item is its own cluster when none are named."""
    if clusters is None:
        return np.arange(len(kept))
    if len(clusters) != n_items:
        raise ValueError(f"clusters names one cluster per item, got {len(clusters)} for {n_items} items")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(clusters[index], len(numbers)) for index in kept], dtype=np.int64)


def _bootstrap(
    means_I: NDArray[np.float64], clusters_I: NDArray[np.int64], n_episodes: int, seed: int, n_boot: int
) -> Interval:
    if not len(means_I):
        raise ValueError("an interval needs at least one item with a result, got none")
    n_clusters = int(clusters_I.max()) + 1
    sums_C = np.bincount(clusters_I, weights=means_I, minlength=n_clusters)
    sizes_C = np.bincount(clusters_I, minlength=n_clusters)
    mean = float(means_I.mean())
    low, high = -math.inf, math.inf
    if n_clusters > 1:
        rng = np.random.default_rng(seed)
        drawn = []
        for start in range(0, n_boot, at_once := max(1, _DRAWS_AT_ONCE // n_clusters)):
            picks = rng.integers(0, n_clusters, size=(min(at_once, n_boot - start), n_clusters))
            drawn.append(sums_C[picks].sum(axis=1) / sizes_C[picks].sum(axis=1))
        low, high = (float(bound) for bound in np.quantile(np.concatenate(drawn), _percentile_levels(n_clusters)))
    return Interval(mean=mean, low=low, high=high, n_items=len(means_I), n_episodes=n_episodes)


def _percentile_levels(n: int) -> tuple[float, float]:
    """The two quantile levels of the bootstrap distribution that bound the interval, for n clusters.

    Plain percentiles are too narrow for small n: the bootstrap's variance is (n−1)/n of the right one, and normal
    rather than t tails are assumed. Expanded percentiles use Φ(−√(n/(n−1)) · t) instead of 2.5 %.
    Source: Hesterberg 2015, The American Statistician 69(4), §5.3 ("expanded percentile").
    """
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * _t_quantile(0.5 + CONFIDENCE / 2, n - 1))
    return tail, 1 - tail


def _t_quantile(p: float, dof: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else to about 1 % (0.1 % from 5 up).

    Source: Abramowitz and Stegun 1964, 26.7.5 (Cornish-Fisher expansion).
    """
    if dof == 1:
        return math.tan(math.pi * (p - 0.5))
    if dof == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    x = NormalDist().inv_cdf(p)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / dof**power for power, term in enumerate(terms, start=1))
