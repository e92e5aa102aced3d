"""The numbers of a baseline, worked by hand on three items."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from agentrft.diagnose.baseline import Baseline
from agentrft.diagnose.estimate import Price, estimate
from agentrft.diagnose.figures import figures_of, item_figures
from agentrft.diagnose.tool_figures import UNREADABLE, tool_figures
from agentrft.rollout import GradedEpisode
from agentrft.types import Grade, Group, Message, StopReason, TokenTrace, TokenUsage, Turn


@pytest.fixture
def baseline(peek) -> Baseline:
    """Item 0 passes 2 of 4, item 1 never, item 2 has a fault and an episode without a grade."""
    items = peek.items(3)
    fault = peek.episode(items[2], 0, stop=StopReason.FAULT, fault="tool: tool p raised KeyError")
    rest = [peek.episode(items[2], member) for member in (1, 2, 3)]
    odd = Group(
        item=items[2],
        episodes=(fault, *rest),
        grades=(
            Grade(value=None, reason="the episode is a fault"),
            Grade(value=None, reason="no number"),
            Grade(value=1.0),
            Grade(value=1.0),
        ),
    )
    groups = [peek.group(items[0], [1.0, 0.0, 1.0, 0.2]), peek.group(items[1], [0.0, 0.0, 0.0, 0.0]), odd]
    return Baseline(plan=peek.plan(items), groups=groups)


def test_items(baseline: Baseline) -> None:
    first, second, third = item_figures(baseline)
    assert first.rewards == [1.0, 0.0, 1.0, 0.2]
    assert first.passes == [True, False, True, False]
    assert (first.mean, first.best) == (0.55, 1.0)
    # Deviations .45, −.55, .45, −.35: (.2025 + .3025 + .2025 + .1225) / 3 = .27667
    assert first.sd == pytest.approx(math.sqrt(0.83 / 3))
    assert (first.has_signal, second.has_signal, third.has_signal) == (True, False, False)
    assert (third.rewards, third.faults, third.no_grade) == ([1.0, 1.0], 1, 1)


def test_figures(baseline: Baseline) -> None:
    figures = figures_of(baseline, item_figures(baseline))
    # pass@1: (2/4 + 0 + 2/2) / 3; reward: (.55 + 0 + 1) / 3; best: (1 + 0 + 1) / 3
    assert figures.pass_at[1].wilson.mean == 0.5
    assert figures.reward.mean == pytest.approx(1.55 / 3)
    assert figures.best.mean == pytest.approx(2 / 3)
    assert figures.headroom.mean == pytest.approx((0.45 + 0 + 0) / 3)
    # pass@2 of item 0: 1 − C(2,2)/C(4,2) = 5/6; item 2 has two results, both passed.
    assert figures.pass_at[2].wilson.mean == pytest.approx((5 / 6 + 0 + 1) / 3)
    # The median item has four results, so pass@4 is the last; item 2 has too few for it.
    assert list(figures.pass_at) == [1, 2, 4]
    assert figures.pass_at[4].wilson.mean == 0.5
    assert (figures.signal.mean, figures.never.mean, figures.always.mean) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert figures.variance == pytest.approx(0.83 / 3 / 3)
    # Faults: 1 of the 4 episodes of one of three items; the other shares are of the 11 sound ones.
    assert figures.faults.mean == pytest.approx(1 / 12)
    assert figures.no_grade == pytest.approx(1 / 11)
    assert figures.stop_reasons == {"answered": 11, "fault": 1}
    assert figures.generated_tokens is None
    json.dumps(figures.to_json(), allow_nan=False)


def test_tokens_come_from_the_trace_or_from_what_the_provider_counted(peek) -> None:
    item = peek.items(1)[0]
    trace = TokenTrace(
        ids=range(10), trained=[False] * 7 + [True] * 3, log_probs=[0.0] * 10, prompt_tokens=7, policy_version=0
    )
    episodes = tuple(replace(peek.episode(item, member), tokens=trace) for member in range(2))
    group = Group(item=item, episodes=episodes, grades=(Grade(value=1.0), Grade(value=0.0)))
    baseline = Baseline(plan=peek.plan([item], samples=2), groups=[group])
    figures = figures_of(baseline, item_figures(baseline))
    assert (figures.generated_tokens, figures.prompt_tokens) == (3, 7)

    text = Baseline(plan=baseline.plan, groups=[peek.group(item, [1.0, 0.0])])
    used = {"ep_row-0_0": {"prompt_tokens": 100, "completion_tokens": 30}}
    figures = figures_of(text, item_figures(text), used)
    assert (figures.generated_tokens, figures.prompt_tokens) == (30, 100)


def test_the_reward_counts_penalties_and_cut_off_episodes(peek) -> None:
    item = peek.items(1)[0]
    cut = peek.episode(item, 0, stop=StopReason.MAX_TURNS)
    group = Group(item=item, episodes=(cut, peek.episode(item, 1)), grades=(Grade(value=0.9), Grade(value=0.9)))
    baseline = Baseline(plan=peek.plan([item], samples=2), groups=[group])
    (figures,) = item_figures(baseline)
    assert figures.rewards == [0.0, 0.9]


def test_tools_by_hand(peek) -> None:
    items = peek.items(2)
    calls = [("look", '{"a": 1}'), ("look", "{}"), ("put", "{}")]
    first = peek.episode(items[0], 0, calls=calls, errors=[1])
    broke = peek.episode(items[0], 1, calls=calls[:1], stop=StopReason.FAULT, fault="tool: tool look raised KeyError")
    garbled = Turn(reply=Message(role="assistant", content="!!"), malformed="no call", results=first.turns[0].results)
    odd = replace(peek.episode(items[1], 0), turns=(garbled,))
    none = Grade(value=None, reason="-")
    groups = [
        Group(item=items[0], episodes=(first, broke), grades=(Grade(value=1.0), none)),
        Group(item=items[1], episodes=(odd,), grades=(none,)),
    ]
    look, unreadable, put, idle = tool_figures(groups, ["look", "put", "idle"])
    assert (look.name, look.calls, look.episodes, look.faults, look.is_known) == ("look", 3, 2, 1, True)
    assert look.error.mean == 0.5  # of the two calls that came back
    assert (look.p50_s, look.p95_s) == (pytest.approx(0.1), pytest.approx(0.2))
    assert (unreadable.name, unreadable.calls, unreadable.is_known) == (UNREADABLE, 1, False)
    assert (put.calls, put.p50_s) == (1, pytest.approx(0.3))
    assert (idle.calls, idle.p50_s, idle.error.high) == (0, None, 1.0)


def test_of_two_calls_side_by_side_the_one_that_the_fault_names_broke(peek) -> None:
    item = peek.items(1)[0]
    a, b = (peek.episode(item, calls=[(name, "{}")]).turns[0].reply.tool_calls[0] for name in ("look", "put"))
    turn = Turn(reply=Message(role="assistant", tool_calls=(a, b)))
    broke = replace(
        peek.episode(item), turns=(turn,), stop_reason=StopReason.FAULT, fault="tool: tool put gave no answer in 3 s"
    )
    (figures,) = tool_figures([Group(item=item, episodes=(broke,), grades=(Grade(value=None, reason="-"),))], [])
    assert (figures.name, figures.faults) == ("put", 1)


def test_an_estimate_scales_what_the_first_episodes_took(peek) -> None:
    item = peek.items(1)[0]
    judged = Grade(value=1.0, token_usage={"judge": TokenUsage(prompt_tokens=50, completion_tokens=10)})
    first = [
        GradedEpisode(
            episode=replace(peek.episode(item, member, calls=[("p", "{}")] * member), wall_s=2.0 * member), grade=judged
        )
        for member in (1, 2)
    ]
    # Episodes of 2 and 4 s, 20 at once: 100 / 20 · 3 s.
    made = estimate(first, 100, in_flight=20, counted=[(100, 10), (300, 30)], price=Price(prompt=1.0, completion=10.0))
    assert (made.wall_s, made.calls, made.judge_tokens) == (15.0, 150.0, 6000.0)
    assert (made.read_tokens, made.generated_tokens) == (20_000, 2_000)
    assert made.usd == pytest.approx(0.04)  # 0.02 M · 1 + 0.002 M · 10
    assert estimate(first, 100, in_flight=1000).wall_s == 3.0
    assert estimate(first, 100, in_flight=20).generated_tokens is None
