"""The only figure that counts: the winner against the job as it is, on items that nothing has looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.optimise.arena import Arena, Score, Slot
from agentrft.optimise.edit import Edit
from agentrft.stats import Interval, cluster_bootstrap, paired_cluster_bootstrap

POWER = 2.8
"""z for 95 % two-sided plus z for 80 % power: an effect of so many standard errors is seen four times in five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One candidate on the untouched items."""

    reward: Interval
    tokens: float
    """Generated per episode."""
    calls: float
    interventions: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Both sides on the same items and seeds."""

    before: Side
    after: Side
    gain: Interval
    """Of the paired difference; adopted when it lies above 0 as a whole."""
    wins: Sequence[str]
    """Ids of items that do better."""
    losses: Sequence[str]
    """Ids of items that do worse."""
    ties: int

    @property
    def adopted(self) -> bool:
        """The lower bound exceeds zero."""
        return self.gain.low > 0

    @property
    def smallest_seen(self) -> float:
        """The gain that a confirmation of this size sees four times in five."""
        return POWER * (self.gain.high - self.gain.low) / (2 * 1.96)


async def confirm(arena: Arena, edits: Sequence[Edit], samples: int) -> Confirmation:
    """Both sides play every item `samples` times, taking turns; raises ValueError when nothing is graded."""
    n_items = len(arena.items)
    before_I_K: list[list[Score]] = [[] for _ in range(n_items)]
    after_I_K: list[list[Score]] = [[] for _ in range(n_items)]
    for sample in range(samples):
        slots: list[Slot] = [(index, sample) for index in range(n_items)]
        for side, scores_I_K in (([], before_I_K), (edits, after_I_K)):
            for index, score in enumerate(await arena.scores(side, slots)):
                scores_I_K[index].append(score)
    before, after = _rewards(before_I_K), _rewards(after_I_K)
    gain = paired_cluster_bootstrap(before, after)
    changes = {
        item.id: math.fsum(b) / len(b) - math.fsum(a) / len(a)
        for item, a, b in zip(arena.items, before, after, strict=True)
        if a and b
    }
    wins, losses = ([id_ for id_, change in changes.items() if sign * change > 1e-9] for sign in (1, -1))
    return Confirmation(
        before=_side(before_I_K),
        after=_side(after_I_K),
        gain=gain,
        wins=wins,
        losses=losses,
        ties=len(changes) - len(wins) - len(losses),
    )


def _rewards(scores_I_K: Sequence[Sequence[Score]]) -> list[list[float]]:
    return [[score.reward for score in scores_K if score.reward is not None] for scores_K in scores_I_K]


def _side(scores_I_K: Sequence[Sequence[Score]]) -> Side:
    flat = [score for scores_K in scores_I_K for score in scores_K]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    return Side(
        reward=cluster_bootstrap(_rewards(scores_I_K)),
        tokens=mean([score.tokens for score in flat]),
        calls=mean([score.calls for score in flat]),
        interventions=mean([score.interventions for score in flat]),
        wall_s=mean([score.wall_s for score in flat]),
    )
