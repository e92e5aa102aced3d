"""What credit sees and what it gives back: plain numbers and texts, no episodes, no tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["trajectory", "step", "turn_return", "shaping"]
"""`trajectory`: what the episode earned. `step`: what this state's peers change about that. `turn_return`: rewards of
this and later turns. `shaping`: what a measure of progress adds."""

Parts = dict[Part, float]
"""The parts of one turn's credit, in units of reward; their sum is the credit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One turn of one member; its place in the list is its number."""

    state_key: str | None = None
    """Equal for equal states before the reply (`agentrft.credit.keys`); None where the state is not known."""
    calls: tuple[str, ...] = ()
    """What the reply called, in canonical form; empty for an answer."""
    turn_reward: float = 0.0
    """Earned by this turn alone, the episode's reward excluded."""
    n_tokens: int = 0
    """Generated tokens."""
    reference_log_prob: float | None = None
    """Mean log-prob (nats/token) of the item's reference answer given everything before this turn's reply."""
    node: str | None = None
    """In a tree of branches: the same text for the same turn of members that share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """The members of one group, as credit sees them."""

    rewards_G: tuple[float | None, ...]
    """None: no grade, so in no baseline and without credit."""
    steps_G: tuple[tuple[StepView, ...], ...]
    """The turns of every member, in order."""

    def __post_init__(self) -> None:
        if len(self.rewards_G) != len(self.steps_G):
            raise ValueError(f"{len(self.rewards_G)} rewards for {len(self.steps_G)} members")
        numbers = [reward for reward in self.rewards_G if reward is not None]
        numbers += [step.turn_reward for steps in self.steps_G for step in steps]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"rewards must be finite or None, got {[n for n in numbers if not math.isfinite(n)]}")

    @property
    def graded(self) -> list[int]:
        """Members with a reward."""
        return [member for member, reward in enumerate(self.rewards_G) if reward is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """The credit of a step's groups."""

    parts_I_G_K: list[list[list[Parts]]]
    """For every group, member and turn."""
    basis_I_G: list[list[float]]
    """Centred rewards, one per member: what `RewardScale.updated` measures, whatever turns get."""
    notes: tuple[str, ...] = ()
    """What people should know about this step."""

    @property
    def credit_I_G_K(self) -> list[list[list[float]]]:
        """The sum of the parts."""
        return [[[sum(parts.values()) for parts in turns] for turns in members] for members in self.parts_I_G_K]


CreditFunction = Callable[[Sequence[GroupView]], Credited]
"""From the groups of one optimiser step to their credit."""


def every_turn(groups: Sequence[GroupView], credit_I_G: Sequence[Sequence[float]]) -> list[list[list[Parts]]]:
    """A member's credit given to each of its turns, as the part `trajectory`."""
    return [
        [[{"trajectory": credit} for _ in steps] for steps, credit in zip(group.steps_G, credit_G, strict=True)]
        for group, credit_G in zip(groups, credit_I_G, strict=True)
    ]
