"""The only figure that counts: the winner against the job as it is, on items that nothing has looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.errors import BoundaryError
from agentrft.optimise.arena import Arena, Slot, Tally
from agentrft.optimise.edit import Edit
from agentrft.stats import Interval, cluster_bootstrap, paired_cluster_bootstrap

COSTS = ("tokens", "calls", "interventions")
"""What an episode costs; not its seconds, which depend on what else the machine did."""
TOLERATED = 1.1
"""A cost may rise by a tenth before anyone is told."""
POWER = 2.8
"""z for 95 % two-sided plus z for 80 % power: an effect of so many standard errors is seen four times in five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One candidate on the untouched items."""

    reward: Interval
    """Of the episodes that have one; where none has, the lowest that the other side got."""
    ungraded: int
    """Episodes without a reward: faults, and where the grader gave no number."""
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
    """Of the paired difference, where both sides have rewards; `gain_at_worst` where next to no item has both."""
    gain_at_worst: Interval
    """The same where an episode without a reward counts as the lowest reward that any episode got."""
    wins: Sequence[str]
    """Ids of items that do better."""
    losses: Sequence[str]
    """Ids of items that do worse."""
    ties: int
    dearer: Sequence[str] = ()
    """Names of the costs that rose beyond what is tolerated, by the whole interval."""

    @property
    def adopted(self) -> bool:
        """Both lower bounds exceed zero: who turns failures into episodes without a reward has not improved."""
        return self.gain.low > 0 and self.gain_at_worst.low > 0

    @property
    def smallest_seen(self) -> float:
        """The gain that a confirmation of this size sees four times in five."""
        return POWER * (self.gain.high - self.gain.low) / (2 * 1.96)


async def confirm(arena: Arena, edits: Sequence[Edit], samples: int) -> Confirmation:
    """Both sides play every item `samples` times, taking turns.

    Raises BoundaryError when the job as it is has a reward on fewer than half of them.
    """
    n_items = len(arena.items)
    before_I_K: list[list[Tally]] = [[] for _ in range(n_items)]
    after_I_K: list[list[Tally]] = [[] for _ in range(n_items)]
    for sample in range(samples):
        slots: list[Slot] = [(index, sample) for index in range(n_items)]
        for side, tallies_I_K in (([], before_I_K), (edits, after_I_K)):
            for index, tally in enumerate(await arena.tallies(side, slots)):
                tallies_I_K[index].append(tally)
    before, after = _rewards(before_I_K), _rewards(after_I_K)
    n_before = sum(bool(rewards_K) for rewards_K in before)
    if n_before < n_items / 2:
        raise BoundaryError(
            f"the job as it is got a reward on only {n_before} of the {n_items} items that confirm; mend its tools or "
            "grader (`agentrft diagnose` shows what failed) and run the same command again"
        )
    lowest = min(reward for rewards_K in (*before, *after) for reward in rewards_K)
    gain_at_worst = paired_cluster_bootstrap(_rewards(before_I_K, lowest), _rewards(after_I_K, lowest))
    has_both = sum(bool(a and b) for a, b in zip(before, after, strict=True)) > 1
    gain = paired_cluster_bootstrap(before, after) if has_both else gain_at_worst
    changes = {
        item.id: math.fsum(b) / len(b) - math.fsum(a) / len(a)
        for item, a, b in zip(arena.items, before, after, strict=True)
        if a and b
    }
    wins, losses = ([id_ for id_, change in changes.items() if sign * change > 1e-9] for sign in (1, -1))
    return Confirmation(
        before=_side(before_I_K, lowest),
        after=_side(after_I_K, lowest),
        gain=gain,
        gain_at_worst=gain_at_worst,
        wins=wins,
        losses=losses,
        ties=len(changes) - len(wins) - len(losses),
        dearer=[name for name in COSTS if _is_dearer(name, before_I_K, after_I_K)],
    )


def _is_dearer(name: str, before_I_K: Sequence[Sequence[Tally]], after_I_K: Sequence[Sequence[Tally]]) -> bool:
    """Whether the cost is beyond what is tolerated of that before, item by item, with the whole interval."""
    tolerated, after = (
        [[factor * getattr(tally, name) for tally in tallies_K] for tallies_K in tallies_I_K]
        for factor, tallies_I_K in ((TOLERATED, before_I_K), (1.0, after_I_K))
    )
    return paired_cluster_bootstrap(tolerated, after).low > 0


def _rewards(tallies_I_K: Sequence[Sequence[Tally]], instead: float | None = None) -> list[list[float]]:
    """Per item; an episode without a reward is left out, or counts as `instead`."""
    rewards_I_K = [
        [instead if tally.reward is None else tally.reward for tally in tallies_K] for tallies_K in tallies_I_K
    ]
    return [[reward for reward in rewards_K if reward is not None] for rewards_K in rewards_I_K]


def _side(tallies_I_K: Sequence[Sequence[Tally]], lowest: float) -> Side:
    rewards_I_K = _rewards(tallies_I_K)
    flat = [tally for tallies_K in tallies_I_K for tally in tallies_K]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    return Side(
        reward=cluster_bootstrap(rewards_I_K if any(rewards_I_K) else _rewards(tallies_I_K, lowest)),
        ungraded=sum(tally.reward is None for tally in flat),
        tokens=mean([tally.tokens for tally in flat]),
        calls=mean([tally.calls for tally in flat]),
        interventions=mean([tally.interventions for tally in flat]),
        wall_s=mean([tally.wall_s for tally in flat]),
    )
