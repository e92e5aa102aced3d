"""What a baseline says in numbers: how often, how evenly and how well the agent does, with intervals over items.

Faults are out of everything, episodes without a grade out of what needs one: an item counts with what it has.
Definitions: docs/diagnose.md. Sources: Chen et al. 2021 for pass@k; stats.py for the intervals.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, variance
from typing import Any

from agentrft.diagnose.baseline import Baseline
from agentrft.rollout import trained_tokens
from agentrft.stats import Interval, cluster_bootstrap, clustered_wilson, pass_at_k, wilson
from agentrft.types import Episode, Grade, Group, StopReason

SIGNAL = 1e-6
"""Rewards of an item that differ by no more teach nothing; the same bound as in training."""
_QUESTION_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with both intervals: Wilson's keeps its level near 0 and 1, the bootstrap assumes no shape."""

    wilson: Interval
    bootstrap: Interval

    def to_json(self) -> dict[str, Any]:
        """Wilson's interval, and the bootstrap's under `bootstrap`."""
        return {**self.wilson.to_json(), "bootstrap": self.bootstrap.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFigures:
    """One item: its rewards and what they come to. None where it has no reward."""

    id: str
    question: str
    rewards: Sequence[float]
    passes: Sequence[bool]
    """Of the graded episodes, aligned with `rewards`."""
    faults: int
    no_grade: int
    mean: float | None
    sd: float | None
    """Sample standard deviation; None with fewer than two rewards."""
    best: float | None

    @property
    def has_signal(self) -> bool:
        """Whether its rewards differ: only such an item teaches reinforcement anything."""
        return len(self.rewards) > 1 and max(self.rewards) - min(self.rewards) > SIGNAL

    def to_json(self) -> dict[str, Any]:
        """Every field, `rewards` and `passes` as lists."""
        return {**asdict(self), "rewards": list(self.rewards), "passes": [int(passed) for passed in self.passes]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The numbers of a baseline."""

    reward: Interval
    pass_at: Mapping[int, Share]
    """k → the share of items that k episodes solve at least once; k = 1, 2, 4, … and the number of samples."""
    best: Interval
    """Reward of an item's best episode."""
    headroom: Interval
    """Best minus mean reward: what choosing well among the agent's own episodes would add."""
    signal: Interval
    """Share of items whose rewards differ."""
    never: Interval
    """Share of items that no episode solved."""
    always: Interval
    """Share of items that every episode solved."""
    variance: float
    """Mean over items of the variance of rewards (learnability)."""
    calls: Interval
    generated_tokens: float | None
    """Mean per episode; None where the model's tokens are not known."""
    prompt_tokens: float | None
    episode_s: float
    """Mean wall time of an episode, waiting for others included."""
    faults: Interval
    """Share of episodes that an outside part broke."""
    no_grade: float
    """Share of the other episodes without a number."""
    truncated: float
    """Share of the other episodes that a limit cut off."""
    unreadable: float
    """Share of replies that could not be read as a call or an answer."""
    stop_reasons: Mapping[str, int]
    grader_s: float
    """Mean wall time of a grading."""
    judge_tokens: int

    def to_json(self) -> dict[str, Any]:
        """Intervals as `stats` writes them; `pass_at` by k as text."""
        parts: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            parts[name] = value.to_json() if isinstance(value, Interval) else value
        parts["pass_at"] = {str(k): share.to_json() for k, share in self.pass_at.items()}
        parts["stop_reasons"] = dict(self.stop_reasons)
        return parts


def item_figures(baseline: Baseline) -> list[ItemFigures]:
    """One per item, in the order of the plan."""
    pairs = zip(baseline.groups, baseline.rewards_I_G, strict=True)
    return [_of_item(group, rewards_G, baseline.plan.pass_threshold) for group, rewards_G in pairs]


def figures_of(
    baseline: Baseline,
    items: Sequence[ItemFigures],
    usage: Mapping[str, Mapping[str, int]] | None = None,
    *,
    n_boot: int = 10_000,
) -> Figures:
    """The numbers of a baseline; `usage` has what a provider counted, by episode id.

    Raises ValueError when no episode has a reward.
    """
    rewards_I_K = [item.rewards for item in items]
    pairs = [pair for group in baseline.groups for pair in zip(group.episodes, group.grades, strict=True)]
    sound = [(episode, grade) for episode, grade in pairs if episode.stop_reason is not StopReason.FAULT]
    graded = [item for item in items if item.rewards]
    n_passed = [sum(item.passes) for item in graded]
    generated, prompt = _tokens([episode for episode, _ in sound], usage or {})

    def over(values_I_K: Sequence[Sequence[float]]) -> Interval:
        return cluster_bootstrap(values_I_K, n_boot=n_boot)

    return Figures(
        reward=over(rewards_I_K),
        pass_at={k: _pass_at(graded, k, over) for k in _ks(graded)},
        best=over([[max(item.rewards)] for item in graded]),
        headroom=over([[max(item.rewards) - fmean(item.rewards)] for item in graded]),
        signal=wilson(sum(item.has_signal for item in graded), len(graded)),
        never=wilson(n_passed.count(0), len(graded)),
        always=wilson(sum(n == len(item.passes) for n, item in zip(n_passed, graded, strict=True)), len(graded)),
        variance=fmean([variance(item.rewards) for item in graded if len(item.rewards) > 1] or [0.0]),
        calls=over([[float(e.n_calls) for e in group.episodes if _is_sound(e)] for group in baseline.groups]),
        generated_tokens=generated,
        prompt_tokens=prompt,
        episode_s=fmean(episode.wall_s for episode, _ in sound),
        faults=clustered_wilson([[float(not _is_sound(e)) for e in group.episodes] for group in baseline.groups]),
        no_grade=fmean(grade.value is None for _, grade in sound),
        truncated=fmean(episode.stop_reason.is_truncated for episode, _ in sound),
        unreadable=_unreadable([episode for episode, _ in sound]),
        stop_reasons=dict(Counter(episode.stop_reason.value for episode, _ in pairs)),
        grader_s=fmean(grade.wall_s for _, grade in sound),
        judge_tokens=sum(used.total_tokens for _, grade in sound for used in grade.token_usage.values()),
    )


def _of_item(group: Group, rewards_G: Sequence[float | None], pass_threshold: float) -> ItemFigures:
    graded = [
        (reward, grade.value >= pass_threshold)
        for reward, grade in zip(rewards_G, group.grades, strict=True)
        if reward is not None and grade.value is not None
    ]
    rewards = [reward for reward, _ in graded]
    faults = sum(not _is_sound(episode) for episode in group.episodes)
    return ItemFigures(
        id=group.item.id,
        question=_question(group),
        rewards=rewards,
        passes=[passed for _, passed in graded],
        faults=faults,
        no_grade=len(group.episodes) - faults - len(graded),
        mean=fmean(rewards) if rewards else None,
        sd=math.sqrt(variance(rewards)) if len(rewards) > 1 else None,
        best=max(rewards) if rewards else None,
    )


def _pass_at(items: Sequence[ItemFigures], k: int, over: Callable[[Sequence[Sequence[float]]], Interval]) -> Share:
    """For k = 1 of every episode's own 0 or 1; else of the unbiased estimate of each item that has k results."""
    if k == 1:
        values_I_K = [[float(passed) for passed in item.passes] for item in items]
    else:
        values_I_K = [[pass_at_k(len(i.passes), sum(i.passes), k)] for i in items if len(i.passes) >= k]
    return Share(wilson=clustered_wilson(values_I_K), bootstrap=over(values_I_K))


def _ks(items: Sequence[ItemFigures]) -> list[int]:
    """1, 2, 4, … and the largest number of results that half of the items have."""
    counts = sorted(len(item.passes) for item in items)
    most = counts[len(counts) // 2]
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def _tokens(episodes: Sequence[Episode], usage: Mapping[str, Mapping[str, int]]) -> tuple[float | None, float | None]:
    """Mean generated tokens, and mean tokens read (prompt and tool results), of an episode."""
    if all(episode.tokens for episode in episodes):
        generated = [trained_tokens(episode) for episode in episodes]
        read = [len(e.tokens.ids) - made for e, made in zip(episodes, generated, strict=True) if e.tokens]
        return fmean(generated), fmean(read)
    counted = [usage[episode.id] for episode in episodes if episode.id in usage]
    if not counted:
        return None, None
    return fmean(u["completion_tokens"] for u in counted), fmean(u["prompt_tokens"] for u in counted)


def _unreadable(episodes: Sequence[Episode]) -> float:
    replies = [turn.malformed is not None for episode in episodes for turn in episode.turns]
    cut = sum(episode.stop_reason is StopReason.MAX_REPLY_TOKENS for episode in episodes)
    return (sum(replies) + cut) / max(len(replies), 1)


def _is_sound(episode: Episode) -> bool:
    return episode.stop_reason is not StopReason.FAULT


def _question(group: Group) -> str:
    """The last that the user says, on one line, as far as a table has room."""
    said = [message.content or "" for message in group.item.messages if message.role == "user"]
    question = " ".join(said[-1].split()) if said else ""
    return question if len(question) <= _QUESTION_CHARS else question[: _QUESTION_CHARS - 1] + "…"


def no_results(grades: Sequence[Grade]) -> str:
    """Why there is no number at all, from up to five of the reasons."""
    return "; ".join(sorted({grade.reason for grade in grades if grade.reason})[:5])
