"""Which finding to mend first: within-item lift × prevalence × fixability.

Hard items have more of everything, so a tag without any effect is commoner where rewards are low: pooled over items it
looks harmful. Within an item the difficulty is the same, and what is left is the tag's own (reference: simulated there,
pooled +0.27 against 0.00 ± 0.03 within items, for an effect of 0). Lift is no proof: a tag that is seen only where
things had gone wrong already has lift too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from agentrft.detectors.finding import Evidence, Finding, Kind
from agentrft.detectors.seen import Seen
from agentrft.stats import CONFIDENCE, Interval, clustered_wilson, paired_cluster_bootstrap
from agentrft.types import StopReason

FIXABILITY: dict[Kind, float] = {
    **dict.fromkeys(Kind, 0.4),
    **dict.fromkeys((Kind.ENV_FAULT, Kind.GRADER_FAULT, Kind.TASK_DEFECT, Kind.TIMEOUT), 1.0),
    **dict.fromkeys((Kind.NO_STOP, Kind.CONTEXT_OVERFLOW, Kind.TRUNCATED_EVIDENCE), 1.0),
    **dict.fromkeys((Kind.UNKNOWN_TOOL, Kind.BAD_ARGS, Kind.WRONG_TOOL, Kind.IGNORED_OUTPUT), 0.7),
    Kind.WRONG_ANSWER: 0.1,
}
"""How likely the first remedy is to work: a setting 1, a description or an output 0.7, the prompt 0.4, the model 0.1.
Uncalibrated defaults."""

FIRST = (Kind.GRADER_FAULT, Kind.ENV_FAULT, Kind.TASK_DEFECT)
"""Mended before anything else, because every figure depends on them; they have no lift of their own."""
MIN_CONTRASTS = 5
"""Items with episodes that show a finding and episodes that do not, below which the lift is only shown."""
CITED = 3
_Z80 = NormalDist().inv_cdf(0.8)
_Z95 = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A step that shows the finding, and a successful episode of the same item that does without."""

    evidence: Evidence
    passing_id: str | None
    """None where no episode of the item succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A finding with its weight."""

    finding: Finding
    failures: Interval | None
    """Share of the failed episodes that show it; None when none failed."""
    passes: float | None
    """Share of the successful episodes that show it too; None when none succeeded."""
    items: int
    """Items that show it."""
    lift: Interval | None
    """Mean over items of (reward without − reward with it); None where no item has both, or it makes no sense."""
    ceiling: Interval | None
    """Points of success that mending it could bring at most: lift in success × share of episodes. Never add them up."""
    priority: float
    """max(0, lower 80 % bound of the lift) × share of failures × fixability; 0 where there are too few data."""
    fixability: float
    contrasts: tuple[Contrast, ...]
    """Up to three, of different items where there are as many."""
    note: str
    """What a reader must know of its place: mended first, too few data, no contrast; empty when nothing."""


def rank(findings: Sequence[Finding], seen: Sequence[Seen], pass_threshold: float) -> list[Ranked]:
    """What to mend, in order: what all figures depend on, by priority and share of failures, `wrong_answer` last."""
    episodes = _Episodes(seen, pass_threshold)
    ranked = [_weigh(finding, episodes) for finding in findings]
    return sorted(ranked, key=_place)


def _place(one: Ranked) -> tuple[int, float, float, float]:
    kind = one.finding.kind
    tier = 0 if kind in FIRST else 2 if kind is Kind.WRONG_ANSWER else 1
    first = FIRST.index(kind) if kind in FIRST else 0
    share = one.failures.mean if one.failures else 0.0
    return tier, first, -one.priority, -share * one.fixability


class _Episodes:
    """The outcomes of a run by item."""

    def __init__(self, seen: Sequence[Seen], pass_threshold: float) -> None:
        self.by_item: dict[str, list[tuple[str, float, bool]]] = {}
        """Item → (episode id, reward, success) of the episodes that were graded."""
        self.calls: dict[str, int] = {}
        for one in seen:
            record, value = one.record, one.record.grade.value
            if value is None or record.episode.stop_reason is StopReason.FAULT:
                continue
            reward = value if record.reward is None else record.reward
            entry = (record.episode.id, reward, value >= pass_threshold)
            self.by_item.setdefault(record.episode.item_id, []).append(entry)
            self.calls[record.episode.id] = record.episode.n_calls
        self.outcomes = {id: passed for entries in self.by_item.values() for id, _, passed in entries}

    def share(self, ids: frozenset[str], *, passed: bool) -> list[list[float]]:
        """Per item: 1 for each of its successful (or failed) episodes that is among `ids`, else 0."""
        return [
            [float(id in ids) for id, _, success in entries if success is passed] for entries in self.by_item.values()
        ]

    def split(self, ids: frozenset[str]) -> list[tuple[list[tuple[float, bool]], list[tuple[float, bool]]]]:
        """Per item that has both: (reward, success) of the episodes that are among `ids`, and of those that are not."""
        sides = [
            ([e[1:] for e in entries if e[0] in ids], [e[1:] for e in entries if e[0] not in ids])
            for entries in self.by_item.values()
        ]
        return [(tagged, others) for tagged, others in sides if tagged and others]

    def passing(self, item_id: str, without: frozenset[str]) -> str | None:
        """A successful episode of the item, first those without the finding, then the shortest."""
        good = [id for id, _, passed in self.by_item.get(item_id, ()) if passed]
        return min(good, key=lambda id: (id in without, self.calls[id], id), default=None)


