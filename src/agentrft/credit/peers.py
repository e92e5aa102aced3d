"""Peers: the other members of a group that came to the same state, what they did there, and what it brought."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.credit.returns import returns_of
from agentrft.credit.view import GroupView


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Who else was in the state of one step. Each other member counts once, by its first visit."""

    members: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    """When each was first there."""
    calls: tuple[tuple[str, ...], ...] = ()
    """What each called there."""
    returns: tuple[float, ...] = ()
    """What each earned from there on."""

    @property
    def n(self) -> int:
        """How many; below 3 their mean says little."""
        return len(self.members)

    @property
    def mean(self) -> float:
        """Their mean return; NaN without peers."""
        return math.fsum(self.returns) / self.n if self.n else math.nan


def peers_of(group: GroupView, returns_G_K: Sequence[Sequence[float]] | None = None) -> list[list[Peers]]:
    """The peers of every turn of every member; undiscounted returns unless others are given.

    A member's own visits are never among its peers: a baseline that holds what the policy did next is biased. Of the
    others only the first visit counts, so that going in circles does not make a member's voice louder. Members without
    a reward, and steps without a key, have no peers and are nobody's.
    """
    returns_G_K = returns_of(group, 1.0) if returns_G_K is None else returns_G_K
    first: dict[str, dict[int, int]] = {}
    for member in group.graded:
        for turn, step in enumerate(group.steps_G[member]):
            if step.state_key is not None:
                first.setdefault(step.state_key, {}).setdefault(member, turn)

    def peers(member: int, state_key: str | None) -> Peers:
        visits = first.get(state_key, {}) if state_key is not None else {}
        if member not in visits:
            return Peers()
        others = {other: turn for other, turn in visits.items() if other != member}
        return Peers(
            members=tuple(others),
            turns=tuple(others.values()),
            calls=tuple(group.steps_G[other][turn].calls for other, turn in others.items()),
            returns=tuple(returns_G_K[other][turn] for other, turn in others.items()),
        )

    return [[peers(member, step.state_key) for step in steps] for member, steps in enumerate(group.steps_G)]


def shrinkage(n: int) -> float:
    """n / (n + 3): how far a mean over n peers is believed, from 0 (none) towards 1.

    The shrinkage m/(m + 2) on a mean over all m = n + 1 visitors, carried over to a mean over the others: their
    centred returns are (m − 1)/m times ours, and (m − 1)/m · m/(m + 2) = n/(n + 3).
    """
    return n / (n + 3)


def others_mean(group: GroupView, returns_G_K: Sequence[Sequence[float]]) -> list[float]:
    """For every member the mean return, from the first turn, of the other graded members; NaN without others."""
    starts = {member: returns_G_K[member][0] for member in group.graded if returns_G_K[member]}
    total = math.fsum(starts.values())
    means: list[float] = []
    for member in range(len(group.rewards_G)):
        others = len(starts) - (member in starts)
        means.append((total - starts.get(member, 0.0)) / others if others else math.nan)
    return means
