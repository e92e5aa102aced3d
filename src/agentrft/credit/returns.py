"""Returns: what an episode still earns, turn by turn."""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.credit.view import GroupView


def discounted(rewards_K: Sequence[float], gamma: float) -> list[float]:
    """G_k = r_k + γ·G_{k+1} for every turn. Discounting is per turn: per token it would erase a long tool result."""
    returns_K: list[float] = []
    following = 0.0
    for reward in reversed(rewards_K):
        following = reward + gamma * following
        returns_K.append(following)
    return returns_K[::-1]


def returns_of(group: GroupView, gamma: float) -> list[list[float]]:
    """For every member the return from each turn: turn rewards, and the episode's reward at its last turn.

    A member without a reward has no returns worth reading; it gets 0 for each turn.
    """
    returns_G_K: list[list[float]] = []
    for reward, steps in zip(group.rewards_G, group.steps_G, strict=True):
        rewards_K = [step.turn_reward for step in steps]
        if reward is not None and rewards_K:
            rewards_K[-1] += reward
            returns_G_K.append(discounted(rewards_K, gamma))
        else:
            returns_G_K.append([0.0] * len(steps))
    return returns_G_K