def _weigh(finding: Finding, episodes: _Episodes) -> Ranked:
    ids = finding.episode_ids
    failed, passed = episodes.share(ids, passed=False), episodes.share(ids, passed=True)
    failures = clustered_wilson(failed) if any(failed) else None
    passes = _mean([value for values in passed for value in values])
    both = [] if finding.kind in FIRST or finding.kind is Kind.WRONG_ANSWER else episodes.split(ids)
    lift = _lift(both, 0)
    prevalence = _mean([float(id in ids) for id in episodes.outcomes]) or 0.0
    enough = len(both) >= MIN_CONTRASTS
    priority = 0.0
    if lift is not None and enough and failures is not None:
        priority = max(0.0, _lower80(lift)) * failures.mean * FIXABILITY[finding.kind]
    return Ranked(
        finding=finding,
        failures=failures,
        passes=passes,
        items=len({one.item_id for one in finding.evidence}),
        lift=lift,
        ceiling=_ceiling(_lift(both, 1), prevalence, ids, episodes) if enough else None,
        priority=priority,
        fixability=FIXABILITY[finding.kind],
        contrasts=_contrasts(finding, episodes),
        note=_note(finding, len(both), priority),
    )


def _lift(both: Sequence[tuple[list[tuple[float, bool]], list[tuple[float, bool]]]], place: int) -> Interval | None:
    """Mean over items of (without − with), of rewards (place 0) or successes (place 1)."""
    if not both:
        return None
    tagged_I_K = [[float(entry[place]) for entry in tagged] for tagged, _ in both]
    others_I_K = [[float(entry[place]) for entry in others] for _, others in both]
    return paired_cluster_bootstrap(tagged_I_K, others_I_K, n_boot=2_000)


def _lower80(lift: Interval) -> float:
    """The bound that the lift exceeds with 80 % confidence, from the 95 % interval as if it were normal."""
    return lift.mean - (lift.mean - lift.low) * _Z80 / _Z95


def _ceiling(lift: Interval | None, prevalence: float, ids: frozenset[str], episodes: _Episodes) -> Interval | None:
    """Lift in success × share of episodes, at most the share of episodes that show it and failed."""
    if lift is None:
        return None
    most = _mean([float(id in ids and not passed) for id, passed in episodes.outcomes.items()]) or 0.0
    mean, low, high = (min(max(value * prevalence, 0.0), most) for value in (lift.mean, lift.low, lift.high))
    return Interval(mean=mean, low=low, high=high, n_items=lift.n_items, n_episodes=lift.n_episodes)


def _contrasts(finding: Finding, episodes: _Episodes) -> tuple[Contrast, ...]:
    """Failed episodes before others, unrecovered steps before others, items with a success before others."""
    ids = finding.episode_ids

    def place(one: Evidence) -> tuple[bool, bool, bool]:
        failed = episodes.outcomes.get(one.episode_id) is False
        return not failed, one.recovered, episodes.passing(one.item_id, ids) is None

    ordered = sorted(finding.evidence, key=place)
    by_episode = {one.episode_id: one for one in reversed(ordered)}
    distinct = [one for one in ordered if by_episode[one.episode_id] is one]
    by_item = {one.item_id: one for one in reversed(distinct)}
    chosen = [one for one in distinct if by_item[one.item_id] is one]
    chosen += [one for one in distinct if by_item[one.item_id] is not one]
    return tuple(Contrast(evidence=one, passing_id=episodes.passing(one.item_id, ids)) for one in chosen[:CITED])


def _note(finding: Finding, n_both: int, priority: float) -> str:
    if finding.kind in FIRST:
        return "mend this first: every other figure depends on it"
    if finding.kind is Kind.WRONG_ANSWER:
        return "what is left for training"
    if n_both == 0:
        return "no item has episodes with and without it: what mending it brings cannot be told"
    if n_both < MIN_CONTRASTS:
        return f"too few data: only {n_both} items have episodes with and without it"
    return "" if priority > 0 else "no effect on the reward can be told apart from chance"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
