"""Go or no-go: every rule fires on the numbers it is for, and the first one wins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentrft.diagnose.figures import Figures, Share
from agentrft.diagnose.repeat import Agreement, Repeatability
from agentrft.diagnose.verdict import Bounds, Evidence, rule
from agentrft.stats import Interval


def at(mean: float, n: int = 50) -> Interval:
    return Interval(mean=mean, low=mean, high=mean, n_items=n, n_episodes=8 * n)


def share(mean: float) -> Share:
    return Share(wilson=at(mean), bootstrap=at(mean))


GOOD = Figures(
    reward=at(0.4),
    pass_at={1: share(0.4), 8: share(0.8)},
    best=at(0.8),
    headroom=at(0.4),
    signal=at(0.7),
    never=at(0.2),
    always=at(0.1),
    variance=0.2,
    calls=at(2.0),
    generated_tokens=20.0,
    prompt_tokens=200.0,
    episode_s=1.0,
    faults=at(0.0),
    no_grade=0.0,
    truncated=0.0,
    unreadable=0.0,
    stop_reasons={"answered": 400},
    grader_s=0.01,
    judge_tokens=0,
)
STEADY = Repeatability(icc=1.0, episodes=30, gradings=3, changed=0, largest=0.0)
EVIDENCE = Evidence(figures=GOOD, samples=8, repeat=STEADY)


@pytest.mark.parametrize(
    ("go", "name", "figures", "evidence"),
    [
        ("go", "learnable", {}, {}),
        ("unsure", "too_few", {"reward": at(0.4, 9)}, {}),
        ("unsure", "too_few", {}, {"samples": 3}),
        ("no-go", "faults", {"faults": at(0.06)}, {}),
        ("no-go", "grader", {"no_grade": 0.3}, {}),
        ("no-go", "grader", {}, {"repeat": replace(STEADY, icc=0.7)}),
        ("no-go", "grader", {}, {"agreement": Agreement(rho=0.5, episodes=100)}),
        ("no-go", "grader", {}, {"fooled_by": ("empty",)}),
        ("no-go", "little_to_gain", {"pass_at": {1: share(0.95), 8: share(1.0)}}, {}),
        ("no-go", "little_to_gain", {"headroom": at(0.03)}, {}),
        ("no-go", "unreadable", {"unreadable": 0.3}, {}),
        ("no-go", "truncated", {"truncated": 0.4}, {}),
        ("no-go", "out_of_reach", {"never": at(0.98), "headroom": at(0.02)}, {}),
        ("no-go", "sparse", {"signal": at(0.3)}, {}),
        ("no-go", "sparse", {"headroom": at(0.1)}, {}),
    ],
)
def test_rules(go: str, name: str, figures: dict, evidence: dict) -> None:
    ruling = rule(replace(EVIDENCE, figures=replace(GOOD, **figures), **evidence))
    assert (ruling.go, ruling.rule) == (go, name)
    assert ruling.why
    assert ruling.next_step


def test_the_first_rule_wins() -> None:
    broken = replace(GOOD, faults=at(0.5), never=at(1.0), unreadable=0.9)
    assert rule(replace(EVIDENCE, figures=broken)).rule == "faults"


def test_bounds_can_be_moved() -> None:
    assert rule(EVIDENCE, Bounds(good_headroom=0.5)).rule == "sparse"


def test_a_grader_that_was_not_audited_or_measured_is_not_held_against_it() -> None:
    unknown = Repeatability(icc=None, episodes=0, gradings=3, changed=0, largest=0.0)
    evidence = replace(EVIDENCE, repeat=unknown, agreement=Agreement(rho=None, episodes=2), fooled_by=None)
    assert rule(evidence).go == "go"
