"""What the intervals of a diagnosis promise: their coverage over simulated worlds, where the truth is known."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from agentrft.diagnose.baseline import Baseline, BaselinePlan
from agentrft.diagnose.figures import figures_of, item_figures
from agentrft.stats import clustered_wilson, paired_cluster_bootstrap
from agentrft.types import Grade, Group

WORLDS = 500
ITEMS, SAMPLES = 50, 8
PASSED, FAILED = Grade(value=1.0), Grade(value=0.0)
PLAN = {"job_id": "ftjob-t", "stage": "diagnose", "split": "train", "samples": SAMPLES}


def test_clustered_wilson_by_hand() -> None:
    # Item means 0, ½, ½, 1: p = ½, s² = 1/6, s²/I = 1/24, so ¼ / (1/24) = 6 independent trials of the 8 episodes.
    # t(0.975, 3) = 3.1824: 6 · (1.959964 / 3.1824)² = 2.27577 trials; z² / n = 1.68797.
    # (0.5 + 0.843985 ± 1.959964 · √(0.25 / 2.27577 + 3.841459 / (4 · 2.27577²))) / 2.68797
    #   = (1.343985 ± 1.959964 · √(0.109853 + 0.185429)) / 2.68797 = (1.343985 ± 1.065032) / 2.68797
    interval = clustered_wilson([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert interval.mean == 0.5
    assert (interval.low, interval.high) == (pytest.approx(0.1038, abs=2e-3), pytest.approx(0.8962, abs=2e-3))
    assert (interval.n_items, interval.n_episodes) == (4, 8)


def test_clustered_wilson_where_nothing_varies() -> None:
    # No item ever passed: its first episode told all that its others could, so 10 trials, not 80.
    interval = clustered_wilson([[0.0] * 8] * 10)
    # t(0.975, 9) = 2.2622: 10 · (1.96 / 2.2622)² = 7.506 trials; 3.841459 / 7.506 / (1 + 3.841459 / 7.506) = 0.3385
    assert (interval.mean, interval.low) == (0.0, 0.0)
    assert interval.high == pytest.approx(0.3385, abs=2e-3)
    assert clustered_wilson([[1.0]]).low == 0.0


@pytest.mark.parametrize("values", [[], [[]], [[1.5]], [[-0.1, 0.0]]])
def test_clustered_wilson_refuses_what_is_no_share(values) -> None:
    with pytest.raises(ValueError, match=r"shares in \[0, 1\]"):
        clustered_wilson(values)


def test_clustered_wilson_is_wilson_for_one_episode_an_item() -> None:
    from agentrft.stats import wilson

    ours, plain = clustered_wilson([[1.0]] * 300 + [[0.0]] * 700), wilson(300, 1000)
    # (z/t)² at 999 degrees of freedom is 0.998, and s² divides by I − 1.
    assert (ours.low, ours.high) == (pytest.approx(plain.low, abs=1e-3), pytest.approx(plain.high, abs=1e-3))


def _world(rng: np.random.Generator, a: float, b: float, episodes_I: list[Group]) -> Baseline:
    """A diagnosis of an agent whose chance on an item is drawn from Beta(a, b)."""
    p = rng.beta(a, b, ITEMS)
    draws = rng.random((ITEMS, SAMPLES)) < p[:, None]
    groups = [
        replace(group, grades=tuple(PASSED if passed else FAILED for passed in values))
        for group, values in zip(episodes_I, draws, strict=True)
    ]
    return Baseline(plan=BaselinePlan(items=[g.item for g in groups], **PLAN), groups=groups)


def _never(a: float, b: float, k: int) -> float:
    """E[(1 − p)^k] for p from Beta(a, b): Π (b + i) / (a + b + i)."""
    return math.prod((b + i) / (a + b + i) for i in range(k))


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.8), (0.4, 1.6)], ids=["even", "mostly-failing"])
def test_coverage_of_every_interval_over_500_worlds(peek, a: float, b: float, capsys) -> None:
    truth = {
        "pass@1": a / (a + b),
        "pass@8": 1 - _never(a, b, 8),
        "best": 1 - _never(a, b, 8),
        "headroom": 1 - _never(a, b, 8) - a / (a + b),
        "never": _never(a, b, 8),
        "signal": 1 - _never(a, b, 8) - _never(b, a, 8),
    }
    rng = np.random.default_rng(7)
    episodes_I = [peek.group(item, [0.0] * SAMPLES) for item in peek.items(ITEMS)]
    hits = dict.fromkeys((*truth, "pass@1 bootstrap", "pass@8 bootstrap", "reward"), 0)
    for _ in range(WORLDS):
        baseline = _world(rng, a, b, episodes_I)
        figures = figures_of(baseline, item_figures(baseline), n_boot=300)
        intervals = {
            "pass@1": figures.pass_at[1].wilson,
            "pass@1 bootstrap": figures.pass_at[1].bootstrap,
            "pass@8": figures.pass_at[8].wilson,
            "pass@8 bootstrap": figures.pass_at[8].bootstrap,
            "reward": figures.reward,
            "best": figures.best,
            "headroom": figures.headroom,
            "never": figures.never,
            "signal": figures.signal,
        }
        for name, interval in intervals.items():
            value = truth["pass@1" if name == "reward" else name.removesuffix(" bootstrap")]
            hits[name] += bool(interval.low <= value <= interval.high)
    coverage = {name: count / WORLDS for name, count in hits.items()}
    with capsys.disabled():
        sys.stdout.write(f"\ncoverage, Beta({a}, {b}): {coverage}")
    assert all(0.92 <= share <= 0.98 for share in coverage.values()), coverage


def test_coverage_near_zero_where_a_bootstrap_is_too_narrow(peek) -> None:
    a, b = 0.3, 6.0
    rng, hits = np.random.default_rng(3), 0
    for _ in range(WORLDS):
        p = rng.beta(a, b, ITEMS)
        draws = (rng.random((ITEMS, SAMPLES)) < p[:, None]).astype(float)
        interval = clustered_wilson(draws.tolist())
        hits += interval.low <= a / (a + b) <= interval.high
    assert 0.92 <= hits / WORLDS <= 0.98


def test_two_diagnoses_of_the_same_agent_differ_by_nothing_19_times_of_20(peek) -> None:
    """A/A: the same items played twice; the paired interval of the difference must hold 0."""
    rng, hits = np.random.default_rng(11), 0
    for _ in range(WORLDS):
        p = rng.beta(0.8, 0.8, ITEMS)
        before, after = ((rng.random((ITEMS, SAMPLES)) < p[:, None]).astype(float).tolist() for _ in range(2))
        interval = paired_cluster_bootstrap(before, after, n_boot=400)
        hits += interval.low <= 0 <= interval.high
    assert 0.92 <= hits / WORLDS <= 0.98
