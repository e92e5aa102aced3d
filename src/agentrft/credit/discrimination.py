"""Do turn rewards tell good episodes from bad ones? Asked before they are trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrft.credit.view import GroupView
from agentrft.errors import UserError

MIN_EPISODES = 64
"""Below this the correlation's own error is larger than 0.13."""


def within_item_correlation(groups: Sequence[GroupView]) -> float | None:
    """Pearson's r between an episode's turn rewards (their sum) and its reward, both minus their item's mean.

    Between items a turn reward may well go with success, because easy items have both; only the differences within a
    group are trained on. None where one of the two never differs within an item. Members without a reward are left out.
    """
    pairs = [pair for group in groups for pair in _centred(group)]
    spread_of_turns = math.fsum(turns * turns for turns, _ in pairs)
    spread_of_rewards = math.fsum(reward * reward for _, reward in pairs)
    if not spread_of_turns or not spread_of_rewards:
        return None
    product = math.fsum(turns * reward for turns, reward in pairs)
    return max(-1.0, min(1.0, product / (math.sqrt(spread_of_turns) * math.sqrt(spread_of_rewards))))


def check_turn_rewards(groups: Sequence[GroupView], *, force: bool) -> float | None:
    """The correlation, after refusing turn rewards that would teach the wrong thing; `force` only refuses to refuse.

    Raises UserError (`invalid_credit`) when there are fewer than 64 graded episodes in groups of two and more, when
    nothing can be told, or when the correlation is not above 0. In published runs turn rewards cost up to 14 points
    before such a check, and gained after it (arXiv:2604.02869).
    """
    comparable = [group for group in groups if len(group.graded) > 1]
    episodes = sum(len(group.graded) for group in comparable)
    correlation = within_item_correlation(comparable)
    if force or (episodes >= MIN_EPISODES and correlation is not None and correlation > 0):
        return correlation
    if episodes < MIN_EPISODES:
        found = f"only {episodes} graded episodes can be compared, expected at least {MIN_EPISODES}"
        advice = "play more episodes per item before training"
    elif correlation is None:
        found = "within an item either the turn rewards or the grades never differ, so nothing can be told"
        advice = "reward turns for something that some episodes do and others do not"
    else:
        found = f"within an item their correlation with the reward is {correlation:+.2f}, expected above 0"
        advice = "reward what successful episodes do more of"
    raise UserError(
        f"turn rewards are refused: {found} ({episodes} episodes); {advice}, or set `training.credit.force: true`",
        param="training.credit",
        code="invalid_credit",
    )


def _centred(group: GroupView) -> list[tuple[float, float]]:
    """(turn rewards, reward) of the graded members, each minus its mean; rounding noise is no difference."""
    pairs = [
        (math.fsum(step.turn_reward for step in steps), reward)
        for steps, reward in zip(group.steps_G, group.rewards_G, strict=True)
        if reward is not None
    ]
    columns = [_minus_mean([pair[column] for pair in pairs]) for column in (0, 1)]
    return list(zip(*columns, strict=True))


def _minus_mean(values: Sequence[float]) -> list[float]:
    if not values or max(values) == min(values):
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]
